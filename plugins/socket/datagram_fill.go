package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// fillDatagrams fills the queues, and then brings the sockets to their state.
func (p *Plugin) fillDatagrams(ctx context.Context, fds map[int]int) error {
	steps := []func(id int, s datagramSocket) error{
		func(id int, s datagramSocket) error {
			if len(s.Queue) == 0 {
				return nil
			}
			return withReceiveRoom(fds[id], func() error { return p.fillDatagram(ctx, id, fds) })
		},
		func(id int, s datagramSocket) error {
			if !s.filledUnbound() {
				return nil
			}
			return p.bindDatagram(s, fds[id])
		},
		func(id int, s datagramSocket) error { return s.finish(fds[id]) },
	}
	for _, step := range steps {
		for _, id := range slices.Sorted(maps.Keys(p.state.Datagrams)) {
			if _, ok := fds[id]; !ok {
				return fmt.Errorf("open file %d: a socket that nothing has open", id)
			}
			if err := step(id, p.state.Datagrams[id]); err != nil {
				return fmt.Errorf("open file %d: %s socket: %w", id, p.state.Datagrams[id].kind(), err)
			}
		}
	}
	return nil
}

func (s datagramSocket) finish(fd int) error {
	if len(s.Remote) > 0 {
		if err := connectRaw(fd, s.Remote); err != nil {
			return fmt.Errorf("connect to %v: %w", addressOf(s.Remote, s.Family), err)
		}
	}
	for _, g := range s.Groups {
		if err := g.join(fd); err != nil {
			return err
		}
	}
	if err := s.Options.apply(fd); err != nil {
		return err
	}
	for _, o := range s.Levels {
		if have, err := unix.GetsockoptInt(fd, o.Level, o.Opt); err == nil && have == o.Value {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.Level, o.Opt, o.Value); err != nil {
			return fmt.Errorf("setsockopt %d of level %d: %w", o.Opt, o.Level, err)
		}
	}
	return s.shutDown(fd)
}

// filledUnbound says that the queue is filled before the socket has its
// address. At that others might get what it is sent (SO_REUSEADDR,
// SO_REUSEPORT), and an address of a group only gets what goes to the group.
func (s datagramSocket) filledUnbound() bool {
	return len(s.Queue) > 0 && (!s.asksPort() || len(s.Local) == 0)
}

// asksPort says that the program asks which port its datagrams were sent to:
// they must be sent to that.
func (s datagramSocket) asksPort() bool {
	return s.Options.Values["IP_RECVORIGDSTADDR"] != 0 || s.Options.Values["IPV6_RECVORIGDSTADDR"] != 0
}

// sharesPort says that others may get what is sent to the port, or that it gets
// only what is sent to a group.
func (s datagramSocket) sharesPort() bool {
	values := s.Options.Socket.Values
	return values[unix.SO_REUSEADDR] != 0 || values[unix.SO_REUSEPORT] != 0 || addressOf(s.Local, s.Family).Addr().IsMulticast()
}

func (p *Plugin) fillDatagram(ctx context.Context, id int, fds map[int]int) error {
	s := p.state.Datagrams[id]
	// A socket without it would get the segments one by one.
	if slices.ContainsFunc(s.Queue, func(m datagram) bool { return m.Segment > 0 }) {
		if err := unix.SetsockoptInt(fds[id], unix.IPPROTO_UDP, udpGRO, 1); err != nil {
			return os.NewSyscallError("setsockopt UDP_GRO", err)
		}
	}
	for _, m := range s.Queue {
		from, err := p.senderAt(m.From, s.kind(), fds)
		if err != nil {
			// As it would be of a datagram that the network has lost.
			p.host.Log().Warn().Err(err).Stringer("from", addressOf(m.From, s.Family)).Msg("a datagram that was not read is not kept")
			continue
		}
		if s.filledUnbound() {
			err = s.deliverUnbound(ctx, fds[id], from, m)
		} else {
			err = s.deliver(ctx, fds[id], from, m, s.Local)
		}
		if from.temporary {
			unix.Close(from.fd)
		}
		if err != nil {
			return fmt.Errorf("a queued datagram from %v: %w", addressOf(m.From, s.Family), err)
		}
	}
	return nil
}

// deliverUnbound lends fd a port for one message. It is one that nobody has,
// and the sender has its own already.
func (s datagramSocket) deliverUnbound(ctx context.Context, fd int, from sender, m datagram) error {
	if err := bindRaw(fd, s.anywhere()); err != nil {
		return err
	}
	at, err := socketAddress(unix.SYS_GETSOCKNAME, fd)
	if err == nil {
		err = s.deliver(ctx, fd, from, m, at)
	}
	// With AF_UNSPEC a port goes back that the kernel has chosen. Connected it
	// must not have been: IPv6 would take messages from that peer alone, still.
	return errors.Join(err, connectRaw(fd, make([]byte, unix.SizeofSockaddrInet4)))
}

// anywhere is a sockaddr with no address and no port.
func (s datagramSocket) anywhere() []byte {
	size := unix.SizeofSockaddrInet4
	if s.Family == unix.AF_INET6 {
		size = unix.SizeofSockaddrInet6
	}
	a := make([]byte, size)
	binary.NativeEndian.PutUint16(a, uint16(s.Family))
	return a
}

