package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// tcpEnd is one end of a connection that is made again. Where the program had
// the other end only, it is ours (id -1) and does not stay.
type tcpEnd struct {
	tcpSocket
	id, fd int
}

// tcpPair is a connection in a private network namespace, whose own is the
// first end.
type tcpPair [2]tcpEnd

// makePrivate makes all connections of the image that are in network
// namespaces of their own: as few of these as do. In the host's, the ports
// may be taken, and an ordinary user has no TCP_REPAIR.
func (p *Plugin) makePrivate() error {
	for _, pairs := range p.arrange() {
		if err := p.makePairs(pairs); err != nil {
			return err
		}
	}
	return nil
}

// arrange spreads the connections over namespaces: one that was made after a
// restart may have the addresses of one that was there before.
func (p *Plugin) arrange() (nets [][]tcpPair) {
	var used []map[tcpName]bool
	if p.privateMade == nil {
		p.privateMade = make(map[int]bool)
	}
	for _, id := range slices.Sorted(maps.Keys(p.state.TCP)) {
		s := p.state.TCP[id]
		if !s.private() || p.privateMade[id] {
			continue
		}
		pair := p.pairOf(id, s)
		p.privateMade[pair[0].id], p.privateMade[pair[1].id] = true, true
		n := slices.IndexFunc(used, func(u map[tcpName]bool) bool { return !pair.conflicts(u) })
		if n < 0 {
			n = len(used)
			used, nets = append(used, make(map[tcpName]bool)), append(nets, nil)
		}
		for _, name := range pair.names() {
			used[n][name] = true
		}
		nets[n] = append(nets[n], pair)
	}
	return nets
}

func (t tcpPair) names() (names [2]tcpName) {
	for i, e := range t {
		names[i] = tcpName{0, unmapped(e.Local), unmapped(e.Remote)}
	}
	return names
}

func (t tcpPair) conflicts(used map[tcpName]bool) bool {
	names := t.names()
	return used[names[0]] || used[names[1]]
}

// pairOf returns the socket and its other end, or one that takes its place.
func (p *Plugin) pairOf(id int, s tcpSocket) tcpPair {
	if s.Role == tcpPaired {
		peer, _ := p.state.tcpByInode(s.Peer)
		return tcpPair{{s, id, -1}, {p.state.TCP[peer], peer, -1}}
	}
	if s.Local.Addr().IsUnspecified() {
		s.Local = netip.AddrPortFrom(loopback(s.Family), s.Local.Port())
	}
	if !s.Remote.IsValid() { // of a connection that has ended nobody sees it
		s.Remote = netip.AddrPortFrom(s.Local.Addr(), uint16(id)|1<<15)
	}
	return tcpPair{{s, id, -1}, {tcpSocket{Family: s.Family, Protocol: s.Protocol, Local: s.Remote, Remote: s.Local}, -1, -1}}
}

func loopback(family int) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// makePairs makes connections in one new namespace.
func (p *Plugin) makePairs(pairs []tcpPair) error {
	var kinds []kind
	for _, pair := range pairs {
		kinds = append(kinds, pair[0].kind(), pair[1].kind())
	}
	n, err := newPrivateNet(kinds)
	if err != nil {
		return err
	}
	defer n.close()
	var ours []int // other ends that do not stay
	defer func() {
		for _, fd := range ours {
			unix.Close(fd)
		}
	}()
	for i := range pairs {
		for side := range pairs[i] {
			e := &pairs[i][side]
			e.fd = n.fds[2*i+side]
			if e.id < 0 {
				ours = append(ours, e.fd)
			} else {
				p.keep(e.id, e.fd)
			}
		}
	}
	for _, pair := range pairs {
		if err := pair.make(n); err != nil {
			return fmt.Errorf("connection from %s to %s: %w", pair[0].Local, pair[0].Remote, err)
		}
	}
	return nil
}

