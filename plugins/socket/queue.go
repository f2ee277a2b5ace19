package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var (
	errEmptyMessage = errors.New("an empty message is queued")
	errDescriptors  = errors.New("file descriptors are in flight (SCM_RIGHTS)")
)

// peek returns what is queued in fd, and leaves it there: size bytes, for a
// stream as one message. ended says that no more can come.
func peek(fd, typ, size int, ended bool) (queue [][]byte, err error) {
	old, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_PEEK_OFF", err)
	}
	defer func() {
		if back := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, old); back != nil && err == nil {
			queue, err = nil, os.NewSyscallError("setsockopt SO_PEEK_OFF", back)
		}
	}()
	if typ == unix.SOCK_STREAM {
		return peekStream(fd, size)
	}
	return peekMessages(fd, size, ended)
}

// peekStream never looks past the end, which would take a pending error.
func peekStream(fd, size int) ([][]byte, error) {
	if size == 0 {
		return nil, nil
	}
	data := make([]byte, size)
	for off := 0; off < size; {
		n, _, err := peekAt(fd, off, data[off:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("%d bytes are queued, but %d can be seen", size, off)
		}
		off += n
	}
	return [][]byte{data}, nil
}

// peekMessages looks until there is no more. At the end of a connection
// recvmsg returns 0 as it does for an empty message.
func peekMessages(fd, size int, ended bool) ([][]byte, error) {
	var queue [][]byte
	buf := make([]byte, 64<<10)
	for off := 0; ; {
		n, flags, err := peekAt(fd, off, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return queue, nil
		case err != nil:
			return nil, err
		case n == 0 && ended && off == size:
			return queue, nil
		case n == 0:
			return nil, errEmptyMessage
		case flags&unix.MSG_TRUNC != 0:
			buf = make([]byte, 2*len(buf))
			continue
		}
		queue = append(queue, append([]byte(nil), buf[:n]...))
		off += n
	}
}

// peekAt looks at what is queued behind the first off bytes.
func peekAt(fd, off int, buf []byte) (n, flags int, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off); err != nil {
		return 0, 0, os.NewSyscallError("setsockopt SO_PEEK_OFF", err)
	}
	control := make([]byte, controlSize)
	n, oobn, flags, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, 0, os.NewSyscallError("recvmsg MSG_PEEK", err)
	}
	found, err := closeDescriptors(control[:oobn])
	if err != nil {
		return 0, 0, err
	}
	if found || flags&unix.MSG_CTRUNC != 0 {
		return 0, 0, errDescriptors
	}
	return n, flags, nil
}

// controlSize has room for SCM_MAX_FD descriptors and what else may come.
const controlSize = 4 << 10

// closeDescriptors closes the duplicates that a peek has made.
func closeDescriptors(control []byte) (found bool, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false, fmt.Errorf("control messages: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return false, fmt.Errorf("control messages: %w", err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		found = true
	}
	return found, nil
}

// refill sends queue from the peer's end.
func refill(peer int, queue [][]byte) error {
	for _, message := range queue {
		for sent := 0; sent < len(message); {
			n, err := unix.SendmsgN(peer, message[sent:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != nil {
				return fmt.Errorf("send of %d queued bytes, of which %d were taken: %w", len(message), sent, err)
			}
			sent += n
		}
	}
	return nil
}
