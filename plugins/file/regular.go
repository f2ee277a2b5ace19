package file

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// deletedSuffix is what the kernel adds to the link of a file whose name is
// gone, proc_pid_fd(5).
const deletedSuffix = " (deleted)"

// magicMqueue is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const magicMqueue = 0x19800202

// claimRegular saves a regular file: by its name, or with its content where
// it has none.
func (p *Plugin) claimRegular(f plugin.OpenFile, s *file, fd int) error {
	magic, err := fileSystem(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	switch magic {
	case magicMqueue:
		return plugin.ErrNotMine
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		s.Virtual = true
	}
	if f.Stat.Nlink == 0 && !s.Virtual {
		return p.claimDeleted(f, s, fd)
	}
	return p.checkPath(f, s)
}

// checkPath makes sure that the link still names the file: what was renamed
// over, unmounted or removed cannot be opened again.
func (p *Plugin) checkPath(f plugin.OpenFile, s *file) error {
	if !strings.HasPrefix(f.Link, "/") { // "(unreachable)/..."
		return plugin.Refuse(f, "it has no path in this mount namespace")
	}
	var now unix.Stat_t
	err := statPath(p.host.Root()+f.Link, s.Flags, &now)
	switch {
	case errors.Is(err, unix.ENOENT) && f.Stat.Nlink > 0 && strings.HasSuffix(f.Link, deletedSuffix):
		return plugin.Refuse(f, "the name was removed or replaced, but the file has %d other links", f.Stat.Nlink)
	case errors.Is(err, unix.ENOENT) && strings.HasSuffix(f.Link, deletedSuffix):
		return plugin.Refuse(f, "the name was removed")
	case err != nil:
		return plugin.Refuse(f, "stat: %v", err)
	case s.Virtual:
		return nil // inodes of /proc are made anew at will
	case uint64(now.Dev) != s.Was.Dev || now.Ino != s.Was.Ino:
		return plugin.Refuse(f, "the path now names another file (inode %d, was %d)", now.Ino, s.Was.Ino)
	}
	return nil
}

// statPath looks at what open(2) with flags would open.
func statPath(path string, flags int, st *unix.Stat_t) error {
	if flags&unix.O_NOFOLLOW != 0 {
		return unix.Lstat(path, st)
	}
	return unix.Stat(path, st)
}

// reopenPath opens a file by its name and moves to the saved offset. Nothing
// is truncated, made or written.
func (p *Plugin) reopenPath(s *file) (int, error) {
	path := p.host.Root() + p.host.MapPath(string(s.Path))
	var now unix.Stat_t
	if err := statPath(path, s.Flags, &now); err != nil {
		return -1, fmt.Errorf("%s: stat: %w", s.Path, err)
	}
	if err := s.compare(&now); err != nil {
		return -1, fmt.Errorf("%s: %w", s.Path, err)
	}
	p.warnChanged(s, &now)
	fd, err := p.openPath(path, s)
	if err != nil {
		return -1, fmt.Errorf("%s: open with flags %#o: %w", s.Path, s.Flags, err)
	}
	if s.Pos == 0 || s.Kind == kindDevice || s.Kind == kindPath {
		return fd, nil
	}
	if _, err := unix.Seek(fd, s.Pos, unix.SEEK_SET); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: lseek to %d: %w", s.Path, s.Pos, err)
	}
	return fd, nil
}

// openPath opens path. O_NOATIME needs the owner of the file, open(2), who
// may have changed: the program only loses speed without it.
func (p *Plugin) openPath(path string, s *file) (int, error) {
	flags := s.Flags&^unix.O_ASYNC | unix.O_CLOEXEC | unix.O_NOCTTY
	fd, err := unix.Open(path, flags, 0)
	if errors.Is(err, unix.EPERM) && flags&unix.O_NOATIME != 0 {
		p.host.Log().Warn().Str("path", string(s.Path)).Msg("opened without O_NOATIME: the file has another owner now")
		return unix.Open(path, flags&^unix.O_NOATIME, 0)
	}
	return fd, err
}

// compare says what makes the file at the path unusable.
func (s *file) compare(now *unix.Stat_t) error {
	was := s.Was
	switch {
	case now.Mode&unix.S_IFMT != was.Mode&unix.S_IFMT:
		return errReplaced
	case s.Kind == kindDevice && uint64(now.Rdev) != was.Rdev:
		return fmt.Errorf("device %s, was %s", deviceName(uint64(now.Rdev)), deviceName(was.Rdev))
	case s.Kind == kindRegular && !s.Virtual && now.Size < was.Size && now.Size < s.Pos:
		return fmt.Errorf("the file has %d bytes, fewer than the offset %d (%d bytes at the checkpoint)",
			now.Size, s.Pos, was.Size)
	}
	return nil
}

// warnChanged tells of a file that the program will find different: often its
// own log, to which it wrote after the checkpoint.
func (p *Plugin) warnChanged(s *file, now *unix.Stat_t) {
	if s.Kind != kindRegular || s.Virtual || now.Size == s.Was.Size && now.Mtim.Nano() == s.Was.Mtime {
		return
	}
	p.host.Log().Warn().Str("path", string(s.Path)).
		Int64("size", now.Size).Int64("size_was", s.Was.Size).
		Uint64("ino", now.Ino).Uint64("ino_was", s.Was.Ino).
		Int64("offset", s.Pos).
		Msg("the file has changed since the checkpoint")
}