// make connects the ends and brings them to their state.
func (t tcpPair) make(n *privateNet) error {
	for _, e := range t {
		if err := n.addAddress(e.Local.Addr()); err != nil {
			return err
		}
	}
	if err := t.establish(); err != nil {
		return err
	}
	for i, to := range t {
		if err := t[1-i].sendRest(to); err != nil {
			return err
		}
	}
	if t[1].id < 0 {
		if err := t[0].lose(t[1].fd); err != nil {
			return err
		}
		return t[0].finish()
	}
	for i, to := range t {
		if err := t[1-i].end(to); err != nil {
			return err
		}
	}
	return errors.Join(t[0].finish(), t[1].finish())
}

// end shuts an end down. Its FIN is acknowledged before the program looks, as it was
// (FIN_WAIT2): the other end would wait up to 40 ms with that.
func (e tcpEnd) end(other tcpEnd) error {
	if err := shutdown(e.fd, e.Shutdown); err != nil || e.Shutdown&shutSend == 0 || other.Arrived < len(other.Queue) {
		return err // a FIN goes behind all that is not sent
	}
	return await(other.fd, func() (bool, error) {
		unsent, err := unix.IoctlGetInt(e.fd, unix.TIOCOUTQ)
		return unsent == 0, os.NewSyscallError("ioctl SIOCOUTQ", err)
	}, func() error { return nil })
}

// Of TCP_REPAIR, linux/tcp.h.
const (
	tcpRepairOn   = 1
	tcpRepairOff  = 0
	tcpNoQueue    = 0
	tcpRecvQueue  = 1
	tcpSendQueue  = 2
	tcpOptMSS     = 2 // TCPOPT_*, net/tcp.h
	tcpOptWindow  = 3
	tcpOptSACK    = 4
	tcpOptStamp   = 8
	repairMSS     = 65495 // of lo
	repairScale   = 10    // as of a connection that may have 64 MiB in flight
	firstSequence = 1 << 20
)

// establish makes the connection without a packet, with what had arrived in
// the queues of the receivers.
func (t tcpPair) establish() error {
	for i, e := range t {
		other := t[1-i]
		if err := e.repair(firstSequence, firstSequence+uint32(other.inQueue())); err != nil {
			return err
		}
	}
	for _, e := range t {
		if err := e.fill(); err != nil {
			return err
		}
	}
	if err := t.openWindows(); err != nil {
		return err
	}
	for _, e := range t {
		if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOff); err != nil {
			return os.NewSyscallError("setsockopt TCP_REPAIR", err)
		}
	}
	return nil
}

// openWindows lets each sender know what room its receiver has left. It would
// not learn it from a probe: those lie before what arrived, where the receiver
// takes them for old news.
func (t tcpPair) openWindows() error {
	var windows [2]repairWindow
	for i, e := range t {
		w, err := getRepairWindow(e.fd)
		if err != nil {
			return err
		}
		received := firstSequence + uint32(e.inQueue())
		w.rcvWnd = uint32(max(0, int(w.rcvWnd)-e.inQueue()))
		w.rcvWup, w.sndWl1 = received, received
		windows[i] = w
	}
	for i, e := range t {
		w := windows[i]
		w.sndWnd = windows[1-i].rcvWnd
		w.maxWindow = max(w.maxWindow, w.sndWnd)
		if err := w.set(e.fd); err != nil {
			return err
		}
	}
	return nil
}

// repairWindow is tcp_repair_window of linux/tcp.h.
type repairWindow struct{ sndWl1, sndWnd, maxWindow, rcvWnd, rcvWup uint32 }

