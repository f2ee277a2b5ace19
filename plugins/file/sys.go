package file

import (
	"golang.org/x/sys/unix"
)

// openPeer is ioctl TIOCGPTPEER of ioctl_tty(2): it opens the slave of a
// master, whatever is mounted where.
//
// The kernel keeps O_CLOEXEC among the flags that F_GETFL shows, and adds
// nothing, as open(2) adds O_LARGEFILE: neither is for the descriptor.
func openPeer(master, flags int) (int, error) {
	flags = flags&^unix.O_CLOEXEC | largeFile
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, uintptr(flags))
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// ioctlNone is an ioctl without argument.
func ioctlNone(fd int, req uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, 0); errno != 0 {
		return errno
	}
	return nil
}
