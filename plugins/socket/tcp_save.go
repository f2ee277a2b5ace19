package socket

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

var (
	errMPTCP        = errors.New("a connection by MPTCP: only listeners of MPTCP are kept")
	errSelf         = errors.New("it is connected to itself")
	errOutside      = errors.New("outside the computation (with --tcp-outside close it is kept as one that was reset)")
	errULP          = errors.New("an upper layer protocol (TCP_ULP), as of kernel TLS, cannot be read")
	errDataAccepted = plugin.Passing("data was sent on it before the other side has accepted it, which nothing but accept(2) can show")
)

// saveTCP saves the socket e of the table t.
func (p *Plugin) saveTCP(t *tcpTable, e *tcpEntry) (s tcpSocket, err error) {
	s = tcpSocket{Family: e.kind.family, Protocol: e.kind.protocol, Ino: e.ino, Local: e.local, Remote: e.remote}
	ended := e.state == tcpClose && e.events&unix.POLLRDHUP != 0
	fresh := e.state == tcpListen || e.state == tcpClose && !ended
	// Before anything moves: it changes SO_RCVLOWAT for a moment.
	if s.Options, err = saveInetOptions(e.fd, e.kind, fresh); err != nil {
		return s, err
	}
	if original, grown := p.grown[e.ino]; grown && s.Options.Socket.ReceiveBuffer == original.grown {
		s.Options.Socket.ReceiveBuffer = original.size
	}
	switch {
	case e.state == tcpListen:
		err = saveListenerTCP(e, &s)
	case fresh:
		s.Role = tcpNew
	case ended:
		err = saveEnded(e, &s)
	case e.state == tcpSynSent:
		err = saveConnecting(e, &s)
	default:
		err = p.saveConnected(t, e, &s)
	}
	if err == nil && s.private() {
		err = p.fitsPrivate(e, s)
	}
	if (s.Role == tcpNew || s.Role == tcpFailed) && e.net == t.own && !s.holdsPort() {
		s.giveBackPort()
	}
	if err == nil {
		err = cmp.Or(e.checkZeroCopy(s), e.checkNotified(s))
	}
	e.role = s.Role
	return s, err
}

// fitsPrivate refuses what a network namespace without the host's interfaces
// does not have.
func (p *Plugin) fitsPrivate(e *tcpEntry, s tcpSocket) error {
	switch {
	case e.kind.protocol == unix.IPPROTO_MPTCP:
		return errMPTCP
	case s.Options.Socket.Device != "" && s.Options.Socket.Device != "lo":
		return fmt.Errorf("a connection bound to the interface %q", s.Options.Socket.Device)
	case s.Local.Addr().Zone() != "" || s.Remote.Addr().Zone() != "":
		return fmt.Errorf("a connection from %s to %s: link-local addresses are not kept", s.Local, s.Remote)
	}
	name, err := unix.GetsockoptString(e.fd, unix.IPPROTO_TCP, unix.TCP_ULP)
	if err == nil && name != "" {
		return fmt.Errorf("%w: %q", errULP, name)
	}
	return nil
}

// holdsPort says whether a socket has the port that getsockname(2) shows: a connect(2) that
// has failed gives back the one that it has taken (net/ipv4/tcp.c, tcp_set_state). Where
// another socket has it, nothing tells.
func (s tcpSocket) holdsPort() bool {
	if s.Local.Port() == 0 {
		return !s.Local.Addr().IsUnspecified()
	}
	fd, err := unix.Socket(s.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	if s.Options.Socket.Device != "" {
		_ = unix.BindToDevice(fd, s.Options.Socket.Device) // that of a VRF has ports of its own
	}
	return unix.Bind(fd, sockaddr(s.Family, s.Local)) != nil
}

// giveBackPort leaves the port out. The address of one whose connect(2) has not returned with the
// error is what the kernel has chosen, in most cases; else it is what the program has bound.
func (s *tcpSocket) giveBackPort() {
	addr := s.Local.Addr()
	if s.Role == tcpFailed {
		addr = unspecified(s.Family)
	}
	s.Local = netip.AddrPortFrom(addr, 0)
}

func pollNow(fd int) (events int16, err error) {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLRDHUP | unix.POLLOUT}}
	if err := pollReady(ready); err != nil {
		return 0, fmt.Errorf("poll: %w", err)
	}
	return ready[0].Revents, nil
}

// saveListenerTCP: of a listener tcp_info shows the length of the queue of
// connections that wait, and its limit.
func saveListenerTCP(e *tcpEntry, s *tcpSocket) error {
	info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return fmt.Errorf("getsockopt TCP_INFO: %w", err)
	}
	s.Role, s.Backlog = tcpListener, int(info.Sacked)
	return nil
}

