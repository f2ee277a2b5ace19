package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// OpenFiles lists the open file descriptions of the tree, each with all its
// descriptors, in the order of their first.
func (t *Tree) OpenFiles(ctx context.Context) ([]plugin.OpenFile, error) {
	c := &fileCollector{byKey: map[fileKey][]*description{}}
	for n := range 3 {
		c.stdio[n] = stdioKey(n)
	}
	for _, p := range t.procs {
		if p.zombie {
			continue
		}
		if err := c.process(ctx, p); err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.pid, err)
		}
	}
	out := make([]plugin.OpenFile, len(c.all))
	for i, d := range c.all {
		out[i] = d.OpenFile
	}
	t.files = c
	return out, nil
}

// Hold returns the description of fd, a descriptor of the agent, which an
// object of the tree holds, and whether it was not known so far. It comes
// after OpenFiles.
func (t *Tree) Hold(fd int) (f plugin.OpenFile, fresh bool, err error) {
	return t.files.hold(fd)
}

// DropHeld closes what Hold has kept.
func (t *Tree) DropHeld() {
	if t.files == nil {
		return
	}
	for _, fd := range t.files.held {
		unix.Close(fd)
	}
	t.files.held = nil
}

// fileKey is equal for descriptors of one description.
type fileKey struct {
	link     string
	dev, ino uint64
}

type description struct {
	plugin.OpenFile
	tid, fd int // its first descriptor, by host id
}

type fileCollector struct {
	all   []*description
	byKey map[fileKey][]*description // in the kernel's order, kcmp(2)
	stdio [3]fileKey
	byIno map[uint64][]*description // regular files; see regular
	own   map[int]*TableState       // of threads, by host id
	held  []int                     // duplicates, by which descriptions without a descriptor are known
}

func stdioKey(n int) fileKey {
	var st unix.Stat_t
	if unix.Fstat(n, &st) != nil {
		return fileKey{}
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n))
	return fileKey{link, st.Dev, st.Ino}
}

func (c *fileCollector) process(ctx context.Context, p *Process) error {
	tid := p.liveTID()
	fds, err := procfs.FDs(tid)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if err := c.descriptor(ctx, p, tid, fd); err != nil {
			return fmt.Errorf("fd %d: %w", fd, err)
		}
	}
	return c.tables(ctx, p)
}

func (c *fileCollector) descriptor(ctx context.Context, p *Process, tid, fd int) error {
	d, info, _, err := c.describe(tid, fd)
	if err != nil {
		return err
	}
	cloexec, err := d.closesOnExec(ctx, p, p.threads[0], fd, info)
	if err != nil {
		return err
	}
	d.Refs = append(d.Refs, plugin.FileRef{PID: p.pid, FD: fd, Cloexec: cloexec, Locked: info.Locked()})
	return nil
}

// closesOnExec says whether th's descriptor fd is closed on execve(2). fdinfo
// shows O_CLOEXEC as well where the description keeps it, as mq_open(2) and
// TIOCGPTPEER of ioctl_tty(2) have it: then only the program itself can tell.
func (d *description) closesOnExec(ctx context.Context, p *Process, th *Thread, fd int, info procfs.FDInfo) (bool, error) {
	if info.Flags&unix.O_CLOEXEC == 0 {
		return false, nil
	}
	kept, err := d.keepsCloexec()
	if err != nil || !kept {
		return true, err
	}
	get := []call{sys(unix.SYS_FCNTL, uint64(fd), unix.F_GETFD).as("F_GETFD fd %d", fd)}
	if err := p.tr.Do(func() error { return p.run(ctx, th, get) }); err != nil {
		return false, err
	}
	return get[0].ret&unix.FD_CLOEXEC != 0, nil
}

