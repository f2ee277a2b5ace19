package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// datagramSocket is a socket of IPv4 or IPv6 that is no stream: udp(7),
// udplite(7), icmp(7), raw(7).
type datagramSocket struct {
	Family   int `json:"family"`
	Type     int `json:"type"` // SOCK_DGRAM, SOCK_RAW
	Protocol int `json:"protocol"`
	// Local and Remote are sockaddr of bind(2) and connect(2); empty where the
	// socket has none.
	Local  []byte `json:"local,omitempty"`
	Remote []byte `json:"remote,omitempty"`
	// Shutdown holds the directions that are shut down: 1 receive, 2 send.
	Shutdown uint8       `json:"shutdown,omitempty"`
	Groups   []group4or6 `json:"groups,omitempty"` // multicast
	Queue    []datagram  `json:"queue,omitempty"`

	Levels  []levelOption `json:"levels,omitempty"` // of the protocol
	Options inetOptions   `json:"options"`
}

// datagram is one message, and the sockaddr of its sender.
type datagram struct {
	Data []byte `json:"data,omitempty"`
	From []byte `json:"from"`
	// Segment is the size of the datagrams that this one is made of, which came
	// together (UDP_GRO, udp(7)); 0 for one that came alone.
	Segment int `json:"segment,omitempty"`
}

func (m datagram) validate(k kind) error {
	switch {
	case !hasPorts(k) || !addressOf(m.From, k.family).IsValid():
		return fmt.Errorf("a queued datagram of a %s socket from address %x", k, m.From)
	case m.Segment != 0 && (k.protocol != unix.IPPROTO_UDP || m.Segment < 0 || m.Segment >= len(m.Data) || m.Segment > math.MaxUint16):
		return fmt.Errorf("a queued datagram of %d bytes in segments of %d", len(m.Data), m.Segment)
	}
	return nil
}

// levelOption is an option with a number as value.
type levelOption struct {
	Level int `json:"level"`
	Opt   int `json:"opt"`
	Value int `json:"value"`
}

// Options of linux/udp.h and linux/icmp.h that x/sys does not name.
const (
	udpCork       = 1
	udpEncap      = 100
	udpNoCheck6TX = 101
	udpNoCheck6RX = 102
	udpSegment    = 103
	udpGRO        = 104
	liteSendCover = 10
	liteRecvCover = 11
	icmpFilter    = 1
)

// levelOptions are those of each protocol. UDP_CORK is the last: what is sent
// to fill others must not wait.
func levelOptions(k kind) []levelOption {
	switch {
	case k.kind == unix.SOCK_RAW && k.family == unix.AF_INET:
		options := []levelOption{{Level: unix.IPPROTO_IP, Opt: unix.IP_HDRINCL}}
		if k.protocol == unix.IPPROTO_ICMP {
			options = append(options, levelOption{Level: unix.SOL_RAW, Opt: icmpFilter})
		}
		return options
	case k.kind == unix.SOCK_RAW:
		return []levelOption{{Level: unix.IPPROTO_IPV6, Opt: unix.IPV6_CHECKSUM}}
	case k.protocol == unix.IPPROTO_UDP:
		return []levelOption{{Level: unix.IPPROTO_UDP, Opt: udpNoCheck6TX}, {Level: unix.IPPROTO_UDP, Opt: udpNoCheck6RX},
			{Level: unix.IPPROTO_UDP, Opt: udpSegment}, {Level: unix.IPPROTO_UDP, Opt: udpGRO}, {Level: unix.IPPROTO_UDP, Opt: udpEncap},
			{Level: unix.IPPROTO_UDP, Opt: udpCork}}
	case k.protocol == unix.IPPROTO_UDPLITE:
		return []levelOption{{Level: unix.IPPROTO_UDPLITE, Opt: liteSendCover}, {Level: unix.IPPROTO_UDPLITE, Opt: liteRecvCover},
			{Level: unix.IPPROTO_UDPLITE, Opt: udpCork}}
	}
	return nil
}

func (s datagramSocket) kind() kind { return kind{s.Family, s.Type, s.Protocol} }

// isDatagram says whether sockets of kind k are kept as datagramSocket.
func isDatagram(k kind) bool {
	if k.family != unix.AF_INET && k.family != unix.AF_INET6 {
		return false
	}
	switch k.kind {
	case unix.SOCK_RAW:
		return true
	case unix.SOCK_DGRAM:
		return hasPorts(k) || k.protocol == unix.IPPROTO_ICMP || k.protocol == unix.IPPROTO_ICMPV6
	}
	return false
}

