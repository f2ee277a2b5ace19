package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// makeTCP makes the socket id, and what can only be made with it, and adds
// them to p.made.
func (p *Plugin) makeTCP(id int, s tcpSocket) error {
	switch s.Role {
	case tcpNew:
		fd, err := p.makeBound(s)
		if err != nil {
			return err
		}
		p.keep(id, fd)
		return nil
	case tcpListener:
		return p.makeListenerTCP(id, s)
	case tcpWaiting:
		listener, _ := p.state.tcpByInode(s.Peer)
		return p.makeListenerTCP(listener, p.state.TCP[listener])
	case tcpConnecting:
		return p.makeConnecting(id, s)
	case tcpFailed:
		return p.makeFailed(id, s)
	}
	return p.makePrivate()
}

// makeBound makes a socket of the host's network with its options and its
// address.
func (p *Plugin) makeBound(s tcpSocket) (int, error) {
	fd, err := unix.Socket(s.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := errors.Join(s.Options.applyFamily(fd), s.Options.apply(fd)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if s.Local.Port() != 0 || !s.Local.Addr().IsUnspecified() {
		if err := p.bindMissing(fd, s.Family, s.Local, s.bind); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// bind binds to the old address. Where connections that have ended keep it
// (TIME_WAIT), SO_REUSEADDR lets it be taken again, socket(7).
func (s tcpSocket) bind(fd int) error {
	err := unix.Bind(fd, sockaddr(s.Family, s.Local))
	if errors.Is(err, unix.EADDRINUSE) {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
		}
		err = unix.Bind(fd, sockaddr(s.Family, s.Local))
		back := s.reuse(fd)
		if err == nil {
			err = back
		}
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("bind to %s: %w: another program has the port, or a connection that has ended keeps it for a minute (TIME_WAIT), in which case a restart succeeds after that", s.Local, err)
	case err != nil:
		return fmt.Errorf("bind to %s: %w", s.Local, err)
	}
	return nil
}

// reuse sets SO_REUSEADDR to what the program has set.
func (s tcpSocket) reuse(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEADDR",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, s.Options.Socket.Values[unix.SO_REUSEADDR]))
}

// makeListenerTCP makes a listener, and connects those that waited at it. Those
// from outside are gone.
func (p *Plugin) makeListenerTCP(id int, s tcpSocket) error {
	fd, err := p.makeBound(s)
	if err != nil {
		return err
	}
	p.keep(id, fd)
	clients := p.waitingAt(s.Ino)
	if err := unix.Listen(fd, max(s.Backlog, len(clients))); err != nil {
		return fmt.Errorf("listen at %s: %w", s.Local, err)
	}
	if err := p.connectClients(clients); err != nil {
		return err
	}
	if len(clients) > s.Backlog {
		return os.NewSyscallError("listen", unix.Listen(fd, s.Backlog))
	}
	return nil
}

// connectClients makes the connections in their order.
func (p *Plugin) connectClients(ids []int) error {
	release, err := holdProcessor()
	if err != nil {
		p.host.Log().Warn().Err(err).Msg("connections that wait to be accepted may change their order")
	}
	defer release()
	for _, id := range ids {
		c := p.state.TCP[id]
		fd, err := p.makeBound(c)
		if err != nil {
			return err
		}
		p.keep(id, fd)
		if err := connectWithin(fd, sockaddr(c.Family, c.Remote)); err != nil {
			return fmt.Errorf("connect from %s to %s: %w", c.Local, c.Remote, err)
		}
		if err := shutdown(fd, c.Shutdown); err != nil {
			return err
		}
	}
	return nil
}

// connectTime bounds what happens within the host.
const connectTime = 5 * time.Second

func connectWithin(fd int, to unix.Sockaddr) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	defer unix.SetNonblock(fd, false)
	err := unix.Connect(fd, to)
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	if err := awaitEvent(fd, unix.POLLOUT); err != nil {
		return err
	}
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && pending != 0 {
		err = unix.Errno(pending)
	}
	return err
}

// awaitEvent waits for an event of poll(2), or for an error.
func awaitEvent(fd int, event int16) error {
	until := time.Now().Add(connectTime)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: event}}
		n, err := unix.Poll(ready, int(max(0, time.Until(until)).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return unix.ETIMEDOUT
		default:
			return nil
		}
	}
}

// makeConnecting asks for the connection again. Where the old address is not
// one of this host, the kernel chooses another, as it did then.
func (p *Plugin) makeConnecting(id int, s tcpSocket) error {
	if own, err := ownAddress(s.Local.Addr()); err == nil && !own {
		s.Local = netip.AddrPortFrom(unspecified(s.Family), s.Local.Port())
	}
	fd, err := p.makeBound(s)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	err = unix.Connect(fd, sockaddr(s.Family, s.Remote))
	if err == nil || errors.Is(err, unix.EINPROGRESS) {
		p.keep(id, fd)
		return os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
	}
	unix.Close(fd)
	// There is no way now: the program learns it as it would have.
	return p.makeFailed(id, s)
}

// makeFailed makes a socket whose connect(2) has failed, in the host's network, where
// the program may try again: by a connect to an address that nobody listens at.
func (p *Plugin) makeFailed(id int, s tcpSocket) error {
	fd, err := p.makeBound(s)
	if err != nil {
		return err
	}
	if err := s.fail(fd); err != nil {
		unix.Close(fd)
		if !s.Known {
			p.host.Log().Warn().Err(err).Msg("a socket whose connect(2) had failed does not tell so")
		}
		if fd, err = p.makeBound(s); err != nil {
			return err
		}
	}
	p.keep(id, fd)
	return nil
}

// fail has a connect(2) of fd fail.
func (s tcpSocket) fail(fd int) error {
	if d := s.Options.Socket.Device; d != "" && d != "lo" {
		return fmt.Errorf("it is bound to the interface %q", d)
	}
	nobody, to, err := s.nobody()
	if err != nil {
		return err
	}
	defer unix.Close(nobody)
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	defer unix.SetNonblock(fd, false)
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect to nobody: %w", err)
	}
	if err := awaitEvent(fd, unix.POLLERR); err != nil {
		return fmt.Errorf("connect to nobody: %w", err)
	}
	if !s.Known {
		return nil
	}
	_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR) // which takes it
	return os.NewSyscallError("getsockopt SO_ERROR", err)
}

// nobody takes an address that s can reach, and does not listen there.
func (s tcpSocket) nobody() (fd int, to unix.Sockaddr, err error) {
	addr := s.Local.Addr()
	if addr.IsUnspecified() {
		addr = loopback(s.Family)
	}
	if fd, err = unix.Socket(s.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, sockaddr(s.Family, netip.AddrPortFrom(addr, 0))); err == nil {
		to, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("bind to %s: %w", addr, err)
	}
	return fd, to, nil
}

func unspecified(family int) netip.Addr {
	if family == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