// saveEnded is for a connection that has ended, or was never made. What is
// pending shows poll(2); SO_ERROR would take it away.
func saveEnded(e *tcpEntry, s *tcpSocket) error {
	info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return fmt.Errorf("getsockopt TCP_INFO: %w", err)
	}
	pending := e.events&unix.POLLERR != 0
	if info.Rcv_space == 0 { // which is set when a connection is made
		s.Role, s.Known = tcpFailed, !pending
		return nil
	}
	s.Role, s.Reset = tcpDead, pending
	in, err := peekTCP(e.fd)
	if err != nil {
		return err
	}
	s.Queue, s.Arrived, s.Urgent = in.queue, len(in.queue), in.urgent
	return nil
}

// saveConnecting asks sock_diag(7) where to: getpeername(2) does not tell yet.
func saveConnecting(e *tcpEntry, s *tcpSocket) error {
	all, err := connecting(e.kind.family)
	if err != nil {
		return err
	}
	d, found := all[e.ino]
	if !found {
		return errors.New("it is being connected, but sock_diag(7) does not know whereto")
	}
	s.Role, s.Remote = tcpConnecting, d.remote
	return nil
}

func (p *Plugin) saveConnected(t *tcpTable, e *tcpEntry, s *tcpSocket) (err error) {
	s.Shutdown = shutdownOf(e.state, e.events)
	peer := t.peer(e)
	switch {
	case peer == e:
		return errSelf
	case peer != nil:
		s.Role, s.Peer = tcpPaired, peer.ino
		return p.savePair(e, peer, s)
	case e.net != t.own:
		s.Role = tcpGone // a namespace of ours, in which nobody else is
	default:
		if err := p.findOutside(t, e, s); err != nil {
			return err
		}
	}
	switch s.Role {
	case tcpOutside:
		if e.state == tcpCloseWait || e.state == tcpLastAck {
			s.Role = tcpGone // its end was received: the program reads that
		}
	case tcpWaiting:
		return checkWaiting(e)
	case tcpGone:
		if err := p.receiveEnd(e); err != nil {
			return err
		}
	}
	in, err := peekTCP(e.fd)
	s.Queue, s.Arrived, s.Urgent = in.queue, len(in.queue), in.urgent
	return err
}

// shutdownOf: a FIN was sent in some states. One that was received shows as
// POLLRDHUP too, but in other states than these.
func shutdownOf(state uint8, events int16) (directions uint8) {
	switch state {
	case tcpFinWait1, tcpFinWait2, tcpClosing, tcpLastAck:
		directions |= shutSend
	}
	switch state {
	case tcpEstablished, tcpFinWait1, tcpFinWait2:
		if events&unix.POLLRDHUP != 0 {
			directions |= shutReceive
		}
	}
	return directions
}

// findOutside looks for the other end, which no process of the tree has.
func (p *Plugin) findOutside(t *tcpTable, e *tcpEntry, s *tcpSocket) error {
	d, found, err := findTCP(e.remote, e.local)
	if err != nil {
		return err
	}
	if !found {
		own, err := ownAddress(e.remote.Addr())
		if err != nil {
			return err
		}
		if own {
			s.Role = tcpGone
			return nil
		}
		return p.outside(e, s)
	}
	switch d.state {
	case tcpFinWait1, tcpFinWait2, tcpLastAck, tcpClosing, tcpTimeWait:
		if d.inode == 0 {
			s.Role = tcpGone
			return nil
		}
	case tcpEstablished, tcpCloseWait, tcpSynRecv:
		if l := t.listenerOf(e.net, e.remote); d.inode == 0 && l != nil {
			s.Role, s.Peer = tcpWaiting, l.ino
			return nil
		}
	}
	return p.outside(e, s)
}

// outside keeps a connection to a process outside as one that was reset, where
// the user has said so. Its end was received already, or comes.
func (p *Plugin) outside(e *tcpEntry, s *tcpSocket) error {
	if !p.closeOutside {
		return fmt.Errorf("connected from %s to %s: %w", e.local, e.remote, errOutside)
	}
	s.Role = tcpOutside
	return nil
}

// checkWaiting: the other side's queue belongs to nobody yet.
func checkWaiting(e *tcpEntry) error {
	sent, err := e.hasSent()
	if err == nil && sent {
		err = errDataAccepted
	}
	return err
}

// savePair reads both directions of a connection when its first end is
// claimed: reading one end can change what the other shows.
func (p *Plugin) savePair(e, peer *tcpEntry, s *tcpSocket) error {
	if e.incoming == nil {
		one, err := p.drain(e, peer)
		if err != nil {
			return err
		}
		other, err := p.drain(peer, e)
		if err != nil {
			return err
		}
		e.incoming, peer.incoming = one, other
	}
	in := e.incoming
	s.Queue, s.Arrived, s.Urgent = in.queue, in.arrived, in.urgent
	return nil
}
