package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// multicastIF is an interface that was given by its index, as struct ip_mreqn
// of ip(7).
const multicastIF = "IP_MULTICAST_IF"

// allHosts is 224.0.0.1. Each interface is a member, and no report goes out.
var allHosts = [4]byte{224, 0, 0, 1}

// hearing bounds the wait for a datagram to this host itself.
const hearing = 200 * time.Millisecond

var errUnheard = errors.New("a datagram to all hosts does not arrive at this one")

// saveMulticastIndex finds out the index of IP_MULTICAST_IF, of which
// getsockopt(2) shows the address only. It sends an empty datagram to this
// host, with the time to live 0, and sees by which interface it comes; where
// that is the one of a new socket, none was set.
func (p *Plugin) saveMulticastIndex(fd int, k kind, s *datagramSocket) error {
	address := s.Options.Bytes[multicastIF]
	if s.Options.Socket.Device != "" || len(address) != 4 || binary.NativeEndian.Uint32(address) != 0 {
		return nil
	}
	unknown := func(why string) error {
		p.host.Log().Info().Stringer("address", addressOf(s.Local, s.Family)).Str("why", why).
			Msg("IP_MULTICAST_IF is not kept, if it was set by index")
		return nil
	}
	if why := s.unfitToSend(); why != "" {
		return unknown(why)
	}
	if p.unheard {
		return unknown(errUnheard.Error())
	}
	usual, err := s.usualInterface()
	if errors.Is(err, errUnheard) {
		p.unheard = true
		return unknown(err.Error())
	}
	index, failed := outgoing(fd, k)
	switch {
	case failed != nil && (err != nil || errors.Is(failed, unix.EAGAIN) || errors.Is(failed, unix.ENOBUFS)):
		return unknown(failed.Error())
	case failed != nil:
		return fmt.Errorf("its IP_MULTICAST_IF cannot be seen: %w", failed)
	case err == nil && index == usual:
		return nil
	}
	name, err := interfaceName(fd, index)
	if err != nil {
		return err
	}
	s.Options.keepInterface(multicastIF, name)
	return nil
}

// unfitToSend says why nothing can be sent without a trace.
func (s datagramSocket) unfitToSend() string {
	values := s.Options.Socket.Values
	switch {
	case s.Family != unix.AF_INET || !hasPorts(s.kind()):
		return "not UDP over IPv4"
	case s.Shutdown&shutSend != 0:
		return "sending is shut down"
	case values[unix.SO_MARK] != 0:
		return "SO_MARK"
	case values[unix.SO_TIMESTAMPING] != 0 || values[unix.SO_TIMESTAMPING_NEW] != 0:
		return "SO_TIMESTAMPING"
	}
	for _, o := range s.Levels {
		if o.Opt == udpCork && o.Value != 0 {
			return "UDP_CORK"
		}
	}
	return ""
}

// usualInterface is that of a new socket with the same address.
func (s datagramSocket) usualInterface() (uint32, error) {
	fd, err := unix.Socket(s.Family, s.Type|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if v := s.Options.Socket.Values[unix.SO_DONTROUTE]; v != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, v); err != nil {
			return 0, os.NewSyscallError("setsockopt SO_DONTROUTE", err)
		}
	}
	if len(s.Local) > 0 {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addressOf(s.Local, s.Family).Addr().As4()}); err != nil {
			return 0, os.NewSyscallError("bind", err)
		}
	}
	return outgoing(fd, s.kind())
}

// outgoing returns the interface by which fd sends to multicast groups. It
// leaves the socket as it was.
func outgoing(fd int, k kind) (index uint32, err error) {
	receiver, to, err := newReceiver(k)
	if err != nil {
		return 0, err
	}
	defer unix.Close(receiver)
	bound, err := portOf(fd)
	if err != nil {
		return 0, err
	}
	err = withOption(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 0, func() error {
		return withOption(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1, func() error {
			_, err := sendmsg(fd, nil, nil, to, unix.MSG_DONTWAIT)
			return err
		})
	})
	if err == nil {
		var own uint16
		if own, err = portOf(fd); err == nil {
			index, err = hearFrom(receiver, own)
		}
	}
	if bound == 0 { // sending has bound it: udp(7)
		err = errors.Join(err, connectRaw(fd, make([]byte, unix.SizeofSockaddrInet4))) // AF_UNSPEC
	}
	return index, err
}

// newReceiver makes a socket that hears what is sent to all hosts at its port.
func newReceiver(k kind) (fd int, at []byte, err error) {
	if fd, err = unix.Socket(k.family, k.kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, k.protocol); err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: allHosts})
	}
	if err == nil {
		at, err = socketAddress(unix.SYS_GETSOCKNAME, fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("socket for multicast: %w", err)
	}
	return fd, at, nil
}

func portOf(fd int) (uint16, error) {
	a, err := socketAddress(unix.SYS_GETSOCKNAME, fd)
	return addressOf(a, unix.AF_INET).Port(), err
}

// hearFrom waits for a datagram from the port, and returns its interface.
func hearFrom(fd int, port uint16) (index uint32, err error) {
	for until := time.Now().Add(hearing); ; {
		left := time.Until(until)
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, max(0, int(left.Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case n == 0:
			return 0, errUnheard
		}
		m, err := recvmsg(fd, make([]byte, 1), controlSize, 0)
		if err != nil {
			return 0, os.NewSyscallError("recvmsg", err)
		}
		if addressOf(m.from, unix.AF_INET).Port() != port {
			continue
		}
		controls, err := unix.ParseSocketControlMessage(m.control)
		if err != nil {
			return 0, err
		}
		for _, c := range controls {
			if c.Header.Level == unix.IPPROTO_IP && c.Header.Type == unix.IP_PKTINFO && len(c.Data) >= 4 {
				return binary.NativeEndian.Uint32(c.Data), nil
			}
		}
		return 0, errUnheard
	}
}
