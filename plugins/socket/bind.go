package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// address is for bind(2) and connect(2). x/sys takes "@" at the beginning for
// an abstract name; a zero byte, and a path, it passes on.
func address(name []byte) *unix.SockaddrUnix { return &unix.SockaddrUnix{Name: string(name)} }

// pathOf returns the path of a name that is not abstract.
func pathOf(name []byte) (path string, ok bool) {
	return string(name), len(name) > 0 && name[0] != 0
}

// bindSocket makes a socket with the exact name. The kernel keeps sun_path as
// bind(2) was given it, so the path cannot be prefixed with the programs'
// root; the supervisor's own mounts show the same files.
func bindSocket(typ int, name []byte, mode uint32) (int, error) {
	path, isPath := pathOf(name)
	if isPath {
		if err := removeStale(path, typ); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if isPath {
		err = bindWithMode(fd, name, mode)
	} else {
		err = unix.Bind(fd, address(name))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind to %q: %w", name, err)
	}
	return fd, nil
}

// bindWithMode makes the socket's file with its final mode: there is no moment
// in which another user could connect. The umask is of a thread with a file
// system context of its own (CLONE_FS of unshare(2)), which ends with the
// goroutine because it stays locked.
func bindWithMode(fd int, name []byte, mode uint32) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- os.NewSyscallError("unshare", err)
			return
		}
		unix.Umask(int(^mode & 0o777))
		done <- unix.Bind(fd, address(name))
	}()
	return <-done
}

// removeStale removes the socket file that a process which was killed leaves
// behind: one of ours to which nobody listens. Only a connect can tell.
func removeStale(path string, typ int) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("lstat of %q: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%q exists, and is no socket", path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%q exists, and belongs to user %d", path, st.Uid)
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTOTYPE):
		return fmt.Errorf("%q is in use by another process", path)
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("connect to %q: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stale socket: %w", err)
	}
	return nil
}

// setGroup gives the file its group, where the default is another.
func setGroup(path string, gid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("lstat of %q: %w", path, err)
	}
	if int(st.Gid) == gid {
		return nil
	}
	return os.Lchown(path, -1, gid)
}
