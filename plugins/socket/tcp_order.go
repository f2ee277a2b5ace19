package socket

import (
	"cmp"
	"maps"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// The kernel does not show in which order connections wait at a listener, but
// when each was made, by the tick of its clock. Within a tick there are the
// inodes: each processor takes them from a batch of its own (get_next_ino of
// fs/inode.c), in which they rise.

// dateClients notes when the connections were made that wait to be accepted.
func (p *Plugin) dateClients() error {
	var first *tcpEntry
	for _, id := range slices.Sorted(maps.Keys(p.state.TCP)) {
		s := p.state.TCP[id]
		if s.Role != tcpWaiting {
			continue
		}
		e := p.tcp.byInode[s.Ino]
		first = cmp.Or(first, e)
		var err error
		if s.Connected, err = e.connectedAfter(first); err != nil {
			return plugin.Refuse(p.claimed[id], "%v", err)
		}
		p.state.TCP[id] = s
	}
	return nil
}

// connectedAfter is how many milliseconds after the other e was connected. Both
// ages are of the same tick.
func (e *tcpEntry) connectedAfter(other *tcpEntry) (ms int32, err error) {
	for {
		before, err := other.sinceConnected()
		if err != nil {
			return 0, err
		}
		own, err := e.sinceConnected()
		if err != nil {
			return 0, err
		}
		after, err := other.sinceConnected()
		if err != nil {
			return 0, err
		}
		if before == after {
			return int32(before - own), nil
		}
	}
}

// sinceConnected is for a connection on which nothing was sent: the time of the
// last data begins as that of the connection (tcp_finish_connect of the kernel).
func (e *tcpEntry) sinceConnected() (ms uint32, err error) {
	info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	return info.Last_data_sent, nil
}

// waitingAt returns the connections that wait at a listener, in the order in
// which they were made, as far as it is known.
func (p *Plugin) waitingAt(listener uint32) (ids []int) {
	for id, s := range p.state.TCP {
		if s.Role == tcpWaiting && s.Peer == listener {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(i, j int) int {
		a, b := p.state.TCP[i], p.state.TCP[j]
		return cmp.Or(cmp.Compare(a.Connected, b.Connected), cmp.Compare(a.Ino, b.Ino))
	})
	return ids
}

// holdProcessor keeps the caller on one processor until release is called: what
// it sends to loopback arrives in its order, and the inodes of the sockets that
// it makes rise. With an error it is not kept there.
func holdProcessor() (release func(), err error) {
	runtime.LockOSThread()
	var own, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return runtime.UnlockOSThread, os.NewSyscallError("sched_getaffinity", err)
	}
	cpu := 0
	for !own.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return runtime.UnlockOSThread, os.NewSyscallError("sched_setaffinity", err)
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &own) // it was allowed before
		runtime.UnlockOSThread()
	}, nil
}
