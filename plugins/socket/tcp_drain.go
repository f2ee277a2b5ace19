package socket

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// incoming is all that is on its way to a socket.
type incoming struct {
	queue   []byte
	arrived int // of these, what was in its own queue
	urgent  *urgent
}

// grownBuffer is a receive buffer whose size the program has set, and that was
// grown to read what is in flight.
type grownBuffer struct{ size, grown int }

// drain reads what from has sent to to, and takes nothing out: what is still
// in the queue of the sender is moved into that of the receiver first.
func (p *Plugin) drain(to, from *tcpEntry) (*incoming, error) {
	arrived, err := unix.IoctlGetInt(to.fd, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("ioctl SIOCINQ: %w", err)
	}
	if err := p.moveUnsent(to, from); err != nil {
		return nil, err
	}
	in, err := peekTCP(to.fd)
	if err != nil {
		return nil, err
	}
	in.arrived = min(arrived, len(in.queue))
	return &in, nil
}

// patience bounds how long bytes may take from one queue to the other.
const patience = 2 * time.Second

// moveUnsent returns when nothing is left in the queue of from.
func (p *Plugin) moveUnsent(to, from *tcpEntry) (err error) {
	unsent, err := unix.IoctlGetInt(from.fd, unix.TIOCOUTQ)
	if err != nil || unsent == 0 {
		return os.NewSyscallError("ioctl SIOCOUTQ", err)
	}
	corked, err := unix.GetsockoptInt(from.fd, unix.IPPROTO_TCP, unix.TCP_CORK)
	if err != nil {
		return os.NewSyscallError("getsockopt TCP_CORK", err)
	}
	if corked != 0 {
		if err := unix.SetsockoptInt(from.fd, unix.IPPROTO_TCP, unix.TCP_CORK, 0); err != nil {
			return os.NewSyscallError("setsockopt TCP_CORK", err)
		}
		defer func() {
			err = errors.Join(err, os.NewSyscallError("setsockopt TCP_CORK", unix.SetsockoptInt(from.fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1)))
		}()
	}
	return p.withRoom(to, unsent, func() error {
		return await(to.fd, func() (bool, error) {
			unsent, err = unix.IoctlGetInt(from.fd, unix.TIOCOUTQ)
			return unsent == 0, os.NewSyscallError("ioctl SIOCOUTQ", err)
		}, func() error {
			return fmt.Errorf("%d bytes from %s to %s stay in the sender's queue", unsent, from.local, from.remote)
		})
	})
}

// receiveEnd returns when all that a peer has sent that was closed has come,
// and its FIN.
func (p *Plugin) receiveEnd(e *tcpEntry) error {
	ended := func() (bool, error) {
		state, err := tcpState(e.fd)
		return state != tcpEstablished && state != tcpFinWait1 && state != tcpFinWait2, err
	}
	if done, err := ended(); err != nil || done {
		return err
	}
	return p.withRoom(e, 1, func() error {
		return await(e.fd, ended, func() error {
			return fmt.Errorf("the other end, %s, was closed, but its FIN does not come", e.remote)
		})
	})
}

// withRoom calls f while the receive buffer of e is as large as it may become
// without that anything is read: SO_RCVLOWAT lets it grow (tcp(7)), but not
// one whose size was set.
func (p *Plugin) withRoom(e *tcpEntry, unsent int, f func() error) (err error) {
	low, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_RCVLOWAT", err)
	}
	lock, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil && !unsupported(err) {
		return os.NewSyscallError("getsockopt SO_BUF_LOCK", err)
	}
	_, size, err := bufferSizes(e.fd)
	if err != nil {
		return err
	}
	if lock&receiveBufferLock != 0 {
		if err := setBufferLock(e.fd, lock&^receiveBufferLock); err != nil {
			return err
		}
	}
	defer func() {
		now, err2 := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
		if err2 == nil && now != lock {
			err = errors.Join(err, setBufferLock(e.fd, lock), p.rememberBuffer(e, size))
		}
	}()
	// The buffer stays as it has grown. The program must not be left with a
	// mark that no data reaches, should the supervisor die while it waits.
	if err := errors.Join(setReceiveLow(e.fd, 1<<30), setReceiveLow(e.fd, low)); err != nil {
		return err
	}
	forceBuffer(e.fd, unsent)
	return f()
}

// forceBuffer adds size to the receive buffer where SO_RCVLOWAT alone is not
// enough. Only a privileged supervisor may.
func forceBuffer(fd, size int) {
	_, now, err := bufferSizes(fd)
	queued, err2 := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err == nil && err2 == nil && now < 2*(queued+size) {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queued+size)
	}
}

func setBufferLock(fd, lock int) error {
	return os.NewSyscallError("setsockopt SO_BUF_LOCK", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, lock))
}

// rememberBuffer notes the size that the program has set. The larger buffer
// stays: made smaller, the receiver would drop what the sender was allowed to
// send, and the connection would stand still for seconds.
func (p *Plugin) rememberBuffer(e *tcpEntry, size int) error {
	_, grown, err := bufferSizes(e.fd)
	if err != nil {
		return err
	}
	if old, known := p.grown[e.ino]; known && old.grown == size {
		size = old.size
	}
	if p.grown == nil {
		p.grown = make(map[uint32]grownBuffer)
	}
	p.grown[e.ino] = grownBuffer{size, grown}
	return nil
}

