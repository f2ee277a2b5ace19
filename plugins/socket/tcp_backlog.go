package socket

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// errClientClosed: what such a connection has brought only accept(2) shows.
const errClientClosed = plugin.Passing("a connection waits to be accepted whose client was closed")

// SaveProcess looks at what needs all claims, when it is called first.
func (p *Plugin) SaveProcess(context.Context, plugin.Process) error {
	if p.complete {
		return nil
	}
	p.complete = true
	if err := p.keepLone(); err != nil {
		return err
	}
	if err := p.refuseClosedClients(); err != nil {
		return err
	}
	return p.dateClients()
}

// RestoreProcess has nothing to restore.
func (p *Plugin) RestoreProcess(context.Context, plugin.Process) error { return nil }

// refuseClosedClients looks for connections that no listener has accepted yet,
// and whose client was closed: what that has sent would be lost with it. Clients
// from outside that are still there, or of other hosts, are not kept.
func (p *Plugin) refuseClosedClients() error {
	ports := make(map[uint16][]int)
	for _, id := range slices.Sorted(maps.Keys(p.state.TCP)) {
		if s := p.state.TCP[id]; s.Role == tcpListener {
			ports[s.Local.Port()] = append(ports[s.Local.Port()], id)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if err := p.checkClients(port, ports[port]); err != nil {
			return plugin.Refuse(p.claimed[ports[port][0]], "%v", err)
		}
	}
	return nil
}

// checkClients is for all listeners of a port: which of several has a
// connection the kernel does not show.
func (p *Plugin) checkClients(port uint16, listeners []int) error {
	waiting, err := p.waiting(listeners)
	if err != nil || waiting == 0 {
		return err
	}
	kept := p.keptClients(port)
	connections, err := p.unaccepted(port, listeners)
	if err != nil {
		return err
	}
	for _, c := range connections {
		if kept[c.client()] {
			continue
		}
		outside, err := c.clientOutside()
		if err != nil {
			return err
		}
		if !outside {
			return fmt.Errorf("%w (%s)", errClientClosed, c.remote)
		}
		p.host.Log().Info().Stringer("listener", c.local).Stringer("client", c.remote).
			Msg("a client from outside waits to be accepted: it is not kept")
	}
	if len(connections) < waiting { // a connection that was reset is not listed
		return errClientClosed
	}
	return nil
}

// waiting is how many connections the listeners have not accepted, tcp_info of
// linux/tcp.h.
func (p *Plugin) waiting(listeners []int) (n int, err error) {
	for _, id := range listeners {
		e := p.tcp.byInode[p.state.TCP[id].Ino]
		info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("getsockopt TCP_INFO: %w", err)
		}
		n += int(info.Unacked)
	}
	return n, nil
}

// keptClients are those of the computation that wait at a port.
func (p *Plugin) keptClients(port uint16) map[tcpName]bool {
	kept := make(map[tcpName]bool)
	for _, s := range p.state.TCP {
		if s.Role == tcpWaiting && s.Remote.Port() == port {
			kept[tcpName{0, unmapped(s.Local), unmapped(s.Remote)}] = true
		}
	}
	return kept
}

// unaccepted lists the connections that wait at the listeners of a port: no
// process has them, and they are not closed.
func (p *Plugin) unaccepted(port uint16, listeners []int) (all []inetDiagnosis, err error) {
	var families []int
	for _, id := range listeners {
		families = append(families, p.state.TCP[id].Family)
	}
	slices.Sort(families)
	for _, family := range slices.Compact(families) {
		found, err := listTCP(family, port, 1<<tcpEstablished|1<<tcpCloseWait)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if d.inode == 0 && p.tcp.listenerOf(p.tcp.own, d.local) != nil {
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// client names the other end of an accepted connection.
func (d inetDiagnosis) client() tcpName { return tcpName{0, unmapped(d.remote), unmapped(d.local)} }

// clientOutside says that the client, which is not kept, is still open, or of
// another host.
func (d inetDiagnosis) clientOutside() (bool, error) {
	client, found, err := findTCP(d.remote, d.local)
	if err != nil || found {
		return client.inode != 0, err
	}
	own, err := ownAddress(d.remote.Addr())
	return !own, err
}

// listTCP lists the sockets of a family and a port that are in one of the
// states.
func listTCP(family int, port uint16, states uint32) ([]inetDiagnosis, error) {
	any := netip.AddrPortFrom(unspecified(family), 0)
	raw, err := askInet(inetDiagRequest(netip.AddrPortFrom(any.Addr(), port), any, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, states))
	if err != nil {
		return nil, err
	}
	all, err := parseInetDiag(raw)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	return all, nil
}