// hasPorts says that it is UDP: of others, what is queued is a copy of what the
// network brings, and not kept.
func hasPorts(k kind) bool {
	return k.kind == unix.SOCK_DGRAM && (k.protocol == unix.IPPROTO_UDP || k.protocol == unix.IPPROTO_UDPLITE)
}

func (s datagramSocket) validate() error {
	if !isDatagram(s.kind()) {
		return fmt.Errorf("%s socket as one for datagrams", s.kind())
	}
	for _, a := range [][]byte{s.Local, s.Remote} {
		if len(a) > 0 && !addressOf(a, s.Family).IsValid() {
			return fmt.Errorf("address %x", a)
		}
	}
	for _, m := range s.Queue {
		if err := m.validate(s.kind()); err != nil {
			return err
		}
	}
	for _, o := range s.Levels {
		if !slices.ContainsFunc(levelOptions(s.kind()), func(k levelOption) bool { return k.Level == o.Level && k.Opt == o.Opt }) {
			return fmt.Errorf("option %d of level %d", o.Opt, o.Level)
		}
	}
	for _, g := range s.Groups {
		if !g.Address.IsMulticast() || g.Address.Is4() != (s.Family == unix.AF_INET) || g.Interface == "" || len(g.Interface) >= unix.IFNAMSIZ {
			return fmt.Errorf("multicast group %v", g)
		}
	}
	if s.Shutdown&^(shutReceive|shutSend) != 0 {
		return fmt.Errorf("shutdown %d", s.Shutdown)
	}
	return s.Options.validate()
}

func (s *state) validateDatagrams() error {
	for id, sock := range s.Datagrams {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("open file %d: %w", id, err)
		}
	}
	return nil
}

// addressOf returns address and port of a sockaddr of the family.
func addressOf(raw []byte, family int) netip.AddrPort {
	port := func() uint16 { return uint16(raw[2])<<8 | uint16(raw[3]) }
	switch {
	case family == unix.AF_INET && len(raw) == unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port())
	case family == unix.AF_INET6 && len(raw) == unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port())
	}
	return netip.AddrPort{}
}

// withAddress returns the sockaddr to with the address of from, and the port
// of to.
func withAddress(to, from []byte) []byte {
	out := bytes.Clone(from)
	copy(out[2:4], to[2:4])
	return out
}

const errAsksPort = plugin.Passing("datagrams were not read whose port is asked for (IP_RECVORIGDSTADDR), which others may have too")

func (p *Plugin) claimDatagram(f plugin.OpenFile, fd int, k kind) (err error) {
	s := datagramSocket{Family: k.family, Type: k.kind, Protocol: k.protocol}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	if err := pollReady(ready); err != nil {
		return os.NewSyscallError("poll", err)
	}
	if ready[0].Revents&unix.POLLERR != 0 {
		return errors.New("an error is pending")
	}
	if hasPorts(k) {
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ) // SIOCOUTQ
		if err != nil {
			return fmt.Errorf("ioctl SIOCOUTQ: %w", err)
		}
		if waiting > 0 {
			return errors.New("corked data (UDP_CORK, MSG_MORE) is not sent yet")
		}
	}
	if s.Local, err = socketAddress(unix.SYS_GETSOCKNAME, fd); err != nil {
		return err
	}
	if s.Remote, err = socketAddress(unix.SYS_GETPEERNAME, fd); err != nil {
		return err
	}
	if len(s.Remote) == 0 && !hasPorts(k) { // getpeername wants a port
		if s.Remote, err = remoteWithoutPort(k, f.Stat.Ino); err != nil {
			return err
		}
	}
	if a := addressOf(s.Local, s.Family); a.Port() == 0 && a.Addr().IsUnspecified() {
		s.Local = nil
	}
	if s.Shutdown, err = s.shutDirections(fd, ready[0].Revents); err != nil {
		return err
	}
	if s.Options, err = saveInetOptions(fd, k, len(s.Remote) == 0); err != nil {
		return err
	}
	if s.Options.Socket.Values[unix.SO_ZEROCOPY] != 0 {
		return errZeroCopy
	}
	for _, o := range levelOptions(k) {
		if o.Value, err = unix.GetsockoptInt(fd, o.Level, o.Opt); err == nil {
			s.Levels = append(s.Levels, o)
		} else if !unsupported(err) {
			return fmt.Errorf("getsockopt %d of level %d: %w", o.Opt, o.Level, err)
		}
	}
	if s.Groups, err = memberships(fd, k.family); err != nil {
		return err
	}
	if err := p.saveMulticastIndex(fd, k, &s); err != nil {
		return err
	}
	switch queued := ready[0].Revents&unix.POLLIN != 0; {
	case queued && hasPorts(k):
		if s.Queue, err = p.peekDatagrams(fd, uint32(f.Stat.Ino)); err != nil {
			return err
		}
	case queued:
		p.host.Log().Info().Str("socket", f.Link).Msg("packets that were not read are not kept")
	}
	if len(s.Queue) > 0 && s.asksPort() && s.sharesPort() {
		return errAsksPort
	}
	if p.state.Datagrams == nil {
		p.state.Datagrams = make(map[int]datagramSocket)
	}
	p.state.Datagrams[f.ID] = s
	return nil
}

