package event

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// A watch knows the inode of its file, and no path. It is looked for where the
// program is known to be, then in a walk that is bounded: the program waits.

// Bounds of the walk.
const (
	walkEntries = 1 << 20
	walkTime    = 3 * time.Second
)

// search is an inotify instance whose watched files are looked for.
type search struct {
	file    plugin.OpenFile
	inotify *inotify
	marks   []mark // of the watches
}

// place is where a watched file was found: a path as the program sees it, or
// a descriptor of a file that has none.
type place struct {
	path string
	from *source
}

// savePlaces finds the files of all watches.
func (p *Plugin) savePlaces(ctx context.Context) error {
	searches := p.searches
	p.searches = nil
	if len(searches) == 0 {
		return nil
	}
	l, err := p.newLocator(searches)
	if err != nil {
		return err
	}
	defer l.close()
	l.find(ctx)
	var errs []error
	for _, s := range searches {
		for i, m := range s.marks {
			at, ok := l.found[m.key()]
			if !ok {
				errs = append(errs, plugin.Refuse(s.file, "the file of its watch %d (inode %d on device %d:%d) was not found%s",
					s.inotify.Watches[i].WD, m.ino, m.sdev>>20, m.sdev&0xfffff, l.why))
				break
			}
			if !utf8.ValidString(at.path) { // the state is JSON, RFC 8259
				errs = append(errs, plugin.Refuse(s.file, "the path %q of its watch %d is not UTF-8", at.path, s.inotify.Watches[i].WD))
			}
			s.inotify.Watches[i].Path, s.inotify.Watches[i].From = at.path, at.from
		}
	}
	p.places = l.found // where to look first the next time
	return errors.Join(errs...)
}

// markKey is what identifies a file.
type markKey struct {
	ino, sdev uint64
	handle    string
}

func (m mark) key() markKey { return markKey{m.ino, m.sdev, m.handle} }

// locator finds files by their marks.
type locator struct {
	root   string // Host.Root
	tree   tree
	probe  int // an inotify instance of ours
	wanted map[markKey]mark
	inodes map[uint64][]markKey
	noisy  map[uint64]bool // directories whose watch would tell of our reading them
	found  map[markKey]place
	seen   map[string]bool // directories that were read
	aside  []string        // directories left for later, as they are noisy
	left   int             // entries
	until  time.Time
	why    string // the search was given up
}

func (p *Plugin) newLocator(searches []search) (*locator, error) {
	probe, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	l := &locator{root: p.host.Root(), tree: p.tree, probe: probe, wanted: map[markKey]mark{}, inodes: map[uint64][]markKey{},
		noisy: map[uint64]bool{}, found: map[markKey]place{}, seen: map[string]bool{}, left: walkEntries, until: time.Now().Add(walkTime)}
	for _, s := range searches {
		for _, m := range s.marks {
			if _, known := l.wanted[m.key()]; !known {
				l.wanted[m.key()] = m
				l.inodes[m.ino] = append(l.inodes[m.ino], m.key())
			}
			const reading = unix.IN_OPEN | unix.IN_ACCESS | unix.IN_CLOSE_NOWRITE
			if m.mask&reading != 0 {
				l.noisy[m.ino] = true
			}
		}
	}
	for key, at := range p.places {
		if at.path != "" && l.wanted[key] != (mark{}) {
			l.try(at.path)
		}
	}
	return l, nil
}

func (l *locator) close() { unix.Close(l.probe) }

func (l *locator) missing() bool { return len(l.found) < len(l.wanted) }

// find tries the cheapest first.
func (l *locator) find(ctx context.Context) {
	dirs := l.known()
	l.byHandle()
	l.byDescriptor()
	// Close by first: what is below the directories that the program uses,
	// then what is below their parents.
	for len(dirs) > 0 && l.missing() && l.why == "" {
		var above []string
		for _, dir := range dirs {
			l.walk(ctx, dir, false)
			if dir != "/" {
				above = append(above, path.Dir(dir))
			}
		}
		aside := l.aside
		l.aside = nil
		for _, dir := range aside {
			l.walk(ctx, dir, true)
		}
		slices.Sort(above)
		dirs = slices.Compact(above)
	}
}

