package socket

import (
	"bytes"
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
	Local  []byte      `json:"local,omitempty"`
	Remote []byte      `json:"remote,omitempty"`
	Groups []group4or6 `json:"groups,omitempty"` // multicast
	Queue  []datagram  `json:"queue,omitempty"`

	Levels  []levelOption `json:"levels,omitempty"` // of the protocol
	Options inetOptions   `json:"options"`
}

// datagram is one message, and the sockaddr of its sender.
type datagram struct {
	Data []byte `json:"data,omitempty"`
	From []byte `json:"from"`
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
			{Level: unix.IPPROTO_UDP, Opt: udpSegment}, {Level: unix.IPPROTO_UDP, Opt: udpGRO}, {Level: unix.IPPROTO_UDP, Opt: udpCork}}
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
	addresses := [][]byte{s.Local, s.Remote}
	for _, m := range s.Queue {
		addresses = append(addresses, m.From)
	}
	for _, a := range addresses {
		if len(a) > 0 && !addressOf(a, s.Family).IsValid() {
			return fmt.Errorf("address %x", a)
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

func (p *Plugin) claimDatagram(f plugin.OpenFile, fd int, k kind) (err error) {
	s := datagramSocket{Family: k.family, Type: k.kind, Protocol: k.protocol}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(ready, 0); err != nil {
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
	if s.Options, err = saveInetOptions(fd, k, len(s.Remote) == 0); err != nil {
		return err
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
			queue = append(queue, message{Data: bytes.Clone(buf[:m.n]), From: m.from})
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
		out = append(out, datagram{m.Data, m.From})
	}
	return out, nil
}

// makeDatagram makes the socket with its address. It is connected later: then
// it takes messages from its peer alone.
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

// fillDatagrams fills the queues, and then brings the sockets to their state.
func (p *Plugin) fillDatagrams(ctx context.Context, fds map[int]int) error {
	ids := slices.Sorted(maps.Keys(p.state.Datagrams))
	for _, id := range ids {
		if _, ok := fds[id]; !ok {
			return fmt.Errorf("open file %d: a socket that nothing has open", id)
		}
		err := withReceiveRoom(fds[id], func() error { return p.fillDatagram(ctx, id, fds) })
		if err != nil {
			return fmt.Errorf("open file %d: %s socket: %w", id, p.state.Datagrams[id].kind(), err)
		}
	}
	for _, id := range ids {
		if err := p.state.Datagrams[id].finish(fds[id]); err != nil {
			return fmt.Errorf("open file %d: %s socket: %w", id, p.state.Datagrams[id].kind(), err)
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
	return nil
}

func (p *Plugin) fillDatagram(ctx context.Context, id int, fds map[int]int) error {
	s := p.state.Datagrams[id]
	for _, m := range s.Queue {
		had, err := receiveMemory(fds[id])
		if err != nil {
			return err
		}
		from, temporary, err := p.senderAt(m.From, s.kind(), fds)
		if err != nil {
			// As it would be of a datagram that the network has lost.
			p.host.Log().Warn().Err(err).Stringer("from", addressOf(m.From, s.Family)).Msg("a datagram that was not read is not kept")
			continue
		}
		to := s.Local
		if addressOf(to, s.Family).Addr().IsUnspecified() {
			to = withAddress(s.Local, m.From)
		}
		_, err = sendmsg(from, m.Data, nil, to, unix.MSG_DONTWAIT)
		if temporary {
			unix.Close(from)
		}
		if err == nil {
			err = awaitDatagram(ctx, fds[id], had)
		}
		if err != nil {
			return fmt.Errorf("a queued datagram from %v: %w", addressOf(m.From, s.Family), err)
		}
	}
	return nil
}

// senderAt returns a socket with the address from: one of the image, or a new
// one.
func (p *Plugin) senderAt(from []byte, k kind, fds map[int]int) (fd int, temporary bool, err error) {
	want := addressOf(from, k.family)
	for id, s := range p.state.Datagrams {
		have := addressOf(s.Local, s.Family)
		if s.kind() == k && have.Port() == want.Port() && (have.Addr() == want.Addr() || have.Addr().IsUnspecified()) {
			return fds[id], false, nil
		}
	}
	if fd, err = unix.Socket(k.family, k.kind|unix.SOCK_CLOEXEC, k.protocol); err != nil {
		return -1, false, os.NewSyscallError("socket", err)
	}
	if err := bindRaw(fd, from); err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, true, nil
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
