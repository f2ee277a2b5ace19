package socket

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// filler fills the queues of the UNIX sockets that a builder has made, each
// from where its messages came, and then brings the sockets to their state:
// nothing could be added afterwards.
type filler struct {
	*build
	ctx   context.Context
	state *state
	w     *workers
	fds   map[int]int    // by plugin.OpenFile's ID
	ids   map[uint32]int // by inode
}

func (p *Plugin) fillUNIX(ctx context.Context, procs []plugin.Process, fds map[int]int) error {
	if p.build == nil {
		return nil
	}
	f := filler{build: p.build, ctx: ctx, state: &p.state, w: newWorkers(procs), fds: fds, ids: p.state.unixByInode()}
	defer f.w.close(ctx)
	for _, step := range []func(id int, s unixSocket) error{f.connection, f.strangers} {
		for _, id := range p.state.unixIDs() {
			if _, ok := fds[id]; !ok {
				return fmt.Errorf("open file %d: a socket that nothing has open", id)
			}
			if err := step(id, p.state.UNIX[id]); err != nil {
				return fmt.Errorf("open file %d: UNIX socket (inode %d): %w", id, p.state.UNIX[id].Ino, err)
			}
		}
	}
	if err := f.connectDatagrams(); err != nil {
		return err
	}
	p.build.close()
	for _, id := range p.state.unixIDs() {
		if err := f.finish(id, p.state.UNIX[id]); err != nil {
			return fmt.Errorf("open file %d: UNIX socket (inode %d): %w", id, p.state.UNIX[id].Ino, err)
		}
	}
	return nil
}

// connection fills the queue of a connection from its other end.
func (f *filler) connection(id int, s unixSocket) error {
	if s.Type == unix.SOCK_DGRAM && !f.paired[id] {
		return nil
	}
	if !s.connected() {
		return nil
	}
	from, ok := f.others[id]
	if s.Peer != 0 {
		from, ok = f.fds[f.ids[s.Peer]]
		if err := f.state.UNIX[f.ids[s.Peer]].Options.makeRoom(from); err != nil {
			return err
		}
	}
	if !ok {
		return errors.New("its connection is not in the image")
	}
	for _, m := range s.Queue {
		if err := f.send(from, m, nil, -1); err != nil {
			return err
		}
	}
	if !s.Reset {
		return nil
	}
	// Closing a stream with unread data is what makes its peer see ECONNRESET,
	// unix(7).
	return f.send(f.fds[id], message{Data: []byte{0}}, nil, -1)
}

// peerOf returns the socket that s is to be connected to.
func (f *filler) peerOf(s unixSocket) (at, bool) {
	if s.PeerClosed {
		g, ok := f.ghosts[string(s.PeerName)]
		return g, ok
	}
	id, ok := f.ids[s.Peer]
	return f.reach(id), ok
}

func (f *filler) reach(id int) at {
	handle, ok := f.handles[id]
	if !ok {
		handle = -1
	}
	return at{f.fds[id], handle}
}

// fromPeer is how many messages at the end of the queue the peer has sent. They
// are sent when the socket is connected: an unconnected one takes few
// (net.unix.max_dgram_qlen).
func (s unixSocket) fromPeer() (n int) {
	if s.Peer == 0 || len(s.PeerName) == 0 {
		return 0
	}
	for n < len(s.Queue) && string(s.Queue[len(s.Queue)-1-n].From) == string(s.PeerName) {
		n++
	}
	return n
}

// strangers fills the queue of a datagram socket with what did not come from
// its peer, from whom alone it takes messages once it is connected.
func (f *filler) strangers(id int, s unixSocket) error {
	if s.Type != unix.SOCK_DGRAM || f.paired[id] {
		return nil
	}
	return f.datagrams(id, s, s.Queue[:len(s.Queue)-s.fromPeer()])
}

func (f *filler) datagrams(id int, s unixSocket, queue []message) error {
	for _, m := range queue {
		from, done, err := f.sender(m)
		if err != nil {
			return err
		}
		err = f.send(from, m, s.Name, f.reach(id).handle)
		done()
		if err != nil {
			return err
		}
	}
	return nil
}