// peekDatagrams looks at all that is queued, and leaves it there.
func (p *Plugin) peekDatagrams(fd int, ino uint32) ([]datagram, error) {
	var queue []message
	l := look{fd: fd, typ: unix.SOCK_DGRAM}
	buf := make([]byte, 64<<10)
	err := l.option(unix.SO_PEEK_OFF, 0, func() error {
		for off := 0; ; {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off); err != nil {
				return os.NewSyscallError("setsockopt SO_PEEK_OFF", err)
			}
			m, err := recvmsg(fd, buf, controlSize, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			if err != nil {
				return os.NewSyscallError("recvmsg MSG_PEEK", err)
			}
			segment, err := segmentOf(m.control)
			if err != nil {
				return err
			}
			queue = append(queue, message{Data: bytes.Clone(buf[:m.n]), From: m.from, segment: segment})
			off += m.n
		}
	})
	if err != nil {
		return nil, err
	}
	if queue, err = p.rememberEmpty(l, ino, queue, anyQueue); err != nil {
		return nil, err
	}
	var out []datagram
	for _, m := range queue {
		out = append(out, datagram{m.Data, m.From, m.segment})
	}
	return out, nil
}

// segmentOf returns what UDP_GRO tells of a message.
func segmentOf(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, fmt.Errorf("control messages: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == udpGRO && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data)), nil
		}
	}
	return 0, nil
}

// makeDatagram makes the socket, with its address unless its queue is to be
// filled before. It is connected later: then it takes messages from its peer
// alone.
func (p *Plugin) makeDatagram(id int, s datagramSocket) error {
	fd, err := unix.Socket(s.Family, s.Type|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.keep(id, fd)
	// A raw socket counts as bound from the beginning: it takes no change.
	v6only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	if err == nil && v6only != s.Options.Values["IPV6_V6ONLY"] {
		if err := s.Options.applyFamily(fd); err != nil {
			return err
		}
	}
	if s.filledUnbound() {
		return nil
	}
	return p.bindDatagram(s, fd)
}

// bindDatagram binds to the old address. Where that is not of this host, connect(2) chooses another for a
// connected socket, as it did then.
func (p *Plugin) bindDatagram(s datagramSocket, fd int) error {
	local := addressOf(s.Local, s.Family)
	if len(s.Remote) == 0 || !p.allowMissing {
		return p.bindMissing(fd, s.Family, local, s.bind)
	}
	err := s.bind(fd)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		p.host.Log().Warn().Stringer("address", local).Msg("a connected socket has another address now: its own is not of this host")
		any := netip.AddrPortFrom(unspecified(s.Family), local.Port())
		err = unix.Bind(fd, sockaddr(s.Family, any))
	}
	return err
}

func (s datagramSocket) bind(fd int) error {
	if err := s.Options.applyBeforeBind(fd); err != nil {
		return err
	}
	if len(s.Local) > 0 {
		if err := bindRaw(fd, s.Local); err != nil {
			return fmt.Errorf("bind to %v: %w", addressOf(s.Local, s.Family), err)
		}
	}
	return nil
}

// applyBeforeBind sets what lets several sockets have one address, or one that
// is not of this host.
func (o inetOptions) applyBeforeBind(fd int) error {
	for _, opt := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if v := o.Socket.Values[opt]; v != 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, v); err != nil {
				return fmt.Errorf("setsockopt %d: %w", opt, err)
			}
		}
	}
	for _, opt := range inetOptionTable {
		switch opt.name {
		case "IP_FREEBIND", "IPV6_FREEBIND", "IP_TRANSPARENT", "IPV6_TRANSPARENT", "IP_BIND_ADDRESS_NO_PORT":
			if v := o.Values[opt.name]; v != 0 {
				if err := unix.SetsockoptInt(fd, opt.level, opt.opt, v); err != nil {
					return fmt.Errorf("setsockopt %s: %w", opt.name, err)
				}
			}
		}
	}
	return o.Socket.applyDevice(fd)
}
