package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// deleted is a regular file without a name, with its content.
type deleted struct {
	Path    pathname `json:"path"`              // that it had
	Tmpfile bool     `json:"tmpfile,omitempty"` // it never had one: O_TMPFILE
	Mode    uint32   `json:"mode"`
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Size    int64    `json:"size"`
	Atime   int64    `json:"atime,string"` // ns since 1970
	Mtime   int64    `json:"mtime,string"`
	Extents []extent `json:"extents,omitempty"` // what is no hole, ascending
}

type extent struct {
	Off  int64  `json:"off"`
	Data []byte `json:"data"`
}

func (d *deleted) validate() error {
	if d == nil {
		return errors.New("null")
	}
	if err := d.Path.validate(); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d", d.Size)
	}
	var end int64
	for _, e := range d.Extents {
		if e.Off < end || int64(len(e.Data)) > d.Size-e.Off {
			return fmt.Errorf("extent of %d bytes at %d in %d bytes", len(e.Data), e.Off, d.Size)
		}
		end = e.Off + int64(len(e.Data))
	}
	return nil
}

// claimDeleted saves the content of an inode once, whatever the number of its
// descriptions.
func (p *Plugin) claimDeleted(f plugin.OpenFile, s *file, fd int) error {
	if strings.HasPrefix(f.Link, "/memfd:") {
		return plugin.Refuse(f, "memfd_create files are not kept yet")
	}
	s.Kind = kindDeleted
	key := inode{uint64(f.Stat.Dev), f.Stat.Ino}
	if i, ok := p.saving.deleted[key]; ok {
		s.Index = i
		return nil
	}
	name := strings.TrimSuffix(f.Link, deletedSuffix)
	d := &deleted{
		Path:    pathname(name),
		Tmpfile: path.Base(name) == fmt.Sprintf("#%d", f.Stat.Ino), // d_mark_tmpfile of the kernel
		Mode:    f.Stat.Mode & 0o7777,
		UID:     f.Stat.Uid,
		GID:     f.Stat.Gid,
		Size:    f.Stat.Size,
		Atime:   f.Stat.Atim.Nano(),
		Mtime:   f.Stat.Mtim.Nano(),
	}
	if err := d.read(fd, p.config.DeletedMax); err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	s.Index = len(p.state.Deleted)
	p.saving.deleted[key] = s.Index
	p.state.Deleted = append(p.state.Deleted, d)
	return nil
}

// read saves what is no hole. It uses a description of its own, for lseek
// would move the program's offset.
func (d *deleted) read(shared int, limit int64) error {
	fd, err := unix.Open(procSelf(shared), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(procSelf(shared), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("deleted file: open for reading: %w", err)
	}
	defer unix.Close(fd)
	for at := int64(0); at < d.Size; {
		from, to, err := nextData(fd, at, d.Size)
		if err != nil {
			return err
		}
		if from == to {
			break
		}
		if limit -= to - from; limit < 0 {
			return errors.New("the deleted file holds more than deleted_max bytes")
		}
		data := make([]byte, to-from)
		if err := readFull(fd, data, from); err != nil {
			return fmt.Errorf("deleted file: %w", err)
		}
		d.Extents = append(d.Extents, extent{from, data})
		at = to
	}
	return nil
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
		return 0, 0, fmt.Errorf("deleted file: lseek SEEK_DATA at %d: %w", at, err)
	}
	if to, err = unix.Seek(fd, from, seekHole); err != nil {
		return 0, 0, fmt.Errorf("deleted file: lseek SEEK_HOLE at %d: %w", from, err)
	}
	return from, min(to, size), nil
}

func readFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("pread at %d: %w", off, err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func writeFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("pwrite at %d: %w", off, err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// reopenDeleted makes the inode once, and a description of it.
func (p *Plugin) reopenDeleted(s *file) (int, error) {
	anchor, ok := p.making.deleted[s.Index]
	if !ok {
		var err error
		if anchor, err = p.makeDeleted(p.state.Deleted[s.Index]); err != nil {
			return -1, err
		}
		p.making.deleted[s.Index] = anchor
		p.making.anchors.add(anchor)
	}
	fd, err := reopenAnchor(anchor, s)
	if err != nil {
		return -1, err
	}
	if s.Pos > 0 {
		if _, err := unix.Seek(fd, s.Pos, unix.SEEK_SET); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("lseek to %d: %w", s.Pos, err)
		}
	}
	return fd, nil
}

// makeDeleted makes a file without a name, in the directory where it was, or
// in memory where that is gone or may not be written.
func (p *Plugin) makeDeleted(d *deleted) (int, error) {
	dirs := p.directoriesFor(string(d.Path))
	var fd int
	var err error
	for i, dir := range dirs {
		if fd, err = createDeleted(dir, d.Tmpfile); err == nil {
			if i > 0 {
				p.host.Log().Warn().Str("path", string(d.Path)).Str("directory", dir).
					Msg("the directory of a deleted file is gone or read-only: the file is made elsewhere")
			}
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("deleted file %s: create: %w", d.Path, err)
	}
	if err := d.fill(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("deleted file %s: %w", d.Path, err)
	}
	return fd, nil
}

// directoriesFor lists where an object that has lost its name name may be
// made again, the best first.
func (p *Plugin) directoriesFor(name string) []string {
	root := p.host.Root()
	return []string{root + path.Dir(name), root + "/dev/shm", root + "/tmp"}
}

func createDeleted(dir string, tmpfile bool) (int, error) {
	if tmpfile {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return fd, err
		}
	}
	f, err := os.CreateTemp(dir, ".deleted-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return -1, err
	}
	return dup(int(f.Fd()))
}

// fill writes the content, then the owner (chown(2) clears mode bits), then
// the mode and the times.
func (d *deleted) fill(fd int) error {
	if err := unix.Ftruncate(fd, d.Size); err != nil {
		return fmt.Errorf("ftruncate to %d: %w", d.Size, err)
	}
	for _, e := range d.Extents {
		if err := writeFull(fd, e.Data, e.Off); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Uid != d.UID || st.Gid != d.GID {
		if err := unix.Fchown(fd, int(d.UID), int(d.GID)); err != nil {
			return fmt.Errorf("fchown to %d:%d: %w", d.UID, d.GID, err)
		}
	}
	if err := unix.Fchmod(fd, d.Mode); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	times := []unix.Timespec{unix.NsecToTimespec(d.Atime), unix.NsecToTimespec(d.Mtime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procSelf(fd), times, 0); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	return nil
}
