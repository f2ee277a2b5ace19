package socket

import (
	"errors"

	"golang.org/x/sys/unix"
)

// shutDirections returns what shutdown(2) has shut down, of which events of
// poll(2) show all but sending alone.
func (s datagramSocket) shutDirections(fd int, events int16) (directions uint8, err error) {
	switch {
	case events&unix.POLLHUP != 0:
		return shutReceive | shutSend, nil
	case events&unix.POLLRDHUP != 0:
		return shutReceive, nil
	case !hasPorts(s.kind()):
		return 0, nil
	}
	shut, err := s.sendingShut(fd)
	if err != nil || !shut {
		return 0, err
	}
	return shutSend, nil
}

// sendingShut tries to send what is no memory of ours: whether sending is shut
// down the kernel sees before that, and nothing goes out.
func (s datagramSocket) sendingShut(fd int) (shut bool, err error) {
	var to []byte
	if len(s.Remote) == 0 {
		to = s.anywhere() // which is this host
		to[3] = 1         // the port, and any would do
	}
	failed := sendUnreadable(fd, to)
	if addressOf(s.Local, s.Family).Port() == 0 { // sending has bound it: udp(7)
		err = connectRaw(fd, make([]byte, unix.SizeofSockaddrInet4)) // AF_UNSPEC
	}
	return errors.Is(failed, unix.EPIPE), err
}

// shutDown shuts down what was. The kernel does so where the socket is not
// connected as well, and says that it is not.
func (s datagramSocket) shutDown(fd int) error {
	if err := shutdown(fd, s.Shutdown); !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}
