package socket

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "socket",
		Summary: "UNIX sockets and TCP connections within the computation, with data in flight; listeners; netlink",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		New:     configured,
	}
}

// Plugin keeps the sockets of one agent.
type Plugin struct {
	host  plugin.Host
	state state

	// Of a checkpoint.
	pids     map[int]int             // of the tree, by host pid
	claimed  map[int]plugin.OpenFile // by ID, to name what turns out incomplete
	holders  map[int]plugin.OpenFile // in which one, by ID, is in flight
	complete bool                    // all is claimed, and was looked at

	// seen are the queues, by inode, in which there were empty messages.
	seen map[uint32][]message

	// made are the descriptors of a restart that were made together with
	// another and are not asked for yet, by ID.
	made  map[int]int
	build *build // of UNIX sockets
	// folders are those that a restart has made for names, with these, the innermost first.
	folders []string
	// privateMade are the IDs of TCP sockets that were made in a network
	// namespace of their own.
	privateMade map[int]bool

	closeOutside bool                   // keep TCP connections to outside as reset ones
	allowMissing bool                   // of the config
	procs        []plugin.Process       // of the checkpoint
	hosts        []int                  // threads of the tree's processes, by host tid
	tcp          *tcpTable              // of a checkpoint; nil until needed
	lone         []loneTCP              // of a checkpoint
	unheard      bool                   // in this checkpoint: see saveMulticastIndex
	grown        map[uint32]grownBuffer // by inode
}

// config is the plugin's configuration.
type config struct {
	TCPOutside string `json:"tcp_outside"` // refuse (the default) or close
	// AllowMissingAddress has a restart bind sockets to addresses that are not of the host.
	AllowMissingAddress bool `json:"allow_missing_address"`
}

func configured(h plugin.Host) (plugin.Plugin, error) {
	var c config
	if err := h.Config(&c); err != nil {
		return nil, err
	}
	if c.TCPOutside != "" && c.TCPOutside != "refuse" && c.TCPOutside != "close" {
		return nil, fmt.Errorf("tcp_outside %q: must be refuse or close", c.TCPOutside)
	}
	return &Plugin{host: h, seen: make(map[uint32][]message), closeOutside: c.TCPOutside == "close", allowMissing: c.AllowMissingAddress}, nil
}

// Handle begins an empty state with each checkpoint.
func (p *Plugin) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.forget()
		p.state = state{}
		p.claimed, p.holders, p.complete = make(map[int]plugin.OpenFile), make(map[int]plugin.OpenFile), false
		p.pids = make(map[int]int)
		p.procs = ev.Procs
		for _, proc := range ev.Procs {
			p.pids[proc.HostPID()] = proc.PID()
			p.hosts = append(p.hosts, livingThread(proc))
		}
	case plugin.Resume:
		p.forget()
	case plugin.Restart:
		p.closeMade()
		p.folders = nil
		if err := p.state.mapNames(p.host.MapPath); err != nil {
			return err
		}
		return p.buildUNIX(ctx, ev.Procs)
	case plugin.Running:
		p.closeMade()
		return p.restoreSignals(ctx, ev.Procs)
	case plugin.Exit:
		p.closeMade()
		p.tcp.abort()
		p.tcp = nil
		if ev.Failed {
			missing.Remove(p.folders)
		}
		p.folders = nil
	}
	return nil
}

// keep hands fd to ReopenFile.
func (p *Plugin) keep(id, fd int) {
	if p.made == nil {
		p.made = make(map[int]int)
	}
	p.made[id] = fd
}

// forget drops what is of one checkpoint only.
func (p *Plugin) forget() {
	p.pids, p.claimed, p.holders, p.hosts, p.procs, p.unheard = nil, nil, nil, nil, nil, false
	p.tcp.close()
	p.tcp, p.lone = nil, nil
}

// livingThread returns a thread that has descriptors: a leader that has exited
// has none.
func livingThread(proc plugin.Process) int {
	for _, th := range proc.Threads() {
		if names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", th.HostTID)); err == nil && len(names) > 0 {
			return th.HostTID
		}
	}
	return proc.HostPID()
}

