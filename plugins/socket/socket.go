package socket

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "socket",
		Summary: "UNIX sockets: pairs and accepted connections within the computation, with data in flight; listeners",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		New: func(h plugin.Host) (plugin.Plugin, error) {
			return &Plugin{host: h, empties: make(map[uint32]bool)}, nil
		},
	}
}

// Plugin keeps the sockets of one agent.
type Plugin struct {
	host  plugin.Host
	state state

	// Of a checkpoint.
	hosts   []int                   // host pids of the tree
	inTree  map[uint32]bool         // inodes of the tree's sockets; nil until needed
	claimed map[int]plugin.OpenFile // by ID, to name what turns out incomplete

	// empties are the inodes of sockets in which an empty message was seen:
	// the kernel shows such to the first peek only.
	empties map[uint32]bool

	// made are the descriptors of a restart that were made together with
	// another and are not asked for yet, by ID.
	made map[int]int
}

// Handle begins an empty state with each checkpoint.
func (p *Plugin) Handle(_ context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.forget()
		p.state = state{}
		p.claimed = make(map[int]plugin.OpenFile)
		for _, proc := range ev.Procs {
			p.hosts = append(p.hosts, proc.HostPID())
		}
	case plugin.Resume:
		p.forget()
	case plugin.Restart, plugin.Running, plugin.Exit:
		p.closeMade()
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
func (p *Plugin) forget() { p.hosts, p.inTree, p.claimed = nil, nil, nil }

func (p *Plugin) closeMade() {
	for _, fd := range p.made {
		unix.Close(fd)
	}
	p.made = make(map[int]int)
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
	if f.Flags&unix.O_ASYNC != 0 {
		return plugin.Refuse(f, "%s socket with O_ASYNC: not kept yet", k)
	}
	if err := p.claimKind(f, fd, k); err != nil {
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
	case k.family == unix.AF_NETLINK:
		return p.claimNetlink(f, fd, k)
	}
	return errNotKept
}

// reopen makes the socket of the open file id and what can only be made with
// it, and adds them to p.made.
func (p *Plugin) reopen(id int) error {
	if s, ok := p.state.UNIX[id]; ok {
		return p.make(id, s)
	}
	if s, ok := p.state.Netlink[id]; ok {
		return p.makeNetlink(id, s)
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
	_ plugin.Plugin      = (*Plugin)(nil)
	_ plugin.Stater      = (*Plugin)(nil)
	_ plugin.FileClaimer = (*Plugin)(nil)
)
