package socket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// ReopenFile makes a socket, and with it those that can only be made
// together: the other end of a pair, or all connections of a listener.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	if p.made == nil {
		p.made = make(map[int]int)
	}
	if _, done := p.made[f.ID]; !done {
		if err := p.reopen(f.ID); err != nil {
			return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
		}
	}
	fd, ok := p.made[f.ID]
	if !ok {
		return -1, fmt.Errorf("open file %d (%s): its connection is not in the image", f.ID, f.Link)
	}
	delete(p.made, f.ID)
	if f.Flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("open file %d (%s): fcntl O_NONBLOCK: %w", f.ID, f.Link, err)
		}
	}
	return fd, nil
}

// make adds the socket id to p.made.
func (p *Plugin) make(id int, s socket) error {
	switch {
	case s.Listen != nil:
		return p.makeNamed(s.Type, s.Name)
	case !s.connected():
		fd, err := unix.Socket(unix.AF_UNIX, s.Type|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		p.made[id] = fd
		if err := shutdown(fd, s.Shutdown); err != nil {
			return err
		}
		return s.Options.apply(fd)
	case len(s.Name) > 0:
		return p.makeNamed(s.Type, s.Name)
	case len(s.PeerName) > 0:
		return p.makeNamed(s.Type, s.PeerName)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, s.Type|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	return p.finishPair(id, pair[0], pair[1])
}

// finishPair brings the connected sockets a and b to the state of the socket
// id and its peer, and adds them to p.made.
func (p *Plugin) finishPair(id, a, b int) error {
	s := p.state.UNIX[id]
	p.made[id] = a
	if s.PeerClosed {
		return errors.Join(s.finishAlone(a, b), os.NewSyscallError("close", unix.Close(b)))
	}
	peerID, ok := p.state.byInode(s.Peer)
	if !ok {
		unix.Close(b)
		return fmt.Errorf("its peer (inode %d) is not in the image", s.Peer)
	}
	p.made[peerID] = b
	ends := [2]end{{s, a}, {p.state.UNIX[peerID], b}}
	for i, to := range ends {
		if err := ends[1-i].send(to.Queue); err != nil {
			return err
		}
	}
	for _, e := range ends {
		if err := e.finish(); err != nil {
			return err
		}
	}
	return nil
}

// end is one end of a pair that is made again.
type end struct {
	socket
	fd int
}

// send fills the queue of the other end.
func (e end) send(queue [][]byte) error {
	if err := e.Options.makeRoom(e.fd); err != nil {
		return err
	}
	return refill(e.fd, queue)
}

// finish comes behind the queues of both ends, to which nothing could be
// added afterwards.
func (e end) finish() error {
	if err := shutdown(e.fd, e.Shutdown); err != nil {
		return err
	}
	return e.Options.apply(e.fd)
}

// finishAlone is for a socket whose peer was closed. Closing a stream with
// unread data is what makes its peer see ECONNRESET, unix(7).
func (s socket) finishAlone(fd, peer int) error {
	if err := refill(peer, s.Queue); err != nil {
		return err
	}
	if s.Reset {
		if err := refill(fd, [][]byte{{0}}); err != nil {
			return err
		}
	}
	if s.Type == unix.SOCK_DGRAM { // a stream gets both from the close
		if err := shutdown(fd, s.Shutdown); err != nil {
			return err
		}
	}
	return s.Options.apply(fd)
}

func shutdown(fd int, directions uint8) error {
	if directions == 0 {
		return nil
	}
	how := map[uint8]int{
		shutReceive: unix.SHUT_RD, shutSend: unix.SHUT_WR, shutReceive | shutSend: unix.SHUT_RDWR,
	}[directions]
	return os.NewSyscallError("shutdown", unix.Shutdown(fd, how))
}

// makeNamed makes all sockets of one type that have to do with name: the
// listener and the connections that it accepted. Where the listener was
// closed, a temporary one takes its place.
func (p *Plugin) makeNamed(typ int, name []byte) error {
	id, l := p.listener(typ, name)
	fd, err := bindSocket(typ, name, l.Mode)
	if err != nil {
		return err
	}
	path, isPath := pathOf(name)
	if id >= 0 {
		p.made[id] = fd
	} else {
		defer unix.Close(fd)
	}
	err = p.makeConnections(fd, typ, name)
	if isPath && l.Deleted {
		return errors.Join(err, os.Remove(path))
	}
	if err != nil || id < 0 {
		return err
	}
	if isPath {
		if err := setGroup(path, l.GID); err != nil {
			return err
		}
	}
	s := p.state.UNIX[id]
	if err := s.Options.apply(fd); err != nil {
		return err
	}
	if err := os.NewSyscallError("listen", unix.Listen(fd, l.Backlog)); err != nil {
		return err
	}
	return shutdown(fd, s.Shutdown)
}

// listener returns the saved listener of name, or a temporary one with the
// ID -1, whose file is for nobody else, and is left behind only where there
// was one.
func (p *Plugin) listener(typ int, name []byte) (id int, l listener) {
	for _, id := range p.ids() {
		s := p.state.UNIX[id]
		if s.Listen != nil && s.Type == typ && string(s.Name) == string(name) {
			return id, *s.Listen
		}
	}
	path, _ := pathOf(name)
	_, err := os.Lstat(path)
	return -1, listener{Mode: 0o600, Deleted: err != nil}
}

// ids ascend, so that every restart of an image does the same.
func (p *Plugin) ids() []int { return slices.Sorted(maps.Keys(p.state.UNIX)) }

// makeConnections connects and accepts every connection to name.
func (p *Plugin) makeConnections(listener, typ int, name []byte) error {
	// Room for strangers too, so that connect does not wait. The real backlog
	// comes behind.
	if err := unix.Listen(listener, unix.SOMAXCONN); err != nil {
		return os.NewSyscallError("listen", err)
	}
	for _, id := range p.ids() {
		s := p.state.UNIX[id]
		if _, done := p.made[id]; done || s.Type != typ || s.Listen != nil {
			continue
		}
		accepted := string(s.Name) == string(name)
		if !accepted && (string(s.PeerName) != string(name) || !s.PeerClosed) {
			continue // the end that was accepted makes both
		}
		client, server, err := connectTo(listener, typ, name)
		if err != nil {
			return fmt.Errorf("connection to %q: %w", name, err)
		}
		a, b := client, server
		if accepted {
			a, b = server, client
		}
		if err := p.finishPair(id, a, b); err != nil {
			return err
		}
	}
	return nil
}

// connectTo makes one connection. A stranger's, which may come in between, is
// closed: there is no way to put it back.
func connectTo(listener, typ int, name []byte) (client, server int, err error) {
	if client, err = unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(client, address(name)); err != nil {
		unix.Close(client)
		return -1, -1, os.NewSyscallError("connect", err)
	}
	for {
		server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(client)
			return -1, -1, os.NewSyscallError("accept4", err)
		}
		cred, err := unix.GetsockoptUcred(server, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && int(cred.Pid) == os.Getpid() {
			return client, server, nil
		}
		unix.Close(server)
	}
}
