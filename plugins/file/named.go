package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimNamed saves a file that has its name, with its content: launch or
// checkpoint --ckpt-open-files.
func (p *Plugin) claimNamed(f plugin.OpenFile, s *file, fd int) error {
	s.Kind = kindNamed
	d := newInode(originNamed, f)
	d.Path = s.Path // which it has, be f's gone
	d.Directory = p.directoryOf(d.Path)
	return p.claimInode(f, s, fd, d)
}

// decideNamed decides what a restart does with such a file: one that is as it
// was stays, one that is gone is made again, and one that has changed is
// replaced only where the user allows it. What is written through memory to a page
// that is to be written back already moves no time, so that of a mapped file
// nobody knows: it is replaced where the user allows it, and stays else.
func (p *Plugin) decideNamed(index int, d *inode) error {
	var now unix.Stat_t
	err := unix.Stat(p.place(d.Path), &now)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return fmt.Errorf("%s: stat: %w", d.Path, err)
	case now.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s: %w", d.Path, errReplaced)
	case d.Memory:
		return p.decideMemory(index, d, &now)
	case d.Mapped && now.Size >= d.Size && !p.config.AllowFileOverwrite && !p.isOpen(index),
		now.Size == d.Size && now.Mtim.Nano() == d.Mtime && !(p.config.AllowFileOverwrite && p.mayDiffer(index, d)):
		p.named.asIs[index] = true
		p.warnMapped(d, now.Mtim.Nano() != d.Mtime)
		return nil
	case p.config.AllowFileOverwrite:
		p.named.replace[index] = true
		return nil
	case p.config.AllowChangedFiles:
		p.named.asIs[index] = true
		return nil
	}
	return fmt.Errorf("%s: %s; --allow-file-overwrite puts the saved content in its place, --allow-changed-files keeps it as it is now",
		d.Path, differs(d.Size, d.Mtime, &now))
}

// directoryOf returns what a file's directory is, nothing where it cannot be looked at.
func (p *Plugin) directoryOf(name pathname) missing.Directory {
	d, _ := missing.Look(p.host.Root() + path.Dir(string(name)))
	return d
}

// makeDir makes the directory of a file where it is gone, with the permissions that it had.
func (n *named) makeDir(dir string, as missing.Directory) error {
	if as.Mode == 0 { // an older image
		as.Mode = 0o755
	}
	made, err := missing.MakeAll(dir, as)
	n.folders = append(made, n.folders...)
	return err
}

// isOpen says whether the program had a file open, and not mapped only.
func (p *Plugin) isOpen(index int) bool {
	for _, s := range p.state.Files {
		if s.Kind == kindNamed && s.Index == index && s.Flags&unix.O_PATH == 0 {
			return true
		}
	}
	return false
}

// mayDiffer says whether the program may have written to a file since, and its time not
// tell: what is written through memory to a file in memory need not move it.
func (p *Plugin) mayDiffer(index int, d *inode) bool {
	if d.Mapped {
		return true
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.place(d.Path), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return false
	}
	for _, s := range p.state.Files {
		if s.Kind == kindNamed && s.Index == index && s.Flags&(unix.O_WRONLY|unix.O_RDWR) != 0 {
			return true
		}
	}
	return false
}

// warnMapped tells of a file that the program may have written to since, or somebody has.
func (p *Plugin) warnMapped(d *inode, changed bool) {
	if d.Mapped && (!p.state.Ended || changed) && !p.config.AllowChangedFiles {
		p.host.Log().Warn().Str("path", string(d.Path)).
			Msg("the file was mapped, and what the program has written to it through its memory since the checkpoint, if anything, stays; --allow-file-overwrite puts the saved content in its place")
	}
}

// named is what a restart does with files that have names and saved content, by index.
type named struct {
	begun     time.Time
	asIs      map[int]bool      // the file that is there is used
	puts      map[int]*exchange // the file that is there gets its content in place
	replace   map[int]bool      // the file that is there goes
	temporary map[int]string    // path of the new file until it has its name, and then of the one that it replaces
	folders   []string          // that were made, the innermost first
	undo      []func() error
}