func (p *Plugin) closeMade() {
	p.build.close()
	p.build = nil
	for _, fd := range p.made {
		unix.Close(fd)
	}
	p.made = make(map[int]int)
	p.privateMade = nil
}

// ClaimFile saves a socket.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	if f.Stat.Mode&unix.S_IFMT != unix.S_IFSOCK || f.Inherited != 0 {
		return plugin.ErrNotMine
	}
	fd, err := f.Dup()
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	defer unix.Close(fd)
	k, err := kindOf(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	err = p.claimKind(f, fd, k)
	if err == nil {
		err = p.claimSignals(f, fd)
	}
	if err != nil {
		return plugin.Refuse(f, "%s socket: %v", k, err)
	}
	p.claimed[f.ID] = f
	return nil
}

var errNotKept = errors.New("not kept yet")

// claimKind saves the socket f, of which fd is a duplicate. It returns the
// reason alone as an error.
func (p *Plugin) claimKind(f plugin.OpenFile, fd int, k kind) error {
	switch {
	case k.family == unix.AF_UNIX:
		return p.claimUNIX(f, fd, k)
	case isTCP(k):
		return p.claimTCP(f, fd)
	case isDatagram(k):
		return p.claimDatagram(f, fd, k)
	case k.family == unix.AF_NETLINK:
		return p.claimNetlink(f, fd, k)
	case k.family == unix.AF_PACKET && (k.kind == unix.SOCK_RAW || k.kind == unix.SOCK_DGRAM):
		return p.claimPacket(f, fd, k)
	}
	return errNotKept
}

// reopen makes the socket of the open file id and what can only be made with
// it, and adds them to p.made.
func (p *Plugin) reopen(id int) error {
	if s, ok := p.state.TCP[id]; ok {
		return p.makeTCP(id, s)
	}
	if s, ok := p.state.Datagrams[id]; ok {
		return p.makeDatagram(id, s)
	}
	if s, ok := p.state.Netlink[id]; ok {
		return p.makeNetlink(id, s)
	}
	if s, ok := p.state.Packet[id]; ok {
		return p.makePacket(id, s)
	}
	return errors.New("not in the image")
}

// kind is what socket(2) was called with.
type kind struct{ family, kind, protocol int }

func kindOf(fd int) (k kind, err error) {
	for _, o := range []struct {
		name  string
		opt   int
		value *int
	}{
		{"SO_DOMAIN", unix.SO_DOMAIN, &k.family},
		{"SO_TYPE", unix.SO_TYPE, &k.kind},
		{"SO_PROTOCOL", unix.SO_PROTOCOL, &k.protocol},
	} {
		if *o.value, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.opt); err != nil {
			return kind{}, fmt.Errorf("getsockopt %s: %w", o.name, err)
		}
	}
	return k, nil
}

var (
	familyNames = map[int]string{
		unix.AF_UNIX: "UNIX", unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6", unix.AF_NETLINK: "netlink",
		unix.AF_PACKET: "packet", unix.AF_ALG: "kernel crypto", unix.AF_VSOCK: "vsock",
	}
	typeNames = map[int]string{
		unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "datagram", unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_RAW: "raw",
	}
)

// String names the family and type, and the protocol where it tells more.
func (k kind) String() string {
	family, ok := familyNames[k.family]
	if !ok {
		family = fmt.Sprintf("family %d", k.family)
	}
	typ, ok := typeNames[k.kind]
	if !ok {
		typ = fmt.Sprintf("type %d", k.kind)
	}
	if k.family == unix.AF_UNIX {
		return family + " " + typ
	}
	return fmt.Sprintf("%s %s (protocol %d)", family, typ, k.protocol)
}

var (
	_ plugin.Plugin       = (*Plugin)(nil)
	_ plugin.Stater       = (*Plugin)(nil)
	_ plugin.FileClaimer  = (*Plugin)(nil)
	_ plugin.FileFiller   = (*Plugin)(nil)
	_ plugin.ProcessSaver = (*Plugin)(nil)
)
