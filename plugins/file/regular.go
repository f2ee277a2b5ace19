package file

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// deletedSuffix is what the kernel adds to the link of a file whose name is
// gone, proc_pid_fd(5).
const deletedSuffix = " (deleted)"

// magicMqueue is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const magicMqueue = 0x19800202

// magicSecret is SECRETMEM_MAGIC of the kernel's linux/magic.h.
const magicSecret = 0x5345434d

// claimRegular saves a regular file: by its name, or with its content where
// it has none or the user wants it.
func (p *Plugin) claimRegular(f plugin.OpenFile, s *file, fd int) error {
	magic, err := fileSystem(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	switch magic {
	case magicMqueue:
		return plugin.ErrNotMine
	case magicSecret:
		return plugin.Refuse(f, "the kernel shows secret memory to nobody (memfd_secret(2))")
	}
	if s.writable() && isPressure(f.Link, magic) {
		return plugin.Refuse(f, "a trigger of pressure stall information that was written to it cannot be read")
	}
	if isVirtual(magic) {
		s.Virtual = true
		return p.checkVirtual(f, s)
	}
	if deletedInode(f) {
		return p.claimDeleted(f, s, fd)
	}
	if err := p.checkPath(f, s); err != nil || s.Kind != kindRegular {
		return err
	}
	if p.saving.openFiles {
		return p.claimNamed(f, s, fd)
	}
	return nil
}

// claimDirectory saves a directory: by its name, or as one that has none.
func (p *Plugin) claimDirectory(f plugin.OpenFile, s *file, fd int) error {
	magic, err := fileSystem(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	if isVirtual(magic) {
		s.Virtual = true
		return p.checkVirtual(f, s)
	}
	if deletedInode(f) {
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
		return p.claimOtherLink(f, s)
	case errors.Is(err, unix.ENOENT) && strings.HasSuffix(f.Link, deletedSuffix):
		return plugin.Refuse(f, "the name was removed")
	case errors.Is(err, unix.EACCES):
		return p.unreachable(f, s, "stat", err)
	case err != nil:
		return plugin.Refuse(f, "stat: %v", err)
	case s.Virtual:
		return nil // inodes of /proc are made anew at will
	case uint64(now.Dev) != s.Was.Dev || now.Ino != s.Was.Ino:
		return plugin.Refuse(f, "the path now names another file (inode %d, was %d)", now.Ino, s.Was.Ino)
	}
	return p.checkAccess(f, s)
}

// checkAccess makes sure that the user may open the file by its path: a batch
// system may have opened it for him.
func (p *Plugin) checkAccess(f plugin.OpenFile, s *file) error {
	if s.Kind == kindPath {
		return nil
	}
	var mode uint32
	if s.readable() {
		mode |= unix.R_OK
	}
	if s.writable() {
		mode |= unix.W_OK
	}
	err := unix.Faccessat(unix.AT_FDCWD, p.host.Root()+f.Link, mode, unix.AT_EACCESS)
	if err == nil || errors.Is(err, unix.EACCES) && mayGrant(s, f.Stat.Uid) {
		return nil
	}
	return p.unreachable(f, s, "access", err)
}

// mayGrant says that openGranted can open the file again.
func mayGrant(s *file, owner uint32) bool {
	return (s.Kind == kindRegular || s.Kind == kindDirectory) && owner == uint32(os.Geteuid())
}

// unreachable makes a standard descriptor of the launching command one of the
// restarting command, and refuses others.
func (p *Plugin) unreachable(f plugin.OpenFile, s *file, call string, err error) error {
	if f.Inherited == 0 || len(s.Locks) > 0 {
		return plugin.Refuse(f, "this user may not open it again: %s: %v; what was left open for the program launch --close-fds keeps from it", call, err)
	}
	s.Kind, s.Stdio = kindStdio, f.Inherited-1
	return nil
}

// statPath looks at what open(2) with flags would open.
func statPath(path string, flags int, st *unix.Stat_t) error {
	if flags&unix.O_NOFOLLOW != 0 {
		return unix.Lstat(path, st)
	}
	return unix.Stat(path, st)
}

// place is where the supervisor of a restart finds a path of the image.
func (p *Plugin) place(path pathname) string {
	return p.host.Root() + p.host.MapPath(string(path))
}

// reopenPath opens a file by its name and moves to the saved offset. Nothing
// is truncated, made or written.
func (p *Plugin) reopenPath(s *file) (int, error) {
	path := p.place(s.Path)
	var now unix.Stat_t
	if err := statPath(path, s.Flags, &now); err != nil {
		return -1, fmt.Errorf("%s: stat: %w", s.Path, err)
	}
	if err := s.compare(&now); err != nil {
		return -1, fmt.Errorf("%s: %w", s.Path, err)
	}
	fd, err := p.openPath(path, s)
	if err != nil {
		return -1, fmt.Errorf("%s: open with flags %#o: %w", s.Path, s.Flags, err)
	}
	if s.Pos == 0 || s.Kind == kindDevice || s.Kind == kindPath {
		return fd, nil
	}
	if s.Virtual {
		err = p.offsets.later(fd, s)
	} else {
		err = s.seek(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
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
	if errors.Is(err, unix.EACCES) {
		return openGranted(path, s, flags)
	}
	return fd, err
}

// openGranted opens a file whose permissions deny its owner what they did not
// when it was opened, or made: open(2) checks those of a new file for later calls
// only. It grants the owner that, for the time of the call.
func openGranted(path string, s *file, flags int) (int, error) {
	var st unix.Stat_t
	if err := statPath(path, flags, &st); err != nil {
		return -1, err
	}
	if !mayGrant(s, st.Uid) {
		return -1, unix.EACCES
	}
	mode, granted := st.Mode&0o7777, uint32(0)
	if s.readable() {
		granted |= unix.S_IRUSR
	}
	if s.writable() {
		granted |= unix.S_IWUSR
	}
	if mode&granted == granted {
		return -1, unix.EACCES // by something else: a folder on the way
	}
	if err := unix.Chmod(path, mode|granted); err != nil {
		return -1, err
	}
	fd, err := unix.Open(path, flags, 0)
	if e := unix.Chmod(path, mode); e != nil && err == nil {
		unix.Close(fd)
		return -1, fmt.Errorf("chmod back to %#o: %w", mode, e)
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
	}
	return nil
}