func (n *named) reset() {
	for _, x := range n.puts {
		x.close()
	}
	for _, name := range n.temporary {
		_ = os.Remove(name)
	}
	*n = named{
		begun:     time.Now(),
		asIs:      map[int]bool{},
		puts:      map[int]*exchange{},
		replace:   map[int]bool{},
		temporary: map[int]string{},
	}
}

// makeNamed makes the file beside its place. It gets its name when all is well, so that
// no moment leaves a half-written file.
func (p *Plugin) makeNamed(index int, d *inode) (int, error) {
	if x := p.named.puts[index]; x != nil {
		return p.openExchange(x, d)
	}
	dir := path.Dir(p.place(d.Path))
	if err := p.named.makeDir(dir, d.Directory.Or(missing.Owner{UID: int(d.UID), GID: int(d.GID)})); err != nil {
		return -1, err
	}
	f, err := p.createBeside(dir, path.Base(string(d.Path)))
	if err != nil {
		return -1, err
	}
	defer f.Close()
	p.named.temporary[index] = f.Name()
	if d.Memory {
		_ = unix.Fsetxattr(int(f.Fd()), markRemade, d.identity(), 0) // not every kernel has it
	}
	return dup(int(f.Fd()))
}

// createBeside makes a file that is to get the name base. Its own name is always the
// same, so that what a restart that was killed has left goes with the next.
func (p *Plugin) createBeside(dir, base string) (*os.File, error) {
	const prefix = ".hiatus-restart-"
	name := path.Join(dir, prefix+base)
	if st, err := os.Lstat(name); err == nil && st.Mode().IsRegular() && p.lease(name) == nil {
		_ = os.Remove(name)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil { // it is another's, or too long
		return os.CreateTemp(dir, prefix)
	}
	return f, nil
}

// Publish gives files their names, and memory in place its content.
func (p *Plugin) Publish(ctx context.Context) error {
	for index, d := range p.state.Inodes {
		var err error
		switch {
		case p.named.puts[index] != nil:
			x := p.named.puts[index]
			p.named.undo = append(p.named.undo, x.undo) // where it grew, twice
			err = x.swap(ctx)
		case p.named.temporary[index] != "":
			err = p.named.rename(index, p.place(d.Path))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	return nil
}

// Published ends what could be taken back, and sets offsets.
func (p *Plugin) Published() {
	p.named.reset()
	for fd, s := range p.offsets {
		if err := s.seek(fd); err != nil {
			p.host.Log().Warn().Err(err).Msg("a file of the kernel is read from another place than it was")
		}
	}
	p.offsets.close()
}

// rename gives a file its name: where it is that of another, by an exchange with it.
func (n *named) rename(index int, to string) error {
	from := n.temporary[index]
	if n.replace[index] {
		swap := func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE) }
		err := swap()
		if errors.Is(err, unix.EINVAL) { // not every file system has it, rename(2)
			err = unix.Rename(from, to)
		} else if err == nil {
			n.undo = append(n.undo, swap)
		}
		return describe(err)
	}
	made, err := os.Lstat(from)
	if err != nil {
		return describe(err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) {
		if _, there := os.Lstat(to); errors.Is(there, os.ErrNotExist) {
			err = unix.Rename(from, to)
		} else {
			err = unix.EEXIST
		}
	}
	if err == nil {
		delete(n.temporary, index)
		n.undo = append(n.undo, func() error { return removeSame(to, made) })
	}
	return describe(err)
}

// removeSame removes a file, but not another that has taken its name.
func removeSame(name string, made os.FileInfo) error {
	now, err := os.Lstat(name)
	if err != nil || !os.SameFile(now, made) {
		return nil
	}
	return os.Remove(name)
}

func describe(err error) error {
	if err != nil {
		return fmt.Errorf("rename to its name: %w", err)
	}
	return nil
}

// takeBack undoes Publish, and ends what was begun.
func (n *named) takeBack() error {
	defer missing.Remove(n.folders)
	defer n.reset()
	var errs []error
	for _, undo := range slices.Backward(n.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}