func getRepairWindow(fd int) (w repairWindow, err error) {
	raw, err := getBytes(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW)
	if err == nil && len(raw) != 20 {
		err = unix.EINVAL
	}
	if err != nil {
		return w, os.NewSyscallError("getsockopt TCP_REPAIR_WINDOW", err)
	}
	for i, field := range []*uint32{&w.sndWl1, &w.sndWnd, &w.maxWindow, &w.rcvWnd, &w.rcvWup} {
		*field = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return w, nil
}

func (w repairWindow) set(fd int) error {
	var raw []byte
	for _, field := range []uint32{w.sndWl1, w.sndWnd, w.maxWindow, w.rcvWnd, w.rcvWup} {
		raw = binary.NativeEndian.AppendUint32(raw, field)
	}
	return os.NewSyscallError("setsockopt TCP_REPAIR_WINDOW", unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, string(raw)))
}

// inQueue is how much of the queue is put there directly: an urgent byte has
// to be sent.
func (s tcpSocket) inQueue() int {
	if s.Urgent != nil {
		return min(s.Arrived, s.Urgent.At)
	}
	return s.Arrived
}

// repair makes a connected socket whose streams stand at the sequence numbers.
func (e tcpEnd) repair(received, sent uint32) error {
	if err := e.Options.applyFamily(e.fd); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOn); err != nil {
		return os.NewSyscallError("setsockopt TCP_REPAIR", err)
	}
	for queue, sequence := range map[int]uint32{tcpRecvQueue: received, tcpSendQueue: sent} {
		if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
			return os.NewSyscallError("setsockopt TCP_REPAIR_QUEUE", err)
		}
		if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(sequence)); err != nil {
			return os.NewSyscallError("setsockopt TCP_QUEUE_SEQ", err)
		}
	}
	local := e.Local
	if e.Family == unix.AF_INET6 && e.Options.Values["IPV6_V6ONLY"] == 0 && local.Addr() == e.Remote.Addr() {
		// bind(2) to an address would set IPV6_V6ONLY. connect(2) finds it.
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
	}
	if err := bindPrivate(e.fd, sockaddr(e.Family, local)); err != nil {
		return fmt.Errorf("bind to %s: %w", e.Local, err)
	}
	if err := unix.Connect(e.fd, sockaddr(e.Family, e.Remote)); err != nil {
		return fmt.Errorf("connect to %s: %w", e.Remote, err)
	}
	var options []byte
	for _, o := range [][2]uint32{{tcpOptMSS, repairMSS}, {tcpOptWindow, repairScale | repairScale<<16}, {tcpOptSACK, 0}, {tcpOptStamp, 0}} {
		options = binary.NativeEndian.AppendUint32(options, o[0])
		options = binary.NativeEndian.AppendUint32(options, o[1])
	}
	return os.NewSyscallError("setsockopt TCP_REPAIR_OPTIONS",
		unix.SetsockoptString(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(options)))
}

// lose ends the connection from the other side.
func (e tcpEnd) lose(other int) error {
	reset := e.Role == tcpOutside || e.Reset
	event := int16(unix.POLLRDHUP)
	if reset {
		event = unix.POLLERR
		if err := unix.SetsockoptLinger(other, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return os.NewSyscallError("setsockopt SO_LINGER", err)
		}
		if err := shutdown(e.fd, e.Shutdown); err != nil {
			return err
		}
	}
	if err := abandon(other); err != nil {
		return err
	}
	if err := awaitEvent(e.fd, event); err != nil {
		return fmt.Errorf("the end of the connection: %w", err)
	}
	if reset {
		return nil
	}
	if e.Role == tcpDead {
		if err := shutdown(e.fd, shutSend); err != nil {
			return err
		}
		return awaitEvent(e.fd, unix.POLLHUP)
	}
	return shutdown(e.fd, e.Shutdown)
}

// abandon closes the socket behind fd, whose number stays the caller's: a new
// socket takes its place.
func abandon(fd int) error {
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(other)
	return os.NewSyscallError("dup3", unix.Dup3(other, fd, unix.O_CLOEXEC))
}

// finish sets the options, of which leaving the repair has changed one.
func (e tcpEnd) finish() error { return e.Options.apply(e.fd) }