// sender returns the socket that a datagram came from, or one with its name.
func (f *filler) sender(m message) (fd int, done func(), err error) {
	if len(m.From) > 0 {
		if id := f.state.datagramSocket(m.From); id >= 0 {
			return f.fds[id], func() {}, nil
		}
		if g, ok := f.ghosts[string(m.From)]; ok {
			return g.fd, func() {}, nil
		}
		return -1, nil, fmt.Errorf("the sender %q is not in the image", m.From)
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	return fd, func() { unix.Close(fd) }, nil
}

// connectDatagrams connects the sockets for datagrams. One that is connected
// already takes no connection but from its peer, so it comes behind those that
// are connected to it.
func (f *filler) connectDatagrams() error {
	left := make(map[int]bool)
	for id, s := range f.state.UNIX {
		if s.Type == unix.SOCK_DGRAM && s.connected() && !f.paired[id] {
			left[id] = true
		}
	}
	for len(left) > 0 {
		before := len(left)
		for _, id := range f.state.unixIDs() {
			if !left[id] || f.awaited(id, left) {
				continue
			}
			if err := f.connectDatagram(id, f.state.UNIX[id]); err != nil {
				return fmt.Errorf("open file %d: UNIX datagram socket: %w", id, err)
			}
			delete(left, id)
		}
		if len(left) == before {
			return errors.New("UNIX datagram sockets are connected in a circle")
		}
	}
	return nil
}

// awaited says whether a socket that id is not connected to is still to be
// connected to id.
func (f *filler) awaited(id int, left map[int]bool) bool {
	s := f.state.UNIX[id]
	for other := range left {
		if o := f.state.UNIX[other]; other != id && o.Peer == s.Ino && s.Peer != o.Ino {
			return true
		}
	}
	return false
}

func (f *filler) connectDatagram(id int, s unixSocket) error {
	peer, ok := f.peerOf(s)
	if !ok {
		return errors.New("its peer is not in the image")
	}
	if err := connectThrough(f.fds[id], s.PeerName, peer.handle); err != nil {
		return err
	}
	return f.datagrams(id, s, s.Queue[len(s.Queue)-s.fromPeer():])
}

// send sends m over fd, to the name or the file of handle where there is one.
func (f *filler) send(fd int, m message, to []byte, handle int) error {
	var rights []int
	for _, id := range m.Files {
		inner, ok := f.fds[id]
		if !ok {
			return fmt.Errorf("open file %d, which is in flight, is not in the image", id)
		}
		rights = append(rights, inner)
	}
	err := f.sendOnce(fd, &m, rights, to, handle)
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return withSendRoom(fd, func() error { return f.sendOnce(fd, &m, rights, to, handle) })
}

// sendOnce cuts from m what was sent.
func (f *filler) sendOnce(fd int, m *message, rights []int, to []byte, handle int) error {
	var addr []byte
	if handle >= 0 {
		to = fmt.Appendf(nil, "/proc/self/fd/%d", handle)
	}
	if to != nil {
		addr = rawAddress(to)
	}
	for first := true; first || len(m.Data) > 0; first = false {
		var control []byte
		if len(m.Files) == 0 {
			rights = nil
		} else {
			control = unix.UnixRights(rights...)
		}
		n, err := 0, error(nil)
		if m.Sender != nil {
			n, err = f.w.send(f.ctx, fd, *m, rights, to, handle)
		} else {
			n, err = sendmsg(fd, m.Data, control, addr, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if err != nil {
			return fmt.Errorf("send of %d queued bytes: %w", len(m.Data), err)
		}
		m.Data, m.Files = m.Data[n:], nil
	}
	return nil
}

// finish gives the socket its options and shuts down what was. A connection
// whose other end is closed has both directions shut down by that.
func (f *filler) finish(id int, s unixSocket) error {
	fd := f.fds[id]
	if !s.PeerClosed || s.Type == unix.SOCK_DGRAM {
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