// deliver sends m from the socket from to fd, which has the port of at.
func (s datagramSocket) deliver(ctx context.Context, fd int, from sender, m datagram, at []byte) error {
	had, err := receiveMemory(fd)
	if err != nil {
		return err
	}
	err = from.send(m, s.destination(m, at))
	if errors.Is(err, unix.EACCES) { // a broadcast address, which only goes out: socket(7)
		err = from.send(m, withAddress(at, m.From))
	}
	if err != nil {
		return err
	}
	return awaitDatagram(ctx, fd, had)
}

// destination is the port of at, at the address that the socket is to have, or
// where that is none of this host's alone at the sender's.
func (s datagramSocket) destination(m datagram, at []byte) []byte {
	a := addressOf(s.Local, s.Family).Addr()
	if a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
		if own, err := ownAddress(a); err == nil && own {
			return withAddress(at, s.Local)
		}
	}
	return withAddress(at, m.From)
}

// control has the message sent from its address by a socket that has any, and
// in its segments.
func (m datagram) control(family int) []byte {
	return append(m.sourceControl(family), m.segmentControl()...)
}

func (m datagram) sourceControl(family int) []byte {
	from := addressOf(m.From, family).Addr()
	if family == unix.AF_INET {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
	}
	info := unix.Inet6Pktinfo{Addr: from.As16()}
	if from.IsLinkLocalUnicast() {
		info.Ifindex = binary.NativeEndian.Uint32(m.From[24:]) // sin6_scope_id, ipv6(7)
	}
	return unix.PktInfo6(&info)
}

// segmentControl is UDP_SEGMENT of udp(7).
func (m datagram) segmentControl() []byte {
	if m.Segment == 0 {
		return nil
	}
	e, b := binary.NativeEndian, make([]byte, unix.CmsgSpace(2))
	e.PutUint64(b, uint64(unix.CmsgLen(2))) // struct cmsghdr
	e.PutUint32(b[8:], unix.IPPROTO_UDP)
	e.PutUint32(b[12:], udpSegment)
	e.PutUint16(b[16:], uint16(m.Segment))
	return b
}

// sender is a socket that a datagram came from, or one with its address. One of
// IPv6 may have an address of IPv4, and the receiver be of the other family.
type sender struct {
	fd, family int
	temporary  bool
}

func (f sender) send(m datagram, to []byte) error {
	m.From = inFamily(m.From, f.family)
	_, err := sendmsg(f.fd, m.Data, m.control(f.family), inFamily(to, f.family), unix.MSG_DONTWAIT)
	return err
}

// senderAt returns a socket of the image, or a new one.
func (p *Plugin) senderAt(from []byte, k kind, fds map[int]int) (sender, error) {
	for id, s := range p.state.Datagrams {
		if !s.filledUnbound() && s.Type == k.kind && s.Protocol == k.protocol && s.sendsFrom(addressOf(from, k.family)) {
			return sender{fds[id], s.Family, false}, nil
		}
	}
	fd, err := unix.Socket(k.family, k.kind|unix.SOCK_CLOEXEC, k.protocol)
	if err != nil {
		return sender{}, os.NewSyscallError("socket", err)
	}
	if err := bindRaw(fd, from); err != nil {
		unix.Close(fd)
		return sender{}, err
	}
	return sender{fd, k.family, true}, nil
}

// sendsFrom says whether a is the address of s, or s is bound to any.
func (s datagramSocket) sendsFrom(a netip.AddrPort) bool {
	have, a := addressOf(s.Local, s.Family), unmapped(a)
	switch {
	case have.Port() != a.Port() || !have.IsValid():
		return false
	case !have.Addr().IsUnspecified():
		return unmapped(have) == a
	case s.Family == unix.AF_INET6 && a.Addr().Is4():
		return s.Options.Values["IPV6_V6ONLY"] == 0
	}
	return (s.Family == unix.AF_INET) == a.Addr().Is4()
}

// inFamily returns a sockaddr as a socket of the family takes it: of IPv4 in
// that of IPv6, ipv6(7), or the reverse.
func inFamily(raw []byte, family int) []byte {
	e := binary.NativeEndian
	switch {
	case family == unix.AF_INET && len(raw) == unix.SizeofSockaddrInet6:
		out := make([]byte, unix.SizeofSockaddrInet4)
		e.PutUint16(out, unix.AF_INET)
		copy(out[2:4], raw[2:4])
		copy(out[4:], raw[20:24])
		return out
	case family == unix.AF_INET6 && len(raw) == unix.SizeofSockaddrInet4:
		out := make([]byte, unix.SizeofSockaddrInet6)
		e.PutUint16(out, unix.AF_INET6)
		copy(out[2:4], raw[2:4])
		copy(out[18:], []byte{0xff, 0xff})
		copy(out[20:24], raw[4:8])
		return out
	}
	return raw
}

// awaitDatagram waits until a message that was sent to fd is queued, which
// takes memory, for an empty one too. had is how much there was before.
func awaitDatagram(ctx context.Context, fd int, had uint32) error {
	for until := time.Now().Add(connectTime); ; time.Sleep(100 * time.Microsecond) {
		has, err := receiveMemory(fd)
		switch {
		case err != nil || has > had:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(until):
			return fmt.Errorf("it does not arrive: %w", unix.ETIMEDOUT)
		}
	}
}

// receiveMemory is what is charged for all that is queued.
func receiveMemory(fd int) (uint32, error) {
	info, err := getBytes(fd, unix.SOL_SOCKET, unix.SO_MEMINFO)
	if err == nil && len(info) < 4 {
		err = unix.EINVAL
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt SO_MEMINFO", err)
	}
	return binary.NativeEndian.Uint32(info), nil // SK_MEMINFO_RMEM_ALLOC of linux/sock_diag.h
}
