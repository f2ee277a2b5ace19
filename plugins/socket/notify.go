package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

var (
	errNotified = plugin.Passing("an error or a notification is pending (MSG_ERRQUEUE), which only the program can read")
	// What was sent is counted, and the counts name what may be written again. A
	// new socket begins at 0.
	errZeroCopy = errors.New("it counts what it has sent with MSG_ZEROCOPY (SO_ZEROCOPY), and nothing shows how far")
)

// checkNotified refuses what the program would wait for in vain. It comes when
// nothing is left to be sent, which brings the last of them.
func (e *tcpEntry) checkNotified(s tcpSocket) error {
	switch s.Role {
	case tcpNew, tcpListener, tcpConnecting:
		return nil
	case tcpDead, tcpFailed:
		if !s.Options.notifies() {
			return nil // it is the error of the connection
		}
	}
	events, err := pollNow(e.fd)
	if err == nil && events&unix.POLLERR != 0 {
		err = errNotified
	}
	return err
}

// txStamps are the bits of SO_TIMESTAMPING that have times come back of what was
// sent: TX_HARDWARE, TX_SOFTWARE, TX_SCHED, TX_ACK and TX_COMPLETION of
// linux/net_tstamp.h.
const txStamps = 1<<0 | 1<<1 | 1<<8 | 1<<9 | 1<<18

// notifies says that there may be other than the error of a connection.
func (o inetOptions) notifies() bool {
	return (o.Socket.Values[unix.SO_TIMESTAMPING]|o.Socket.Values[unix.SO_TIMESTAMPING_NEW])&txStamps != 0
}

// checkZeroCopy refuses a connection unless it has sent nothing at all.
func (e *tcpEntry) checkZeroCopy(s tcpSocket) error {
	if s.Options.Socket.Values[unix.SO_ZEROCOPY] == 0 {
		return nil
	}
	sent, err := e.hasSent()
	if err == nil && sent {
		err = errZeroCopy
	}
	return err
}

func (e *tcpEntry) hasSent() (bool, error) {
	if e.state == tcpListen {
		return false, nil
	}
	info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false, fmt.Errorf("getsockopt TCP_INFO: %w", err)
	}
	unsent, err := unix.IoctlGetInt(e.fd, unix.TIOCOUTQ)
	if err != nil {
		return false, fmt.Errorf("ioctl SIOCOUTQ: %w", err)
	}
	return info.Bytes_sent > 0 || unsent > 0, nil
}
