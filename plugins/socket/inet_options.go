package socket

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Options that x/sys does not name; linux/tcp.h, linux/in.h, linux/in6.h.
const (
	tcpRTOMaxMS    = 44
	tcpRTOMinUS    = 45
	tcpDelackMaxUS = 46

	ipRecvErrRFC4884 = 26
	ipLocalPortRange = 51

	ipv6RecvErrRFC4884 = 31
	ipv6FlowInfo       = 11
	ipv6FlowInfoSend   = 33
	ipv6MinHopCount    = 73

	// Of RFC 2292, beside those of RFC 3542 that came after it.
	ipv6OldPktInfo  = 2
	ipv6OldHopOpts  = 3
	ipv6OldDstOpts  = 4
	ipv6OldRtHdr    = 5
	ipv6OldHopLimit = 8

	icmp6Filter = 1 // linux/icmpv6.h
)

// inetOption is an option with a number as value.
type inetOption struct {
	name       string
	level, opt int
	scope      optionScope
}

// optionScope says of which sockets an option is kept.
type optionScope uint8

const (
	ofAll       optionScope = iota
	ofFresh                 // once connected it reads as what the kernel makes of it
	ofDatagrams             // a stream has it, and no use for it
	beforeBind              // set by applyFamily
)

// inetOptionTable has the options that can be both read and set, of tcp(7),
// ip(7) and ipv6(7).
var inetOptionTable = [...]inetOption{
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, ofAll},
	{"TCP_MAXSEG", unix.IPPROTO_TCP, unix.TCP_MAXSEG, ofFresh},
	{"TCP_CORK", unix.IPPROTO_TCP, unix.TCP_CORK, ofAll},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, ofAll},
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, ofAll},
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, ofAll},
	{"TCP_SYNCNT", unix.IPPROTO_TCP, unix.TCP_SYNCNT, ofAll},
	{"TCP_LINGER2", unix.IPPROTO_TCP, unix.TCP_LINGER2, ofAll},
	{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, ofAll},
	{"TCP_WINDOW_CLAMP", unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, ofFresh},
	{"TCP_THIN_LINEAR_TIMEOUTS", unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, ofAll},
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ofAll},
	{"TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, ofFresh},
	{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, ofAll},
	{"TCP_SAVE_SYN", unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, ofFresh},
	{"TCP_FASTOPEN_CONNECT", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, ofFresh},
	{"TCP_FASTOPEN_NO_COOKIE", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, ofFresh},
	{"TCP_INQ", unix.IPPROTO_TCP, unix.TCP_INQ, ofAll},
	{"TCP_TX_DELAY", unix.IPPROTO_TCP, unix.TCP_TX_DELAY, ofAll},
	{"TCP_RTO_MAX_MS", unix.IPPROTO_TCP, tcpRTOMaxMS, ofAll},
	{"TCP_RTO_MIN_US", unix.IPPROTO_TCP, tcpRTOMinUS, ofAll},
	{"TCP_DELACK_MAX_US", unix.IPPROTO_TCP, tcpDelackMaxUS, ofAll},

	{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, ofAll},
	{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, ofAll},
	{"IP_RECVOPTS", unix.IPPROTO_IP, unix.IP_RECVOPTS, ofAll},
	{"IP_RETOPTS", unix.IPPROTO_IP, unix.IP_RETOPTS, ofAll},
	{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, ofAll},
	{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, ofAll},
	{"IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR, ofAll},
	{"IP_RECVTTL", unix.IPPROTO_IP, unix.IP_RECVTTL, ofAll},
	{"IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, ofAll},
	{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, ofAll},
	{"IP_PASSSEC", unix.IPPROTO_IP, unix.IP_PASSSEC, ofAll},
	{"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, ofAll},
	{"IP_RECVORIGDSTADDR", unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, ofAll},
	{"IP_MINTTL", unix.IPPROTO_IP, unix.IP_MINTTL, ofAll},
	{"IP_CHECKSUM", unix.IPPROTO_IP, unix.IP_CHECKSUM, ofAll},
	{"IP_BIND_ADDRESS_NO_PORT", unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, ofAll},
	{"IP_RECVFRAGSIZE", unix.IPPROTO_IP, unix.IP_RECVFRAGSIZE, ofAll},
	{"IP_RECVERR_RFC4884", unix.IPPROTO_IP, ipRecvErrRFC4884, ofAll},
	{"IP_MULTICAST_TTL", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, ofDatagrams},
	{"IP_MULTICAST_LOOP", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, ofDatagrams},
	{"IP_MULTICAST_ALL", unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, ofDatagrams},
	{"IP_NODEFRAG", unix.IPPROTO_IP, unix.IP_NODEFRAG, ofDatagrams},
	{"IP_LOCAL_PORT_RANGE", unix.IPPROTO_IP, ipLocalPortRange, ofAll},

	{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, beforeBind},
	{"IPV6_HDRINCL", unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, ofDatagrams},
	{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ofAll},
	{"IPV6_MULTICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, ofDatagrams},
	{"IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, ofDatagrams},
	{"IPV6_MULTICAST_ALL", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, ofDatagrams},
	{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, ofAll},
	{"IPV6_RECVERR", unix.IPPROTO_IPV6, unix.IPV6_RECVERR, ofAll},
	{"IPV6_RECVERR_RFC4884", unix.IPPROTO_IPV6, ipv6RecvErrRFC4884, ofAll},
	{"IPV6_FLOWINFO", unix.IPPROTO_IPV6, ipv6FlowInfo, ofAll},
	{"IPV6_FLOWINFO_SEND", unix.IPPROTO_IPV6, ipv6FlowInfoSend, ofAll},
	{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, ofAll},
	{"IPV6_RECVHOPLIMIT", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, ofAll},
	{"IPV6_RECVHOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPOPTS, ofAll},
	{"IPV6_RECVRTHDR", unix.IPPROTO_IPV6, unix.IPV6_RECVRTHDR, ofAll},
	{"IPV6_RECVDSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_RECVDSTOPTS, ofAll},
	{"IPV6_2292PKTINFO", unix.IPPROTO_IPV6, ipv6OldPktInfo, ofAll},
	{"IPV6_2292HOPOPTS", unix.IPPROTO_IPV6, ipv6OldHopOpts, ofAll},
	{"IPV6_2292DSTOPTS", unix.IPPROTO_IPV6, ipv6OldDstOpts, ofAll},
	{"IPV6_2292RTHDR", unix.IPPROTO_IPV6, ipv6OldRtHdr, ofAll},
	{"IPV6_2292HOPLIMIT", unix.IPPROTO_IPV6, ipv6OldHopLimit, ofAll},
	{"IPV6_RECVPATHMTU", unix.IPPROTO_IPV6, unix.IPV6_RECVPATHMTU, ofAll},
	{"IPV6_RECVTCLASS", unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, ofAll},
	{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, ofAll},
	{"IPV6_DONTFRAG", unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, ofAll},
	{"IPV6_AUTOFLOWLABEL", unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL, ofAll},
	{"IPV6_ADDR_PREFERENCES", unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES, ofAll},
	{"IPV6_MINHOPCOUNT", unix.IPPROTO_IPV6, ipv6MinHopCount, ofAll},
	{"IPV6_RECVORIGDSTADDR", unix.IPPROTO_IPV6, unix.IPV6_ORIGDSTADDR, ofAll},
	{"IPV6_TRANSPARENT", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, ofAll},
	{"IPV6_RECVFRAGSIZE", unix.IPPROTO_IPV6, unix.IPV6_RECVFRAGSIZE, ofAll},
	{"IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, ofAll},
}

// inetBytesTable has the options with bytes as value: those of the IP header,
// and those whose value is an address or a set.
var inetBytesTable = [...]inetOption{
	{"IP_OPTIONS", unix.IPPROTO_IP, unix.IP_OPTIONS, ofAll},
	{"IPV6_HOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, ofAll},
	{"IPV6_RTHDRDSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_RTHDRDSTOPTS, ofAll},
	{"IPV6_RTHDR", unix.IPPROTO_IPV6, unix.IPV6_RTHDR, ofAll},
	{"IPV6_DSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, ofAll},
	{"IP_MULTICAST_IF", unix.IPPROTO_IP, unix.IP_MULTICAST_IF, ofDatagrams},
	{"ICMP6_FILTER", unix.IPPROTO_ICMPV6, icmp6Filter, ofDatagrams},
}

// inetOptions are of a socket of IPv4 or IPv6, by the names of the options.
type inetOptions struct {
	Socket     options           `json:"socket"`
	Values     map[string]int    `json:"values,omitempty"`
	Bytes      map[string][]byte `json:"bytes,omitempty"`
	Interfaces map[string]string `json:"interfaces,omitempty"` // names
	Congestion string            `json:"congestion,omitempty"` // TCP_CONGESTION
}

// saveInetOptions reads all options. fresh says that the socket is neither
// connected nor has been.
func saveInetOptions(fd int, k kind, fresh bool) (o inetOptions, err error) {
	if o.Socket, err = saveOptions(fd, k.kind); err != nil {
		return inetOptions{}, err
	}
	o.Values = make(map[string]int)
	for _, opt := range inetOptionTable {
		if opt.scope == ofFresh && !fresh || opt.scope == ofDatagrams && k.kind == unix.SOCK_STREAM {
			continue
		}
		if opt.level == unix.IPPROTO_IPV6 && k.family != unix.AF_INET6 {
			continue // MPTCP shows some of these
		}
		v, err := unix.GetsockoptInt(fd, opt.level, opt.opt)
		if unsupported(err) {
			continue
		}
		if err != nil {
			return inetOptions{}, fmt.Errorf("getsockopt %s: %w", opt.name, err)
		}
		o.Values[opt.name] = v
	}
	for _, opt := range inetBytesTable {
		if opt.scope == ofDatagrams && k.kind == unix.SOCK_STREAM {
			continue
		}
		v, err := getBytes(fd, opt.level, opt.opt)
		if err != nil && !unsupported(err) {
			return inetOptions{}, fmt.Errorf("getsockopt %s: %w", opt.name, err)
		}
		if len(v) > 0 {
			if o.Bytes == nil {
				o.Bytes = make(map[string][]byte)
			}
			o.Bytes[opt.name] = v
		}
	}
	if err := o.saveInterfaces(fd, k); err != nil {
		return inetOptions{}, err
	}
	if isTCP(k) {
		o.Congestion, err = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil && !unsupported(err) {
			return inetOptions{}, os.NewSyscallError("getsockopt TCP_CONGESTION", err)
		}
	}
	return o, nil
}

// apply sets what differs from what fd has.
func (o inetOptions) apply(fd int) error {
	for _, opt := range inetOptionTable {
		want, saved := o.Values[opt.name]
		if !saved || opt.scope == beforeBind {
			continue
		}
		if have, err := unix.GetsockoptInt(fd, opt.level, opt.opt); err == nil && have == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, opt.level, opt.opt, want); err != nil {
			return fmt.Errorf("setsockopt %s to %d: %w", opt.name, want, err)
		}
	}
	for _, opt := range inetBytesTable {
		if v := o.Bytes[opt.name]; len(v) > 0 {
			if err := unix.SetsockoptString(fd, opt.level, opt.opt, string(v)); err != nil {
				return fmt.Errorf("setsockopt %s to %x: %w", opt.name, v, err)
			}
		}
	}
	if err := o.applyInterfaces(fd); err != nil {
		return err
	}
	if o.Congestion != "" {
		have, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil || have != o.Congestion {
			if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, o.Congestion); err != nil {
				return fmt.Errorf("setsockopt TCP_CONGESTION to %q: %w", o.Congestion, err)
			}
		}
	}
	return o.Socket.apply(fd)
}

// applyFamily sets what bind(2) and connect(2) must find.
func (o inetOptions) applyFamily(fd int) error {
	v, saved := o.Values["IPV6_V6ONLY"]
	if !saved {
		return nil
	}
	return os.NewSyscallError("setsockopt IPV6_V6ONLY", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v))
}

// maxOptionBytes is more than the kernel takes of any.
const maxOptionBytes = 4 << 10

func (o inetOptions) validate() error {
	for name := range o.Values {
		if !inTable(inetOptionTable[:], name) {
			return fmt.Errorf("option %q", name)
		}
	}
	for name, v := range o.Bytes {
		if !inTable(inetBytesTable[:], name) || len(v) > maxOptionBytes {
			return fmt.Errorf("option %q of %d bytes", name, len(v))
		}
	}
	if err := o.validateInterfaces(); err != nil {
		return err
	}
	if len(o.Congestion) >= 16 { // TCP_CA_NAME_MAX
		return fmt.Errorf("congestion control %q", o.Congestion)
	}
	return o.Socket.validate()
}

func inTable(table []inetOption, name string) bool {
	for _, opt := range table {
		if opt.name == name {
			return true
		}
	}
	return false
}

func isTCP(k kind) bool {
	return (k.family == unix.AF_INET || k.family == unix.AF_INET6) && k.kind == unix.SOCK_STREAM &&
		(k.protocol == unix.IPPROTO_TCP || k.protocol == unix.IPPROTO_MPTCP)
}
