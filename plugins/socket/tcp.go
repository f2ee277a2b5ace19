package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// tcpEntry is one TCP socket of the stopped tree.
type tcpEntry struct {
	fd            int // a duplicate
	ino           uint32
	kind          kind
	net           uint64 // netCookie
	state         uint8
	events        int16          // of poll(2), before anything was moved
	local, remote netip.AddrPort // remote is not valid where it is not connected

	role     tcpRole
	incoming *incoming // what is on its way to it, once that was read
}

// tcpTable has all TCP sockets of the tree: to tell whether the other end of
// a connection is in it, and to read both at once. It keeps its duplicates
// until the program runs on or has been ended.
type tcpTable struct {
	byInode map[uint32]*tcpEntry
	byName  map[tcpName]*tcpEntry
	own     uint64 // netCookie of the supervisor
	failed  error  // why it is not complete
}

// tcpName is what makes a connection unique.
type tcpName struct {
	net           uint64
	local, remote netip.AddrPort
}

func (e *tcpEntry) name() tcpName { return tcpName{e.net, unmapped(e.local), unmapped(e.remote)} }

// tcpSockets returns the table, which the first TCP socket that is claimed
// makes.
func (p *Plugin) tcpSockets() (*tcpTable, error) {
	if p.tcp != nil {
		return p.tcp, p.tcp.failed
	}
	t := &tcpTable{byInode: make(map[uint32]*tcpEntry), byName: make(map[tcpName]*tcpEntry)}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	t.own, err = netCookie(fd)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	p.tcp = t
	for _, host := range p.hosts {
		if t.failed = t.addProcess(host); t.failed != nil {
			break
		}
	}
	return t, t.failed
}

// addProcess adds the sockets of the process that no other had.
func (t *tcpTable) addProcess(host int) error {
	for _, s := range socketsOf(host) {
		if _, done := t.byInode[s.ino]; done {
			continue
		}
		fd, err := linux.DupFrom(host, s.fd)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
			continue
		}
		if err != nil {
			return err
		}
		e, err := newTCPEntry(fd, s.ino)
		if err != nil {
			unix.Close(fd)
			return err
		}
		if e == nil {
			unix.Close(fd)
			t.byInode[s.ino] = nil
			continue
		}
		t.byInode[s.ino] = e
		if e.remote.IsValid() {
			t.byName[e.name()] = e
		}
	}
	return nil
}

