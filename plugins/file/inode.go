package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// origin says how an inode is made again.
type origin string

const (
	originDeleted   origin = "deleted"   // made with a name, which is removed
	originTmpfile   origin = "tmpfile"   // never had one: O_TMPFILE
	originMemfd     origin = "memfd"     // memfd_create(2)
	originDirectory origin = "directory" // deleted; without content
	originNamed     origin = "named"     // has its name; saved as the user asked
)

// inode is a file that its name does not bring back: it has none, or others
// may remove what it names. Its content stands beside the state, under its
// index (plugin.Content).
type inode struct {
	Origin origin   `json:"origin"`
	Path   pathname `json:"path"` // that it had; of a memfd /memfd:NAME
	Dev    uint64   `json:"dev,string"`
	Ino    uint64   `json:"ino,string"`
	Mode   uint32   `json:"mode"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Size   int64    `json:"size"`
	Atime  int64    `json:"atime,string"` // ns since 1970
	Mtime  int64    `json:"mtime,string"`
	Seals  int      `json:"seals,omitempty"`     // of a memfd
	Huge   int64    `json:"huge_page,omitempty"` // bytes, of a memfd in hugetlbfs
	// Mapped says that the program may write to a named file through its memory,
	// without a trace in its time of change.
	Mapped bool `json:"mapped,omitempty"`
	// Memory says that a named file is memory to its users, see claimMemory, and
	// Written that a mapping of it could be written to.
	Memory  bool `json:"memory,omitempty"`
	Written bool `json:"written,omitempty"`
	// Directory is that of a named file, which may be gone at a restart.
	missing.Directory
	// Born tells such a file from one that has got its numbers later, see birth.
	Born string `json:"born,omitempty"`
}

func (d *inode) validate() error {
	if d == nil {
		return errors.New("null")
	}
	if err := d.Path.validate(); err != nil {
		return err
	}
	switch d.Origin {
	case originDeleted, originTmpfile, originDirectory, originNamed:
		if d.Seals != 0 || d.Huge != 0 {
			return fmt.Errorf("a %s file with seals or huge pages", d.Origin)
		}
	case originMemfd:
		if err := d.validateMemfd(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown origin %q", d.Origin)
	}
	if (d.Mapped || d.Memory || d.Written) && d.Origin != originNamed {
		return fmt.Errorf("a %s file that is mapped", d.Origin)
	}
	if d.Size < 0 || d.Mode&^0o7777 != 0 {
		return fmt.Errorf("size %d, mode %#o", d.Size, d.Mode)
	}
	return d.Directory.Check()
}

func newInode(o origin, f plugin.OpenFile) *inode {
	return &inode{
		Origin: o,
		Path:   pathname(strings.TrimSuffix(f.Link, deletedSuffix)),
		Dev:    uint64(f.Stat.Dev),
		Ino:    f.Stat.Ino,
		Mode:   f.Stat.Mode & 0o7777,
		UID:    f.Stat.Uid,
		GID:    f.Stat.Gid,
		Size:   f.Stat.Size,
		Atime:  f.Stat.Atim.Nano(),
		Mtime:  f.Stat.Mtim.Nano(),
	}
}

// inodeClaim is an inode that a checkpoint saves.
type inodeClaim struct {
	index int
	from  int // a descriptor to read it by, -1 for a directory
	data  []plugin.Range
}

// claimInode saves an inode once, whatever the number of its descriptions.
func (p *Plugin) claimInode(f plugin.OpenFile, s *file, fd int, d *inode) error {
	key := inodeKey{d.Dev, d.Ino}
	c := p.saving.inodes[key]
	if c == nil {
		c = &inodeClaim{index: len(p.state.Inodes), from: -1}
		if d.Origin != originDirectory {
			if err := p.openContent(f, s, fd, d, c); err != nil {
				return plugin.Refuse(f, "%v", err)
			}
		}
		p.saving.inodes[key] = c
		p.state.Inodes = append(p.state.Inodes, d)
	}
	s.Index = c.index
	return nil
}

// claimDeleted saves a file or a directory without a name.
func (p *Plugin) claimDeleted(f plugin.OpenFile, s *file, fd int) error {
	s.Kind = kindDeleted
	d := newInode(originDeleted, f)
	switch {
	case f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		d.Origin = originDirectory
	case strings.HasPrefix(f.Link, memfdPrefix):
		d.Origin = originMemfd
		if err := d.readMemfd(fd); err != nil {
			return plugin.Refuse(f, "%v", err)
		}
	case path.Base(string(d.Path)) == fmt.Sprintf("#%d", f.Stat.Ino): // d_mark_tmpfile of the kernel
		d.Origin = originTmpfile
	}
	return p.claimInode(f, s, fd, d)
}

// openContent finds out what is no hole, and keeps a descriptor to read it by
// until Resume: one of its own, or the program's where permissions deny that.
func (p *Plugin) openContent(f plugin.OpenFile, s *file, shared int, d *inode, c *inodeClaim) (err error) {
	c.from, err = readableCopy(shared, s)
	denied := errors.Is(err, unix.EACCES) && s.readable() && s.Flags&unix.O_DIRECT == 0
	if denied {
		c.from, err = dup(shared)
	}
	if err != nil {
		return err
	}
	p.saving.sources.add(c.from)
	if denied && d.Size > 0 { // to look for holes would move the program's offset
		c.data = []plugin.Range{{Start: 0, End: d.Size}}
	} else if c.data, err = dataRanges(c.from, d.Size); err != nil {
		return err
	}
	total := int64(0)
	for _, r := range c.data {
		total += r.End - r.Start
	}
	if limit := p.config.DeletedMax; limit > 0 && total > limit && d.Origin != originNamed {
		return errors.New("the deleted file holds more than deleted_max bytes")
	}
	return nil
}

// readableCopy makes a description of its own, for lseek would move the
// program's offset. To open a file breaks the leases on it.
func readableCopy(shared int, s *file) (int, error) {
	for _, l := range s.Locks {
		if l.Kind == lockLease {
			return -1, errors.New("its content cannot be read: a lease on it would be broken")
		}
	}
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Open(procSelf(shared), flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(procSelf(shared), flags, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open to read its content: %w", err)
	}
	return fd, nil
}

// dataRanges lists what is no hole.
func dataRanges(fd int, size int64) (ranges []plugin.Range, err error) {
	for at := int64(0); at < size; {
		from, to, err := nextData(fd, at, size)
		if err != nil {
			return nil, err
		}
		if from == to {
			break
		}
		ranges = append(ranges, plugin.Range{Start: from, End: to})
		at = to
	}
	return ranges, nil
}

// nextData returns the first range at or behind at that is no hole, or two
// equal offsets where only a hole is left; lseek(2).
func nextData(fd int, at, size int64) (from, to int64, err error) {
	const seekData, seekHole = 3, 4
	from, err = unix.Seek(fd, at, seekData)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("lseek SEEK_DATA at %d: %w", at, err)
	}
	if to, err = unix.Seek(fd, from, seekHole); err != nil {
		return 0, 0, fmt.Errorf("lseek SEEK_HOLE at %d: %w", from, err)
	}
	return from, min(to, size), nil
}

// Contents lists the content of all inodes.
func (p *Plugin) Contents(context.Context) ([]plugin.Content, error) {
	var list []plugin.Content
	for _, c := range p.saving.inodes {
		if c.from >= 0 {
			list = append(list, plugin.Content{Object: c.index, From: reader(c.from), Size: p.state.Inodes[c.index].Size, Data: c.data})
		}
	}
	return list, nil
}

// reader reads a descriptor of the plugin.
type reader int

// ReadAt is pread(2).
func (fd reader) ReadAt(b []byte, off int64) (done int, err error) {
	for done < len(b) {
		n, err := unix.Pread(int(fd), b[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, fmt.Errorf("pread at %d: %w", off+int64(done), err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

// writer writes to a descriptor of the plugin.
type writer int

// WriteAt is pwrite(2).
func (fd writer) WriteAt(b []byte, off int64) (done int, err error) {
	for done < len(b) {
		n, err := unix.Pwrite(int(fd), b[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("pwrite at %d: %w", off+int64(done), err)
		}
		done += n
	}
	return done, nil
}

// discard takes the content of a file that is still there.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// ContentTarget returns the inode, which is made if no description of it has
// been, for it is mapped only.
func (p *Plugin) ContentTarget(_ context.Context, object int, size int64) (io.WriterAt, error) {
	if object >= len(p.state.Inodes) || size != p.state.Inodes[object].Size {
		return nil, fmt.Errorf("content %d of %d bytes: not in the state", object, size)
	}
	d := p.state.Inodes[object]
	if p.named.asIs[object] {
		return discard{}, nil
	}
	fd, err := p.anchor(object)
	if err != nil {
		return nil, err
	}
	if x := p.named.puts[object]; x != nil {
		return x.target(size)
	}
	if d.Huge > 0 {
		h := &linux.HugeFile{FD: fd, Size: d.Size}
		p.making.huge = append(p.making.huge, h)
		return h, nil
	}
	return writer(fd), nil
}

// anchor makes the inode of an index, once.
func (p *Plugin) anchor(index int) (int, error) {
	if fd, ok := p.making.inodes[index]; ok {
		return fd, nil
	}
	d := p.state.Inodes[index]
	fd, err := p.makeInode(index, d)
	if err != nil {
		return -1, fmt.Errorf("%s: make again: %w", d.Path, err)
	}
	p.making.inodes[index] = fd
	p.making.anchors.add(fd)
	if d.Origin != originDirectory && p.named.puts[index] == nil {
		if err := ftruncate(fd, d.Size); err != nil {
			return -1, fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	return fd, nil
}

func (p *Plugin) makeInode(index int, d *inode) (int, error) {
	switch d.Origin {
	case originMemfd:
		return d.makeMemfd()
	case originNamed:
		return p.makeNamed(index, d)
	}
	name := string(d.Path)
	var fd int
	var err error
	for i, dir := range p.directoriesFor(name) {
		err = withDirectory(dir, func() (err error) {
			fd, err = createDeleted(dir, path.Base(name), d.Origin)
			return err
		})
		if err == nil {
			if i > 0 {
				p.host.Log().Warn().Str("path", name).Str("directory", dir).
					Msg("the directory of a deleted file is gone or read-only: the file is made elsewhere")
			}
			return fd, nil
		}
	}
	return -1, err
}

// directoriesFor lists where an object that has lost its name name may be
// made again, the best first.
func (p *Plugin) directoriesFor(name string) []string {
	root := p.host.Root()
	return []string{root + path.Dir(name), root + "/dev/shm", root + "/tmp"}
}

// withDirectory makes the directories that are missing on the way to dir, as
// long as do runs.
func withDirectory(dir string, do func() error) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return withDirectory(path.Dir(dir), func() error { return withDirectory(dir, do) })
	case err == nil:
		defer func() { _ = os.Remove(dir) }() // fails where another uses it by now
	}
	return do() // which tells if there is no directory
}

// createDeleted makes a file or a directory without a name. If it can be had,
// it is the name that the old one had: /proc/PID/fd shows it.
func createDeleted(dir, base string, o origin) (int, error) {
	if o == originTmpfile {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return fd, err
		}
	}
	if o == originDirectory {
		return createDirectory(dir, base)
	}
	name := path.Join(dir, base)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENAMETOOLONG) {
		f, err = os.CreateTemp(dir, ".deleted-")
	}
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return -1, err
	}
	return dup(int(f.Fd()))
}

func createDirectory(dir, base string) (int, error) {
	name := path.Join(dir, base)
	err := os.Mkdir(name, 0o700)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENAMETOOLONG) {
		name, err = os.MkdirTemp(dir, ".deleted-")
	}
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if e := os.Remove(name); e != nil && err == nil {
		unix.Close(fd)
		return -1, e
	}
	return fd, err
}

// reopenInode makes a description of an inode.
func (p *Plugin) reopenInode(s *file) (int, error) {
	if p.named.asIs[s.Index] || p.named.puts[s.Index] != nil {
		return p.reopenPath(s)
	}
	anchor, err := p.anchor(s.Index)
	if err != nil {
		return -1, err
	}
	fd, err := reopenAnchor(anchor, s)
	if err != nil {
		return -1, err
	}
	if s.Pos > 0 {
		if err := s.seek(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// finishInodes sets what stands in the way of filling them.
func (p *Plugin) finishInodes() error {
	for index, fd := range p.making.inodes {
		d := p.state.Inodes[index]
		if p.named.puts[index] != nil { // it has kept all else
			continue
		}
		if err := p.finishInode(d, fd); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	return nil
}

// finishInode sets the owner (chown(2) clears mode bits), then the mode, the
// times and the seals.
func (p *Plugin) finishInode(d *inode, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Uid != d.UID || st.Gid != d.GID {
		if err := unix.Fchown(fd, int(d.UID), int(d.GID)); err != nil {
			p.host.Log().Warn().Err(err).Str("path", string(d.Path)).Uint32("uid", d.UID).Uint32("gid", d.GID).
				Msg("a file that was made again has another owner")
		}
	}
	if err := unix.Fchmod(fd, d.Mode); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	if d.Origin == originDirectory {
		return nil
	}
	times := []unix.Timespec{unix.NsecToTimespec(d.Atime), unix.NsecToTimespec(d.Mtime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procSelf(fd), times, 0); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	return d.seal(fd)
}
