package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fill puts what had arrived in the queue, in a buffer of the old size.
func (e tcpEnd) fill() error {
	data := e.Queue[:e.inQueue()]
	if err := e.makeReceiveRoom(len(data)); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, tcpRecvQueue); err != nil {
		return os.NewSyscallError("setsockopt TCP_REPAIR_QUEUE", err)
	}
	for len(data) > 0 {
		n, err := unix.SendmsgN(e.fd, data, nil, nil, 0)
		if err != nil {
			return fmt.Errorf("send of %d bytes that had arrived: %w", len(data), err)
		}
		data = data[n:]
	}
	if size := e.Options.Socket.ReceiveBuffer; size > 0 {
		if err := setBuffer(e.fd, unix.SO_RCVBUF, size); err != nil {
			return err
		}
	}
	return os.NewSyscallError("setsockopt TCP_REPAIR_QUEUE",
		unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, tcpNoQueue))
}

// makeReceiveRoom lets the buffer take n bytes, by SO_RCVLOWAT, so that it does
// not count as set.
func (e tcpEnd) makeReceiveRoom(n int) error {
	_, size, err := bufferSizes(e.fd)
	if err != nil || size >= 2*n {
		return err
	}
	return errors.Join(setReceiveLow(e.fd, n), setReceiveLow(e.fd, 1))
}

// unlockBuffer lets the kernel choose the size again. Before Linux 5.14 it
// cannot.
func unlockBuffer(fd, which int) error {
	lock, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if unsupported(err) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("getsockopt SO_BUF_LOCK", err)
	}
	return setBufferLock(fd, lock&^which)
}

// sendRest sends what has not arrived at to: it stays in the queue of the
// sender as far as the receiver has no room.
func (e tcpEnd) sendRest(to tcpEnd) error {
	rest := to.Queue[to.inQueue():]
	if u := to.Urgent; u != nil {
		before := u.At - to.inQueue()
		if err := e.sendAll(to, rest[:before], 0); err != nil {
			return err
		}
		if err := e.sendAll(to, []byte{u.Byte}, unix.MSG_OOB); err != nil {
			return err
		}
		rest = rest[before:]
	}
	if err := e.sendAll(to, rest, 0); err != nil || to.Arrived < len(to.Queue) || to.Urgent == nil {
		return err
	}
	// All had arrived, and so has it now.
	return await(to.fd, func() (bool, error) {
		unsent, err := unix.IoctlGetInt(e.fd, unix.TIOCOUTQ)
		return unsent == 0, os.NewSyscallError("ioctl SIOCOUTQ", err)
	}, func() error { return fmt.Errorf("the byte out of band does not arrive: %w", unix.ETIMEDOUT) })
}

// sendAll makes the sender's buffer larger where it has to, and then the
// receiver's.
func (e tcpEnd) sendAll(to tcpEnd, data []byte, flags int) error {
	data, err := e.sendSome(data, flags)
	if err != nil || len(data) == 0 {
		return err
	}
	if err := e.makeSendRoom(len(data)); err != nil {
		return err
	}
	// Of a set size it grows as little as one that was forced, which is set by that.
	if err := errors.Join(unlockBuffer(to.fd, receiveBufferLock), setReceiveLow(to.fd, 1<<30)); err != nil {
		return err
	}
	forceBuffer(to.fd, len(data))
	if err := unlockBuffer(to.fd, receiveBufferLock); err != nil {
		return err
	}
	err = await(to.fd, func() (done bool, err error) {
		data, err = e.sendSome(data, flags)
		return len(data) == 0, err
	}, func() error {
		return fmt.Errorf("%d bytes that had not arrived do not fit", len(data))
	})
	return errors.Join(err, setReceiveLow(to.fd, 1))
}

// makeSendRoom lets the buffer take n bytes more, or what net.core.wmem_max allows.
// Before Linux 5.14 one whose size the kernel chooses is left to it: a size that was
// set would stay.
func (e tcpEnd) makeSendRoom(n int) error {
	_, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if unsupported(err) && e.Options.Socket.SendBuffer == 0 {
		return nil
	}
	send, _, err := bufferSizes(e.fd)
	if err != nil {
		return err
	}
	if err := setBuffer(e.fd, unix.SO_SNDBUF, 2*(send+2*n)); err != nil {
		return err
	}
	return unlockBuffer(e.fd, sendBufferLock)
}

// sendSome sends what the kernel takes, and returns the rest.
func (e tcpEnd) sendSome(data []byte, flags int) ([]byte, error) {
	for len(data) > 0 {
		n, err := unix.SendmsgN(e.fd, data, nil, nil, flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EAGAIN) {
			return data, nil
		}
		if err != nil {
			return data, fmt.Errorf("send of %d bytes that had not arrived: %w", len(data), err)
		}
		data = data[n:]
	}
	return nil, nil
}

func setReceiveLow(fd, n int) error {
	return os.NewSyscallError("setsockopt SO_RCVLOWAT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n))
}
