package socket

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// tcpRole says what a TCP socket was doing, and with it how it is made again.
type tcpRole string

const (
	tcpNew        tcpRole = "new"        // as socket(2) made it, perhaps bound
	tcpListener   tcpRole = "listening"  //
	tcpWaiting    tcpRole = "waiting"    // connected to a listener of the computation that has not accepted it yet
	tcpConnecting tcpRole = "connecting" // connect(2) has no answer yet
	tcpPaired     tcpRole = "paired"     // the other end is in the computation
	tcpGone       tcpRole = "gone"       // the other end was closed
	tcpOutside    tcpRole = "outside"    // the other end is not in the computation: it is reset
	tcpDead       tcpRole = "dead"       // the connection has ended on both sides, or was reset
	tcpFailed     tcpRole = "failed"     // connect(2) has failed, and may be called again
)

// tcpSocket is one TCP socket.
type tcpSocket struct {
	Family   int     `json:"family"`
	Protocol int     `json:"protocol"` // IPPROTO_TCP, IPPROTO_MPTCP
	Ino      uint32  `json:"ino"`      // by which sockets find each other
	Role     tcpRole `json:"role"`

	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Peer is the inode of the other end, or of the listener that it waits at.
	Peer    uint32 `json:"peer,omitempty"`
	Backlog int    `json:"backlog,omitempty"`
	// Connected says of those that wait when they were connected, counted from one
	// of them.
	Connected int32 `json:"connected_ms,omitempty"`

	// Queue is all that was on its way to this socket. The first Arrived bytes
	// were in its own queue, the others in that of the sender.
	Queue   []byte  `json:"queue,omitempty"`
	Arrived int     `json:"arrived,omitempty"`
	Urgent  *urgent `json:"urgent,omitempty"`
	// Shutdown holds the directions that are shut down: 1 receive, 2 send.
	Shutdown uint8       `json:"shutdown,omitempty"`
	Reset    bool        `json:"reset,omitempty"` // ECONNRESET is pending
	Known    bool        `json:"known,omitempty"` // the program has read why it has failed
	Options  inetOptions `json:"options"`
}

// urgent is the byte that was sent with MSG_OOB, tcp(7): it is not in the
// queue, and stood before its byte At.
type urgent struct {
	At   int  `json:"at"`
	Byte byte `json:"byte"`
}

// private says that it is made in a network namespace of its own.
func (s tcpSocket) private() bool {
	switch s.Role {
	case tcpPaired, tcpGone, tcpOutside, tcpDead:
		return true
	}
	return false
}

func (s tcpSocket) kind() kind { return kind{s.Family, unix.SOCK_STREAM, s.Protocol} }

// validateTCP validates all, and that they fit together.
func (s *state) validateTCP() error {
	byInode := make(map[uint32]tcpSocket, len(s.TCP))
	for id, t := range s.TCP {
		if err := t.validate(); err != nil {
			return fmt.Errorf("open file %d: %w", id, err)
		}
		if _, twice := byInode[t.Ino]; twice {
			return fmt.Errorf("open file %d: inode %d is there twice", id, t.Ino)
		}
		byInode[t.Ino] = t
	}
	for id, t := range s.TCP {
		if err := t.fits(byInode); err != nil {
			return fmt.Errorf("open file %d: %w", id, err)
		}
	}
	return nil
}

// fits says whether the socket that t belongs to is there.
func (s tcpSocket) fits(byInode map[uint32]tcpSocket) error {
	peer, found := byInode[s.Peer]
	switch s.Role {
	case tcpPaired:
		if !found || peer.Ino == s.Ino || peer.Role != tcpPaired || peer.Peer != s.Ino ||
			unmapped(peer.Local) != unmapped(s.Remote) || unmapped(peer.Remote) != unmapped(s.Local) {
			return fmt.Errorf("its other end (inode %d) is not kept, or not connected to it", s.Peer)
		}
	case tcpWaiting:
		if !found || peer.Role != tcpListener {
			return fmt.Errorf("the listener (inode %d) that it waits at is not kept", s.Peer)
		}
	}
	return nil
}

func (s tcpSocket) validate() error {
	if !isTCP(s.kind()) {
		return fmt.Errorf("family %d, protocol %d", s.Family, s.Protocol)
	}
	if err := s.validateRole(); err != nil {
		return err
	}
	for _, a := range []netip.AddrPort{s.Local, s.Remote} {
		if a.Addr().IsValid() && (s.Family == unix.AF_INET) != a.Addr().Is4() {
			return fmt.Errorf("address %s of family %d", a, s.Family)
		}
	}
	switch {
	case s.Backlog < 0:
		return fmt.Errorf("backlog %d", s.Backlog)
	case s.Arrived < 0 || s.Arrived > len(s.Queue):
		return fmt.Errorf("%d of %d bytes arrived", s.Arrived, len(s.Queue))
	case s.Urgent != nil && (s.Urgent.At < 0 || s.Urgent.At > len(s.Queue)):
		return fmt.Errorf("an urgent byte before byte %d of %d", s.Urgent.At, len(s.Queue))
	case s.Shutdown&^(shutReceive|shutSend) != 0:
		return fmt.Errorf("shutdown %d", s.Shutdown)
	case s.Reset && s.Role != tcpDead:
		return errors.New("a reset of a connection that has not ended")
	}
	return s.Options.validate()
}

func (s tcpSocket) validateRole() error {
	switch s.Role {
	case tcpNew, tcpListener, tcpDead, tcpFailed:
	case tcpWaiting, tcpConnecting, tcpPaired, tcpGone, tcpOutside:
		if !s.Remote.IsValid() || s.Remote.Port() == 0 {
			return fmt.Errorf("%s without an address", s.Role)
		}
	default:
		return fmt.Errorf("role %q", s.Role)
	}
	switch {
	case !s.Local.IsValid():
		return errors.New("no local address")
	case s.Local.Port() == 0 && s.Role != tcpNew && s.Role != tcpDead && s.Role != tcpFailed && s.Role != tcpListener:
		return fmt.Errorf("%s without a port", s.Role)
	case s.Protocol == unix.IPPROTO_MPTCP && s.private():
		return fmt.Errorf("MPTCP, %s", s.Role)
	case !s.private() && (len(s.Queue) > 0 || s.Urgent != nil):
		return fmt.Errorf("a queue of a socket that is %s", s.Role)
	}
	return nil
}
