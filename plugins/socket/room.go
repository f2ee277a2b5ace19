package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// mostRoom is more than any queue has.
const mostRoom = 1 << 29

// withSendRoom runs fn while fd may send as much as the system allows.
func withSendRoom(fd int, fn func() error) error {
	return withRoom(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, "wmem_max", fn)
}

// withReceiveRoom runs fn while fd may be sent as much as the system allows.
// A queue may be longer than a new socket takes, and longer than one of the
// old size does, which the program may have made smaller since.
func withReceiveRoom(fd int, fn func() error) error {
	return withRoom(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, "rmem_max", fn)
}

// withRoom puts back the size of the buffer, and whether the program has set
// it. Where more cannot be set than there is, it stays as it is.
func withRoom(fd, opt, force int, limit string, fn func() error) error {
	old, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return fmt.Errorf("getsockopt %d: %w", opt, err)
	}
	lock, lockErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	set := func(size int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size/2) == nil {
			return nil
		}
		if mostBuffer(limit) <= old {
			return nil
		}
		return setBuffer(fd, opt, size)
	}
	if err := set(2 * mostRoom); err != nil {
		return err
	}
	err = errors.Join(fn(), set(old))
	if lockErr == nil { // since Linux 5.14
		err = errors.Join(err, setBufferLock(fd, lock))
	}
	return err
}