// await asks until done says so. No event tells that a queue is empty. In
// between it looks at a byte of the receiver, which makes the kernel announce
// a window that has grown, and asks for an acknowledgement that is delayed.
func await(receiver int, done func() (bool, error), late func() error) error {
	one := make([]byte, 1)
	for begun := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		queued, err := unix.IoctlGetInt(receiver, unix.TIOCINQ)
		if err != nil {
			return fmt.Errorf("ioctl SIOCINQ: %w", err)
		}
		if queued > 0 { // past the end it would take a pending error
			_, _, _ = unix.Recvfrom(receiver, one, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		_ = unix.SetsockoptInt(receiver, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		if ok, err := done(); err != nil || ok {
			return err
		}
		if time.Since(begun) > patience {
			return late()
		}
	}
}

// peekTCP reads all that is in the queue of fd, and leaves it there.
func peekTCP(fd int) (in incoming, err error) {
	off, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if unsupported(err) { // before Linux 6.9
		off = -1
	} else if err != nil {
		return in, os.NewSyscallError("getsockopt SO_PEEK_OFF", err)
	}
	if off >= 0 {
		if err := setPeekOff(fd, -1); err != nil {
			return in, err
		}
		defer func() { err = errors.Join(err, setPeekOff(fd, off)) }()
	}
	total, inline, err := queuedWithUrgent(fd)
	if err != nil || total == 0 {
		return in, err
	}
	atMark, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
	if err != nil {
		return in, fmt.Errorf("ioctl SIOCATMARK: %w", err)
	}
	first, err := peekBytes(fd, total)
	if errors.Is(err, unix.EAGAIN) && total == 1 && atMark != 0 && !inline {
		err = nil // there is the urgent byte, and nothing else
	}
	if err != nil {
		return in, err
	}
	if len(first) == total && (atMark == 0 || !inline) {
		return incoming{queue: first}, nil
	}
	return peekUrgent(fd, first, total, inline, atMark != 0)
}

// peekUrgent goes on where the first look has met the urgent mark of tcp(7),
// which no read passes. The byte at the mark is in the stream (inline, with
// SO_OOBINLINE) or beside it.
func peekUrgent(fd int, first []byte, total int, inline, atMark bool) (in incoming, err error) {
	mark := len(first)
	if atMark { // the first look began there, and has skipped the byte, or not
		mark = 0
	}
	in.queue = first
	if !atMark && total > mark {
		skip := mark
		if !inline {
			skip++
		}
		rest, err := peekBehind(fd, skip, total-skip)
		if err != nil {
			return in, err
		}
		in.queue = append(in.queue, rest...)
	}
	events, err := pollNow(fd)
	if err != nil {
		return in, err
	}
	if events&unix.POLLPRI == 0 { // it was read
		return in, nil
	}
	if inline {
		in.urgent = &urgent{At: mark, Byte: in.queue[mark]}
		in.queue = append(in.queue[:mark:mark], in.queue[mark+1:]...)
		return in, nil
	}
	one := make([]byte, 1)
	if _, _, err := unix.Recvfrom(fd, one, unix.MSG_OOB|unix.MSG_PEEK|unix.MSG_DONTWAIT); err != nil {
		return in, fmt.Errorf("recv MSG_OOB: %w", err)
	}
	in.urgent = &urgent{At: mark, Byte: one[0]}
	return in, nil
}

// queuedWithUrgent returns the length of the queue with the urgent byte. Without
// SO_OOBINLINE the kernel counts up to the mark only.
func queuedWithUrgent(fd int) (n int, inline bool, err error) {
	set, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
	if err != nil {
		return 0, false, os.NewSyscallError("getsockopt SO_OOBINLINE", err)
	}
	if set == 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
			return 0, false, os.NewSyscallError("setsockopt SO_OOBINLINE", err)
		}
		defer func() {
			err = errors.Join(err, os.NewSyscallError("setsockopt SO_OOBINLINE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 0)))
		}()
	}
	n, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
	return n, set != 0, os.NewSyscallError("ioctl SIOCINQ", err)
}

func setPeekOff(fd, off int) error {
	return os.NewSyscallError("setsockopt SO_PEEK_OFF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off))
}

// peekBehind looks behind the first skip bytes.
func peekBehind(fd, skip, n int) (data []byte, err error) {
	if n == 0 {
		return nil, nil
	}
	err = setPeekOff(fd, skip)
	if unsupported(err) {
		return nil, errors.New("data behind an urgent byte: this kernel has no SO_PEEK_OFF for TCP")
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, setPeekOff(fd, -1)) }()
	data, err = peekBytes(fd, n)
	if err == nil && len(data) != n {
		err = fmt.Errorf("%d bytes are queued behind an urgent byte, but %d can be seen", n, len(data))
	}
	return data, err
}

func peekBytes(fd, n int) ([]byte, error) {
	data := make([]byte, n)
	for {
		got, _, err := unix.Recvfrom(fd, data, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("recv MSG_PEEK of %d bytes: %w", n, err)
		}
		return data[:got], nil
	}
}
