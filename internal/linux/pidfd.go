package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// PidfdOpenThread returns a descriptor of the thread tid, with close-on-exec.
// Before Linux 6.9, which has PIDFD_THREAD, it can do so for the leader of a
// thread group only, and the error is EINVAL for other threads.
func PidfdOpenThread(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.PidfdOpen(tid, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: tid %d: %w", tid, err)
	}
	return fd, nil
}

// DupFrom returns a duplicate, with close-on-exec, of descriptor fd of the
// thread tid: the same open file description, pidfd_getfd(2). The caller needs
// the permission to attach to the thread. Where the leader of a thread group
// has exited, tid must be a thread that lives: the leader has no descriptors,
// and the error is ESRCH.
func DupFrom(tid, fd int) (int, error) {
	pidfd, err := PidfdOpenThread(tid)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	dup, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd: tid %d fd %d: %w", tid, fd, err)
	}
	return dup, nil
}
