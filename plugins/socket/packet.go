package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// packetSocket is a socket of AF_PACKET, packet(7).
type packetSocket struct {
	Type int `json:"type"` // SOCK_RAW or SOCK_DGRAM
	// Protocol is what it takes, as in struct sockaddr_ll, in the order of the
	// network; 0: nothing.
	Protocol uint16         `json:"protocol,omitempty"`
	Device   string         `json:"device,omitempty"` // the one interface that it is bound to
	Members  []packetMember `json:"members,omitempty"`
	Values   map[int]int    `json:"values,omitempty"` // by option of SOL_PACKET
	Options  options        `json:"options"`
}

// packetMember is PACKET_ADD_MEMBERSHIP, made Count times.
type packetMember struct {
	Interface string `json:"interface"`
	Type      uint16 `json:"type"`
	Address   []byte `json:"address,omitempty"`
	Count     uint32 `json:"count"`
}

// packetOptions of SOL_PACKET can be read and set, in this order: the size of
// PACKET_VNET_HDR_SZ is a finer PACKET_VNET_HDR.
var packetOptions = [...]int{
	unix.PACKET_COPY_THRESH, unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_VERSION, unix.PACKET_RESERVE, unix.PACKET_LOSS,
	unix.PACKET_VNET_HDR, packetVnetHdrSz, unix.PACKET_TIMESTAMP, unix.PACKET_TX_HAS_OFF, unix.PACKET_QDISC_BYPASS,
	unix.PACKET_IGNORE_OUTGOING,
}

// packetVnetHdrSz is PACKET_VNET_HDR_SZ of linux/if_packet.h.
const packetVnetHdrSz = 24

func (s packetSocket) validate() error {
	if s.Type != unix.SOCK_RAW && s.Type != unix.SOCK_DGRAM || len(s.Device) >= unix.IFNAMSIZ {
		return fmt.Errorf("packet socket of type %d on %q", s.Type, s.Device)
	}
	for opt := range s.Values {
		if !slices.Contains(packetOptions[:], opt) {
			return fmt.Errorf("packet option %d", opt)
		}
	}
	for _, m := range s.Members {
		const most = 1 << 16
		if m.Interface == "" || len(m.Interface) >= unix.IFNAMSIZ || len(m.Address) > maxLinkAddr || m.Count == 0 || m.Count > most {
			return fmt.Errorf("packet membership %+v", m)
		}
	}
	return s.Options.validate()
}

// claimPacket saves a packet socket but for what it has received: that is a
// copy, which the kernel drops too when the program is slow.
func (p *Plugin) claimPacket(f plugin.OpenFile, fd int, k kind) error {
	s := packetSocket{Type: k.kind, Values: map[int]int{}}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if err := pollReady(ready); err != nil {
		return os.NewSyscallError("poll", err)
	}
	if ready[0].Revents&unix.POLLERR != 0 {
		return errors.New("an error is pending")
	}
	name, err := socketAddress(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		return err
	}
	if len(name) < 8 {
		return fmt.Errorf("address %x", name)
	}
	s.Protocol = binary.NativeEndian.Uint16(name[2:])
	d, err := diagnosePacket(uint32(f.Stat.Ino))
	if err != nil {
		return err
	}
	if d.index < 0 {
		return errors.New("its interface is gone")
	}
	if d.index > 0 {
		if s.Device, err = interfaceName(fd, uint32(d.index)); err != nil {
			return err
		}
	}
	for _, m := range d.members {
		if m.Interface, err = interfaceName(fd, m.index); err != nil {
			return err
		}
		s.Members = append(s.Members, m.packetMember)
	}
	for _, opt := range packetOptions {
		v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, opt)
		if unsupported(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("getsockopt %d of SOL_PACKET: %w", opt, err)
		}
		s.Values[opt] = v
	}
	if s.Options, err = saveOptions(fd, k.kind); err != nil {
		return err
	}
	if ready[0].Revents&unix.POLLIN != 0 {
		p.host.Log().Info().Str("socket", f.Link).Msg("packets that were not read are not kept")
	}
	if p.state.Packet == nil {
		p.state.Packet = make(map[int]packetSocket)
	}
	p.state.Packet[f.ID] = s
	return nil
}

// makePacket makes the socket, which takes nothing before it is bound.
func (p *Plugin) makePacket(id int, s packetSocket) error {
	fd, err := unix.Socket(unix.AF_PACKET, s.Type|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.keep(id, fd)
	for _, opt := range packetOptions {
		want, saved := s.Values[opt]
		if have, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, opt); !saved || err == nil && have == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, opt, want); err != nil {
			return fmt.Errorf("setsockopt %d of SOL_PACKET to %d: %w", opt, want, err)
		}
	}
	for _, m := range s.Members {
		if err := m.join(fd); err != nil {
			return err
		}
	}
	if err := s.Options.apply(fd); err != nil {
		return err
	}
	return s.bind(fd)
}