// find returns the entry of the socket that fd is a duplicate of. One that no
// process has open, as it is in flight in another, comes to the table now.
func (t *tcpTable) find(ino uint32, fd int) (*tcpEntry, error) {
	if e := t.byInode[ino]; e != nil {
		return e, nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	e, err := newTCPEntry(dup, ino)
	if err != nil {
		unix.Close(dup)
		return nil, err
	}
	t.byInode[ino] = e
	if e.remote.IsValid() {
		t.byName[e.name()] = e
	}
	return e, nil
}

// newTCPEntry returns nil for a socket that is not of TCP.
func newTCPEntry(fd int, ino uint32) (*tcpEntry, error) {
	k, err := kindOf(fd)
	if err != nil || !isTCP(k) {
		return nil, err
	}
	e := &tcpEntry{fd: fd, ino: ino, kind: k}
	if e.net, err = netCookie(fd); err != nil {
		return nil, err
	}
	if e.state, err = tcpState(fd); err != nil {
		return nil, err
	}
	if e.events, err = pollNow(fd); err != nil {
		return nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	if e.local, err = addrPort(sa); err != nil {
		return nil, err
	}
	sa, err = unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return e, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("getpeername", err)
	}
	e.remote, err = addrPort(sa)
	return e, err
}

// tcpState returns the state of tcp_info; a socket of MPTCP shows that of its
// first subflow.
func tcpState(fd int) (uint8, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	return info.State, nil
}

// peer returns the other end of a connection, or nil.
func (t *tcpTable) peer(e *tcpEntry) *tcpEntry {
	return t.byName[tcpName{e.net, unmapped(e.remote), unmapped(e.local)}]
}

// listenerOf returns the listening socket that has taken the connection to
// addr, or nil. The most special address goes first.
func (t *tcpTable) listenerOf(net uint64, addr netip.AddrPort) *tcpEntry {
	var best *tcpEntry
	for _, e := range t.byInode {
		if e == nil || e.state != tcpListen || e.net != net || e.local.Port() != addr.Port() {
			continue
		}
		if unmapped(e.local) == unmapped(addr) {
			return e
		}
		if e.local.Addr().IsUnspecified() && (best == nil || e.kind.family == familyOf(addr.Addr().Unmap())) {
			best = e
		}
	}
	return best
}

func (t *tcpTable) close() {
	if t == nil {
		return
	}
	for _, e := range t.byInode {
		if e != nil {
			unix.Close(e.fd)
		}
	}
}

// abort is for a tree that was ended. A connection that ends with a reset
// leaves nothing behind that would keep its port from being bound again
// (TIME_WAIT, tcp(7)). Those of the host whose other end is outside end as
// they would without us.
func (t *tcpTable) abort() {
	if t == nil {
		return
	}
	for _, e := range t.byInode {
		if e != nil && e.net == t.own && (e.role == tcpPaired || e.role == tcpGone || e.role == tcpWaiting) {
			_ = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	}
	t.close()
}

// claimTCP saves a TCP socket. It returns the reason alone as an error.
func (p *Plugin) claimTCP(f plugin.OpenFile, fd int) error {
	t, err := p.tcpSockets()
	if err != nil {
		return err
	}
	e, err := t.find(uint32(f.Stat.Ino), fd)
	if err != nil {
		return err
	}
	if e.remote.IsValid() && t.peer(e) == nil {
		p.lone = append(p.lone, loneTCP{f, e})
		return nil
	}
	return p.keepTCP(t, f, e)
}

func (p *Plugin) keepTCP(t *tcpTable, f plugin.OpenFile, e *tcpEntry) error {
	s, err := p.saveTCP(t, e)
	if err != nil {
		return err
	}
	if p.state.TCP == nil {
		p.state.TCP = make(map[int]tcpSocket)
	}
	p.state.TCP[f.ID] = s
	return nil
}

// loneTCP is a claimed connection whose other end was not known yet. It may be
// in flight in a socket that is claimed later.
type loneTCP struct {
	file  plugin.OpenFile
	entry *tcpEntry
}

// keepLone saves the lone connections when all is claimed.
func (p *Plugin) keepLone() error {
	var errs []error
	for _, l := range p.lone {
		if err := p.keepTCP(p.tcp, l.file, l.entry); err != nil {
			errs = append(errs, p.refuseIn(l.file, "%s socket: %v", l.entry.kind, err))
		}
	}
	return errors.Join(errs...)
}

// refuseIn refuses f; where it is in flight, by the descriptor of what holds it.
func (p *Plugin) refuseIn(f plugin.OpenFile, format string, args ...any) error {
	in := f
	for held := true; held && len(in.Refs) == 0; {
		if in, held = p.holders[in.ID]; held {
			f.Refs, f.Link = in.Refs, f.Link+" (in "+in.Link+")"
		}
	}
	return plugin.Refuse(f, format, args...)
}

// tcpByInode returns the ID of the TCP socket that had the inode.
func (s *state) tcpByInode(ino uint32) (id int, ok bool) {
	for id, t := range s.TCP {
		if t.Ino == ino {
			return id, true
		}
	}
	return 0, false
}

// incompleteTCP returns the first socket found that was saved as one end of
// a pair whose other end was not claimed.
func (s *state) incompleteTCP() (id int, err error) {
	byInode := make(map[uint32]tcpSocket, len(s.TCP))
	ids := make([]int, 0, len(s.TCP))
	for id, t := range s.TCP {
		byInode[t.Ino] = t
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := s.TCP[id].fits(byInode); err != nil {
			return id, err
		}
	}
	return 0, nil
}

// openSocket is a descriptor of a process that is a socket.
type openSocket struct {
	fd  int
	ino uint32
}

// socketsOf lists the sockets that a process has open, which are in the links
// of proc_pid_fd(5): "socket:[4711]".
func socketsOf(host int) []openSocket {
	dir := fmt.Sprintf("/proc/%d/fd", host)
	d, err := os.Open(dir)
	if err != nil {
		return nil // it has ended
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var all []openSocket
	for _, name := range names {
		link, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		s, isSocket := strings.CutPrefix(link, "socket:[")
		ino, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
		if !isSocket || err != nil {
			continue
		}
		if fd, err := strconv.Atoi(name); err == nil {
			all = append(all, openSocket{fd, uint32(ino)})
		}
	}
	return all
}
