package socket

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Options that x/sys does not name: of Linux 6.5 and 6.16.
const (
	soPassPIDFD  = 76
	soPassRights = 83
)

// kept are the options of SOL_SOCKET with a number as value that have a
// meaning for UNIX sockets and can be both read and set by anybody.
var kept = [...]int{
	unix.SO_REUSEADDR, unix.SO_KEEPALIVE, unix.SO_PASSCRED, unix.SO_RCVLOWAT, unix.SO_TIMESTAMP,
	unix.SO_PASSSEC, unix.SO_TIMESTAMPNS, unix.SO_PEEK_OFF, soPassPIDFD, soPassRights,
}

func isKept(opt int) bool { return slices.Contains(kept[:], opt) }

// Bits of SO_BUF_LOCK: the program has set the size of a buffer.
const (
	sendBufferLock    = 1
	receiveBufferLock = 2
)

func saveOptions(fd, typ int) (o options, err error) {
	o.Values = make(map[int]int)
	for _, opt := range kept {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if unsupported(err) {
			continue
		}
		if err != nil {
			return options{}, fmt.Errorf("getsockopt %d: %w", opt, err)
		}
		o.Values[opt] = v
	}
	if o.SendTimeout, err = getTimeout(fd, unix.SO_SNDTIMEO); err != nil {
		return options{}, err
	}
	if o.ReceiveTimeout, err = getTimeout(fd, unix.SO_RCVTIMEO); err != nil {
		return options{}, err
	}
	return o, o.saveBuffers(fd, typ)
}

// unsupported tells an option that this kernel, or this type, does not have.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP)
}

func getTimeout(fd, opt int) (time.Duration, error) {
	tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return 0, fmt.Errorf("getsockopt %d: %w", opt, err)
	}
	return time.Duration(tv.Nano()), nil
}

func (o *options) saveBuffers(fd, typ int) error {
	send, receive, err := bufferSizes(fd)
	if err != nil {
		return err
	}
	lock, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if unsupported(err) { // before Linux 5.14
		lock, err = guessBufferLock(send, receive, typ)
	}
	if err != nil {
		return fmt.Errorf("getsockopt SO_BUF_LOCK: %w", err)
	}
	if lock&sendBufferLock != 0 {
		o.SendBuffer = send
	}
	if lock&receiveBufferLock != 0 {
		o.ReceiveBuffer = receive
	}
	return nil
}

func bufferSizes(fd int) (send, receive int, err error) {
	if send, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
		return 0, 0, fmt.Errorf("getsockopt SO_SNDBUF: %w", err)
	}
	if receive, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
		return 0, 0, fmt.Errorf("getsockopt SO_RCVBUF: %w", err)
	}
	return send, receive, nil
}

// guessBufferLock takes a size that a new socket does not have for one that
// was set.
func guessBufferLock(send, receive, typ int) (lock int, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	defaultSend, defaultReceive, err := bufferSizes(fd)
	if err != nil {
		return 0, err
	}
	if send != defaultSend {
		lock |= sendBufferLock
	}
	if receive != defaultReceive {
		lock |= receiveBufferLock
	}
	return lock, nil
}

// passesSenders says that messages carry who sent them.
func (o options) passesSenders() bool {
	return o.Values[unix.SO_PASSCRED] != 0 || o.Values[soPassPIDFD] != 0
}

// makeRoom lets fd send as much as it could before. It comes before a refill,
// and apply behind it, since the program may have lowered the size later.
func (o options) makeRoom(fd int) error {
	send, _, err := bufferSizes(fd)
	if err != nil || o.SendBuffer <= send {
		return err
	}
	return setBuffer(fd, unix.SO_SNDBUF, o.SendBuffer)
}

// setBuffer sets half of size, which the kernel doubles.
func setBuffer(fd, opt, size int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, size/2); err != nil {
		return fmt.Errorf("setsockopt %d to %d: %w", opt, size/2, err)
	}
	return nil
}

// apply sets what differs from a new socket.
func (o options) apply(fd int) error {
	for opt, want := range o.Values {
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if err == nil && have == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, want); err != nil {
			return fmt.Errorf("setsockopt %d to %d: %w", opt, want, err)
		}
	}
	for opt, timeout := range map[int]time.Duration{unix.SO_SNDTIMEO: o.SendTimeout, unix.SO_RCVTIMEO: o.ReceiveTimeout} {
		tv := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			return fmt.Errorf("setsockopt %d to %v: %w", opt, timeout, err)
		}
	}
	for opt, size := range map[int]int{unix.SO_SNDBUF: o.SendBuffer, unix.SO_RCVBUF: o.ReceiveBuffer} {
		if size == 0 {
			continue
		}
		if err := setBuffer(fd, opt, size); err != nil {
			return err
		}
	}
	return nil
}