func (s packetSocket) bind(fd int) error {
	if s.Protocol == 0 && s.Device == "" {
		return nil
	}
	index := uint32(0)
	if s.Device != "" {
		var err error
		if index, err = interfaceIndex(fd, s.Device); err != nil {
			return fmt.Errorf("interface %q: %w", s.Device, err)
		}
	}
	e := binary.NativeEndian
	address := e.AppendUint16(e.AppendUint16(nil, unix.AF_PACKET), s.Protocol)
	address = append(e.AppendUint32(address, index), make([]byte, unix.SizeofSockaddrLinklayer-8)...)
	if err := bindRaw(fd, address); err != nil {
		return fmt.Errorf("bind to interface %q: %w", s.Device, err)
	}
	return nil
}

// maxLinkAddr is MAX_ADDR_LEN of linux/netdevice.h.
const maxLinkAddr = 32

func (m packetMember) join(fd int) error {
	index, err := interfaceIndex(fd, m.Interface)
	if err != nil {
		return fmt.Errorf("interface %q: %w", m.Interface, err)
	}
	e := binary.NativeEndian // struct packet_mreq_max
	request := e.AppendUint16(e.AppendUint16(e.AppendUint32(nil, index), m.Type), uint16(len(m.Address)))
	request = append(append(request, m.Address...), make([]byte, maxLinkAddr-len(m.Address))...)
	for range m.Count {
		if err := unix.SetsockoptString(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, string(request)); err != nil {
			return fmt.Errorf("membership %d of %x on %q: %w", m.Type, m.Address, m.Interface, err)
		}
	}
	return nil
}

// Of linux/packet_diag.h; sock_diag(7).
const (
	pdiagShow = 0x1 | 0x2 | 0x4 | 0x8 // PACKET_SHOW_INFO, MCLIST, RING_CFG, FANOUT

	packetDiagInfo   = 0
	packetDiagMCList = 1
	packetDiagRxRing = 2
	packetDiagTxRing = 3
	packetDiagFanout = 4

	packetDiagMsgSize = 16
	packetDiagMember  = 12 + maxLinkAddr // struct packet_diag_mclist
)

// packetDiagnosis is what the kernel tells of a packet socket. The index is -1
// where the interface has gone.
type packetDiagnosis struct {
	index   int32
	members []indexedMember
}

type indexedMember struct {
	packetMember
	index uint32
}

// diagnosePacket asks for the packet socket with inode ino in the supervisor's
// network namespace, of all that there are.
func diagnosePacket(ino uint32) (packetDiagnosis, error) {
	const size, anyCookie = 16 + 20, ^uint32(0)
	e := binary.NativeEndian
	b := e.AppendUint32(nil, size)
	b = e.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = e.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)  // sequence number, port id
	b = append(b, unix.AF_PACKET, 0, 0, 0) // family, protocol
	b = e.AppendUint32(b, ino)
	b = e.AppendUint32(b, pdiagShow)
	b = e.AppendUint32(e.AppendUint32(b, anyCookie), anyCookie)
	raw, err := askInet(b)
	if err != nil {
		return packetDiagnosis{}, err
	}
	d, err := parsePacketDiag(raw, ino)
	if errors.Is(err, unix.ENOENT) {
		return d, errors.New("this kernel does not show what it is bound to (packet_diag)")
	}
	return d, err
}

// parsePacketDiag finds the socket of the inode.
func parsePacketDiag(raw []byte, ino uint32) (d packetDiagnosis, err error) {
	messages, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return d, err
	}
	for _, m := range messages {
		switch {
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return d, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < packetDiagMsgSize:
		case binary.NativeEndian.Uint32(m.Data[4:]) == ino:
			return d, d.parse(m.Data[packetDiagMsgSize:])
		}
	}
	return d, errors.New("the kernel does not list it (packet_diag)")
}

// parse walks the rtattrs, rtnetlink(7).
func (d *packetDiagnosis) parse(b []byte) error {
	e := binary.NativeEndian
	for len(b) >= unix.SizeofRtAttr {
		size, typ := int(e.Uint16(b)), e.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("attribute %d of %d bytes, %d are left", typ, size, len(b))
		}
		val := b[unix.SizeofRtAttr:size]
		switch typ {
		case packetDiagInfo:
			if len(val) < 4 {
				return errShortAttribute
			}
			d.index = int32(e.Uint32(val))
		case packetDiagMCList:
			for ; len(val) >= packetDiagMember; val = val[packetDiagMember:] {
				n := e.Uint16(val[10:])
				if n > maxLinkAddr {
					return fmt.Errorf("an address of %d bytes", n)
				}
				d.members = append(d.members, indexedMember{index: e.Uint32(val),
					packetMember: packetMember{Type: e.Uint16(val[8:]), Count: e.Uint32(val[4:]), Address: slices.Clone(val[12 : 12+n])}})
			}
		case packetDiagRxRing, packetDiagTxRing:
			return errors.New("it has a ring of packets (PACKET_RX_RING, PACKET_TX_RING), which is not kept yet")
		case packetDiagFanout:
			return errors.New("it is in a fanout group (PACKET_FANOUT), which is not kept yet")
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}