func (d *description) keepsCloexec() (bool, error) {
	if !strings.HasPrefix(d.Link, "/") { // a pipe, a socket, an anonymous inode
		return false, nil
	}
	fd, err := d.Dup()
	if err != nil {
		return false, fmt.Errorf("duplicate: %w", err)
	}
	defer unix.Close(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return flags&unix.O_CLOEXEC != 0, os.NewSyscallError("fcntl F_GETFL", err)
}

// hold describes what a descriptor of the agent refers to.
func (c *fileCollector) hold(fd int) (f plugin.OpenFile, fresh bool, err error) {
	fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return plugin.OpenFile{}, false, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	d, _, fresh, err := c.describe(os.Getpid(), fd)
	if err != nil || !fresh {
		unix.Close(fd)
	} else {
		c.held = append(c.held, fd)
	}
	if err != nil {
		return plugin.OpenFile{}, false, err
	}
	return d.OpenFile, fresh, nil
}

// describe finds the description of (tid, fd), or adds it.
func (c *fileCollector) describe(tid, fd int) (d *description, info procfs.FDInfo, fresh bool, err error) {
	path := fmt.Sprintf("/proc/%d/fd/%d", tid, fd)
	link, err := os.Readlink(path)
	if err != nil {
		return nil, info, false, err
	}
	raw, info, err := procfs.ReadFDInfo(tid, fd)
	if err != nil {
		return nil, info, false, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return nil, info, false, &os.PathError{Op: "stat", Path: link, Err: err}
	}
	key := fileKey{link, st.Dev, st.Ino}
	same := c.byKey[key]
	at, err := search(same, tid, fd)
	if err != nil {
		return nil, info, false, err
	}
	if at.found {
		return same[at.index], info, false, nil
	}
	d = &description{tid: tid, fd: fd, OpenFile: plugin.OpenFile{
		ID: len(c.all) + 1, Link: link, Flags: info.Flags &^ unix.O_CLOEXEC, Pos: info.Pos, Stat: st,
		FDInfo: raw, Inherited: c.inherited(key, tid, fd),
		Dup: func() (int, error) { return linux.DupFrom(tid, fd) },
	}}
	c.all = append(c.all, d)
	c.byKey[key] = slices.Insert(same, at.index, d)
	return d, info, true, nil
}

// inherited returns n+1 for a description that is the agent's own standard
// descriptor n.
func (c *fileCollector) inherited(key fileKey, tid, fd int) int {
	for n, k := range c.stdio {
		if k != key {
			continue
		}
		if r, err := linux.Kcmp(os.Getpid(), tid, linux.KCMP_FILE, uint64(n), uint64(fd)); err == nil && r == 0 {
			return n + 1
		}
	}
	return 0
}

type position struct {
	index int
	found bool
}

// search finds the description of (tid, fd) among those that look the same:
// kcmp orders them, so that a thousand eventfds cost ten comparisons each.
func search(same []*description, tid, fd int) (position, error) {
	var errs []error
	i, found := sort.Find(len(same), func(i int) int {
		r, err := linux.Kcmp(tid, same[i].tid, linux.KCMP_FILE, uint64(fd), uint64(same[i].fd))
		if err != nil {
			errs = append(errs, err)
		}
		return kcmpOrder(r, err)
	})
	return position{i, found}, errors.Join(errs...)
}

// NewFileState returns what the image holds of a description that the plugin
// owner has claimed.
func NewFileState(owner string, f plugin.OpenFile) FileState {
	s := FileState{ID: f.ID, Owner: owner, Link: f.Link, Flags: f.Flags, Pos: f.Pos, Stat: f.Stat, Held: len(f.Refs) == 0}
	for _, r := range f.Refs {
		s.Refs = append(s.Refs, FileRef{PID: r.PID, FD: r.FD, Cloexec: r.Cloexec})
	}
	return s
}

// Name tells where the description was found.
func (s *FileState) Name() string {
	if len(s.Refs) == 0 {
		return s.Link
	}
	return fmt.Sprintf("pid %d fd %d: %s", s.Refs[0].PID, s.Refs[0].FD, s.Link)
}

// OpenFile returns the description as a plugin sees it in a restart.
func (s *FileState) OpenFile() plugin.OpenFile {
	f := plugin.OpenFile{ID: s.ID, Link: s.Link, Flags: s.Flags, Pos: s.Pos, Stat: s.Stat}
	for _, r := range s.Refs {
		f.Refs = append(f.Refs, plugin.FileRef{PID: r.PID, FD: r.FD, Cloexec: r.Cloexec})
	}
	return f
}

// SetFiles notes the descriptions, which may be of files that are mapped too,
// and whether the tree has pseudoterminals of its own.
func (st *State) SetFiles(files []FileState) {
	const ptmx = 5<<8 | 2 // makedev(5, 2)
	st.Files = files
	byInode := map[[2]uint64]int{}
	for _, f := range slices.Backward(files) {
		byInode[[2]uint64{f.Stat.Dev, f.Stat.Ino}] = f.ID
		if f.Stat.Mode&unix.S_IFMT == unix.S_IFCHR && f.Stat.Rdev == ptmx {
			st.OwnPtys = true
		}
	}
	for i := range st.Processes {
		for _, m := range st.Processes[i].Maps {
			if m.Kind == MapObject {
				st.Objects[m.Ref].File = byInode[[2]uint64{m.Dev, m.Ino}]
			}
		}
	}
}

// kcmpOrder turns the answer of kcmp(2) into one for sort.Find: 1 is less, 2 is
// greater. An object that cannot be compared, as its process has ended, counts
// as none of the others.
func kcmpOrder(r int, err error) int {
	switch {
	case err != nil || r == 2:
		return 1
	case r == 1:
		return -1
	}
	return 0
}