// known tries all paths that /proc shows of the tree, with what stands above
// them, and returns the directories.
func (l *locator) known() (dirs []string) {
	seen := map[string]bool{}
	try := func(name string) {
		for ; strings.HasPrefix(name, "/") && !seen[name]; name = path.Dir(name) {
			seen[name] = true
			l.try(name)
		}
	}
	for _, pid := range l.tree.sorted() {
		tid := l.tree.hosts[pid]
		for _, what := range []string{"cwd", "exe"} {
			name, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", tid, what))
			if err != nil || !strings.HasPrefix(name, "/") {
				continue
			}
			if what == "exe" {
				name = path.Dir(name)
			}
			if !slices.Contains(dirs, name) {
				dirs = append(dirs, name)
			}
			try(name)
		}
		for _, fd := range descriptors(tid) {
			name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
			if err != nil || !strings.HasPrefix(name, "/") {
				continue
			}
			try(name)
			if dir := path.Dir(name); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// try looks at a path as the program sees it.
func (l *locator) try(name string) {
	if m, ok := l.identify(l.root+name, unix.IN_DONT_FOLLOW); ok {
		l.note(m, place{path: name})
	}
}

// note takes down where a file is, if it is one that is looked for.
func (l *locator) note(m mark, at place) {
	for _, key := range l.inodes[m.ino] {
		if _, known := l.found[key]; !known && l.wanted[key].same(m) {
			l.found[key] = at
		}
	}
}

// identify asks the kernel for the mark of a file: whatever a file system
// shows in stat(2), it is the same that the program's own descriptor shows. It
// causes no event.
func (l *locator) identify(name string, flags uint32) (m mark, ok bool) {
	wd, err := unix.InotifyAddWatch(l.probe, name, unix.IN_DELETE_SELF|flags)
	if err != nil {
		return m, false
	}
	defer func() {
		_, _ = unix.InotifyRmWatch(l.probe, uint32(wd))
		var ignored [4 * unix.SizeofInotifyEvent]byte
		_, _ = unix.Read(l.probe, ignored[:])
	}()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.probe))
	if err != nil {
		return m, false
	}
	info, err := procparse.ParseFDInfo(raw)
	if err != nil || len(info.Fields["inotify wd"]) != 1 {
		return m, false
	}
	_, m, err = parseWatch(info.Field("inotify wd"))
	return m, err == nil
}

// byHandle opens files by their handles, as a privileged user may.
func (l *locator) byHandle() {
	mounts := map[uint64]int{} // by device; -1: none
	defer func() {
		for _, fd := range mounts {
			unix.Close(fd)
		}
	}()
	for key, m := range l.wanted {
		if _, known := l.found[key]; known || m.handle == "" {
			continue
		}
		dir, known := mounts[m.sdev]
		if !known {
			dir = l.mountOf(m.sdev)
			mounts[m.sdev] = dir
		}
		if dir < 0 {
			continue
		}
		handle, err := parseHandle(m.handle)
		if err != nil {
			continue
		}
		fd, err := unix.OpenByHandleAt(dir, handle, unix.O_PATH|unix.O_CLOEXEC)
		if err != nil {
			continue
		}
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		unix.Close(fd)
		if err == nil && strings.HasPrefix(name, "/") {
			l.try(strings.TrimPrefix(name, l.root))
		}
	}
}

// mountOf opens the root of a mount of the device sdev, without which a handle
// means nothing, or returns -1.
func (l *locator) mountOf(sdev uint64) int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", l.tree.hosts[l.tree.sorted()[0]]))
	if err != nil {
		return -1
	}
	device := fmt.Sprintf("%d:%d", sdev>>20, sdev&0xfffff)
	for line := range strings.Lines(string(raw)) {
		w := strings.Fields(line)
		if len(w) < 5 || w[2] != device || strings.Contains(w[4], `\`) {
			continue
		}
		fd, err := unix.Open(l.root+w[4], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd
		}
	}
	return -1
}

// parseHandle is for mark.handle.
func parseHandle(s string) (unix.FileHandle, error) {
	kind, digits, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(kind, 16, 31)
	if err != nil {
		return unix.FileHandle{}, err
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return unix.FileHandle{}, err
	}
	return unix.NewFileHandle(int32(n), b), nil
}

// byDescriptor finds files that have no path any more, but are open.
func (l *locator) byDescriptor() {
	for _, pid := range l.tree.sorted() {
		if !l.missing() {
			return
		}
		tid := l.tree.hosts[pid]
		for _, fd := range descriptors(tid) {
			name := fmt.Sprintf("/proc/%d/fd/%d", tid, fd)
			var st unix.Stat_t
			if unix.Stat(name, &st) != nil || st.Nlink != 0 || l.inodes[st.Ino] == nil {
				continue
			}
			if m, ok := l.identify(name, 0); ok {
				l.note(m, place{from: &source{PID: pid, FD: fd}})
			}
		}
	}
}

// walk reads the directories below dir, the upper ones first. Unless it may be
// heard, it leaves out those whose watch would tell the program of it.
func (l *locator) walk(ctx context.Context, dir string, heard bool) {
	for queue := []string{dir}; len(queue) > 0 && l.missing() && l.why == ""; queue = queue[1:] {
		switch {
		case l.left <= 0:
			l.why = fmt.Sprintf(" among %d files, the first of which are close to the program's working directories", walkEntries)
		case time.Now().After(l.until) || ctx.Err() != nil:
			l.why = fmt.Sprintf(" in %v, and the program is not kept waiting for longer", walkTime)
		default:
			queue = append(queue, l.read(queue[0], heard)...)
		}
	}
}

// read looks for watched files in a directory and returns those in it.
func (l *locator) read(dir string, heard bool) (dirs []string) {
	if l.seen[dir] {
		return nil
	}
	name := l.root + dir
	var st, up unix.Stat_t
	var fs unix.Statfs_t
	if unix.Lstat(name, &st) != nil || unix.Lstat(path.Dir(name), &up) != nil || unix.Statfs(name, &fs) != nil || isSynthetic(int64(fs.Type)) {
		return nil
	}
	if !heard && (l.noisy[st.Ino] || l.noisy[up.Ino]) { // a watch tells of what is in its directory, too
		l.aside = append(l.aside, dir)
		return nil
	}
	l.seen[dir] = true
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	for l.left > 0 {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			break
		}
		for _, e := range parseDirents(buf[:n]) {
			l.left--
			full := path.Join(dir, e.name)
			if l.inodes[e.ino] != nil {
				l.try(full)
			}
			if e.kind == unix.DT_DIR {
				dirs = append(dirs, full)
			}
		}
	}
	return dirs
}

// isSynthetic says whether a file system has no files of its own.
func isSynthetic(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.AUTOFS_SUPER_MAGIC:
		return true
	}
	return false
}

type dirent struct {
	ino  uint64
	kind uint8 // DT_DIR and others
	name string
}

// parseDirents parses the struct linux_dirent64 of getdents64(2), without "."
// and "..".
func parseDirents(b []byte) (all []dirent) {
	const nameOff = 19
	for len(b) >= nameOff {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < nameOff || size > len(b) {
			break
		}
		name, _, _ := strings.Cut(string(b[nameOff:size]), "\x00")
		if name != "." && name != ".." {
			all = append(all, dirent{binary.NativeEndian.Uint64(b), b[18], name})
		}
		b = b[size:]
	}
	slices.SortFunc(all, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	return all
}
