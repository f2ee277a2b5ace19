package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
)

// address is for bind(2) and connect(2). x/sys takes "@" at the beginning for
// an abstract name; a zero byte, and a path, it passes on.
func address(name []byte) *unix.SockaddrUnix { return &unix.SockaddrUnix{Name: string(name)} }

// pathOf returns the path of a name that is not abstract.
func pathOf(name []byte) (path string, ok bool) {
	return string(name), len(name) > 0 && name[0] != 0
}

// locate finds the file with the inode ino that was bound to the path name: a
// relative one began from the working directory of a process. It may have been
// renamed within its directory; anywhere else it counts as gone.
func (p *Plugin) locate(name []byte, ino uint32) (*socketFile, error) {
	f := &socketFile{Ino: ino}
	dirs := []string{""}
	if name[0] != '/' {
		dirs = p.directories()
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, string(name))
		found, st := p.findSocket(path, ino)
		if found == "" {
			continue
		}
		if os.Geteuid() != 0 && int(st.Uid) != os.Geteuid() {
			return nil, fmt.Errorf("%q belongs to user %d", found, st.Uid)
		}
		f.Dir, f.Path, f.Mode, f.UID, f.GID = dir, found, st.Mode&0o777, int(st.Uid), int(st.Gid)
		var err error
		f.Directory, err = missing.Look(p.host.Root() + filepath.Dir(found))
		return f, err
	}
	return f, nil
}

// directories are the working directories of the tree's processes.
func (p *Plugin) directories() (dirs []string) {
	for host := range p.pids {
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", host)); err == nil && !strings.HasSuffix(dir, " (deleted)") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// findSocket looks for the socket file at path, and else in its directory.
func (p *Plugin) findSocket(path string, ino uint32) (found string, st unix.Stat_t) {
	is := func(path string) bool {
		err := unix.Lstat(p.host.Root()+path, &st)
		return err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && uint32(st.Ino) == ino
	}
	if is(path) {
		return path, st
	}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(p.host.Root() + dir)
	if err != nil {
		return "", st
	}
	for _, e := range entries {
		if other := filepath.Join(dir, e.Name()); e.Type() == fs.ModeSocket && is(other) {
			return other, st
		}
	}
	return "", st
}

// bindName binds fd to the exact name, and where that is a path returns a
// handle (O_PATH) to the file, through which it is reached when it is gone.
//
// The kernel keeps sun_path as bind(2) was given it, so the path cannot be
// prefixed with the programs' root; the supervisor's own mounts show the same
// files.
func (p *Plugin) bindName(fd int, name []byte, f *socketFile) (handle int, err error) {
	path, isPath := pathOf(name)
	if !isPath {
		if err := unix.Bind(fd, address(name)); err != nil {
			return -1, fmt.Errorf("bind to %q: %w", name, err)
		}
		return -1, nil
	}
	dir := f.Dir
	if path[0] != '/' && dir == "" {
		if dir, err = temporaryFor(path); err != nil {
			return -1, err
		}
		defer os.RemoveAll(strings.TrimSuffix(dir, depth))
	}
	real := filepath.Join(dir, path)
	if err := removeStale(real); err != nil {
		return -1, err
	}
	made, err := missing.MakeAll(filepath.Dir(real), f.Directory.Or(missing.Owner{UID: f.UID, GID: f.GID}))
	mode := f.Mode
	switch {
	case f.Path == "":
		mode = 0o600
		defer missing.Remove(made)
	default:
		p.folders = append(made, p.folders...)
	}
	if err != nil {
		return -1, fmt.Errorf("the directory of socket %q: %w", name, err)
	}
	if err := inDirectory(dir, mode, func() error { return unix.Bind(fd, address(name)) }); err != nil {
		return -1, fmt.Errorf("bind to %q: %w", name, err)
	}
	if f.Path != "" && slices.Contains(p.folders, filepath.Dir(f.Path)) {
		p.folders = append([]string{f.Path}, p.folders...)
	}
	handle, err = unix.Open(real, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		err = f.place(real)
	}
	if err != nil {
		if handle >= 0 {
			unix.Close(handle)
		}
		return -1, errors.Join(fmt.Errorf("socket %q: %w", real, err), os.Remove(real))
	}
	return handle, nil
}

// place brings the file that was bound at path to where it was, with its
// owner.
func (f *socketFile) place(path string) error {
	if f.Path == "" {
		return os.Remove(path)
	}
	if err := setOwner(path, f.UID, f.GID); err != nil {
		return err
	}
	if f.Path == path {
		return nil
	}
	if err := removeStale(f.Path); err != nil {
		return err
	}
	return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, f.Path, unix.RENAME_NOREPLACE)
}

// depth lets a relative name climb.
const depth = "/d/d/d/d/d/d/d/d"

// temporaryFor makes a directory in which the relative path can be bound.
func temporaryFor(path string) (dir string, err error) {
	top, err := os.MkdirTemp("", "hiatus-socket-")
	if err != nil {
		return "", err
	}
	dir = top + depth
	parent := filepath.Dir(filepath.Join(dir, path))
	if !strings.HasPrefix(parent+"/", top+"/") {
		err = fmt.Errorf("the relative name %q climbs too far", path)
	}
	for _, d := range []string{dir, parent} {
		if err == nil {
			err = os.MkdirAll(d, 0o700)
		}
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(top))
	}
	return dir, nil
}

// inDirectory makes a socket's file with its final mode: there is no moment in
// which another user could connect. Directory and umask are of a thread with a
// file system context of its own (CLONE_FS of unshare(2)), which ends with the
// goroutine because it stays locked.
func inDirectory(dir string, mode uint32, bind func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- os.NewSyscallError("unshare", err)
			return
		}
		if dir != "" {
			if err := unix.Chdir(dir); err != nil {
				done <- fmt.Errorf("chdir to %q: %w", dir, err)
				return
			}
		}
		unix.Umask(int(^mode & 0o777))
		done <- bind()
	}()
	return <-done
}

// removeStale removes the socket file that a process which was killed leaves
// behind: one of ours to which nobody listens. Only a connect can tell.
func removeStale(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("lstat of %q: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%q exists, and is no socket", path)
	case os.Geteuid() != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%q exists, and belongs to user %d", path, st.Uid)
	}
	if err := isStale(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stale socket: %w", err)
	}
	return nil
}

// isStale returns an error unless nobody has the socket at path. It is asked for as one for
// datagrams: nobody who has it notices (net/unix/af_unix.c, unix_find_bsd).
func isStale(path string) error {
	handle, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open of %q: %w", path, err)
	}
	defer unix.Close(handle)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, throughHandle(handle))
	switch {
	case err == nil, errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.EPERM): // also one that is connected to another
		return fmt.Errorf("%q is in use by another process", path)
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("connect to %q: %w", path, err)
	}
	return nil
}

// throughHandle is an address for a socket file, wherever it is: proc(5).
func throughHandle(handle int) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", handle)}
}

// setOwner gives the file its owner and group, where the default is another.
func setOwner(path string, uid, gid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("lstat of %q: %w", path, err)
	}
	if int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	return os.Lchown(path, uid, gid)
}
