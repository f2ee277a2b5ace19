package socket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// build is what making the UNIX sockets has left for filling them.
type build struct {
	temps   []int         // closed when all is filled
	others  map[int]int   // the end that was closed, by the ID of the one that was not
	handles map[int]int   // O_PATH of the files of sockets for datagrams, by ID
	ghosts  map[string]at // sockets for datagrams that are gone, by name
	paired  map[int]bool  // sockets for datagrams that socketpair(2) made
}

// at is a socket and how to reach it.
type at struct{ fd, handle int }

func (b *build) temp(fd int) int {
	b.temps = append(b.temps, fd)
	return fd
}

func (b *build) close() {
	if b == nil {
		return
	}
	for _, fd := range b.temps {
		unix.Close(fd)
	}
	b.temps = nil
}

// builder makes the UNIX sockets of an image. All connections are made here,
// but for those of datagrams, which come behind their queues.
type builder struct {
	*build
	ctx context.Context
	p   *Plugin
	w   *workers
	ids map[uint32]int // by inode
}

// unixIDs ascend, so that every restart of an image does the same.
func (s *state) unixIDs() []int { return slices.Sorted(maps.Keys(s.UNIX)) }

func (p *Plugin) buildUNIX(ctx context.Context, procs []plugin.Process) error {
	if len(p.state.UNIX) == 0 {
		return nil
	}
	p.build = &build{others: map[int]int{}, handles: map[int]int{}, ghosts: map[string]at{}, paired: map[int]bool{}}
	b := builder{build: p.build, ctx: ctx, p: p, w: newWorkers(procs), ids: p.state.unixByInode()}
	defer b.w.close(ctx)
	for _, id := range p.state.unixIDs() {
		if err := b.pair(id); err != nil {
			return b.about(id, err)
		}
	}
	groups := b.groups()
	// A name may have had several sockets, one after the other: those whose
	// file is gone come first.
	for _, gone := range []bool{true, false} {
		if err := b.alone(gone); err != nil {
			return err
		}
		for _, g := range groups {
			if (g.file != nil && g.file.Path == "") == gone {
				if err := b.group(g); err != nil {
					return fmt.Errorf("connections of %q: %w", g.name, err)
				}
			}
		}
	}
	return nil
}

func (b *builder) about(id int, err error) error {
	s := b.p.state.UNIX[id]
	return fmt.Errorf("open file %d: UNIX %s socket (inode %d, name %q): %w", id, typeNames[s.Type], s.Ino, s.Name, err)
}

// socket makes the socket id, unless it was made already, with its name.
func (b *builder) socket(id int) (int, error) {
	if fd, ok := b.p.made[id]; ok {
		return fd, nil
	}
	s := b.p.state.UNIX[id]
	fd, err := unix.Socket(unix.AF_UNIX, s.Type|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	b.p.keep(id, fd)
	return fd, b.bind(id, fd)
}

// bind gives fd the name of the socket id.
func (b *builder) bind(id, fd int) error {
	s := b.p.state.UNIX[id]
	if len(s.Name) == 0 {
		return nil
	}
	handle, err := b.p.bindName(fd, s.Name, s.File)
	if handle >= 0 {
		b.handles[id] = b.temp(handle)
	}
	return err
}

// pair makes what socketpair(2) made: ends of which none has a name, and
// datagram sockets with credentials, which nothing else gives them.
func (b *builder) pair(id int) error {
	s := b.p.state.UNIX[id]
	if _, done := b.p.made[id]; done || !s.connected() {
		return nil
	}
	other, peer := -1, unixSocket{Name: s.PeerName, File: goneFile(s.PeerName)}
	if s.Peer != 0 {
		other = b.ids[s.Peer]
		peer = b.p.state.UNIX[other]
	}
	if s.Type == unix.SOCK_DGRAM {
		if s.Credentials == nil || s.Peer != 0 && peer.Peer != s.Ino {
			return nil
		}
		b.paired[id], b.paired[other] = true, true
	} else if len(s.Name) > 0 || len(s.PeerName) > 0 {
		return nil
	}
	fd, otherFD, err := b.w.pair(b.ctx, s.Credentials, s.Type)
	if err != nil {
		return err
	}
	b.p.keep(id, fd)
	if other >= 0 {
		b.p.keep(other, otherFD)
		if err := b.bind(other, otherFD); err != nil {
			return err
		}
	} else {
		b.others[id] = b.temp(otherFD)
		if len(peer.Name) > 0 {
			handle, err := b.p.bindName(otherFD, peer.Name, peer.File)
			if err != nil {
				return err
			}
			b.temp(handle)
		}
	}
	return b.bind(id, fd)
}

// goneFile is the file of a socket of which only the name is known.
func goneFile(name []byte) *socketFile {
	if _, isPath := pathOf(name); !isPath {
		return nil
	}
	return &socketFile{}
}

// alone makes sockets that no other is needed for: those whose file is gone,
// with what datagrams need of sockets that are gone themselves, or the others.
func (b *builder) alone(gone bool) error {
	if gone {
		for _, id := range b.p.state.unixIDs() {
			if err := b.ghostsOf(id); err != nil {
				return b.about(id, err)
			}
		}
	}
	for _, id := range b.p.state.unixIDs() {
		s := b.p.state.UNIX[id]
		if s.Type != unix.SOCK_DGRAM && (s.connected() || s.Waiting || s.Listen != nil) || (s.File != nil && s.File.Path == "") != gone {
			continue
		}
		if _, err := b.socket(id); err != nil {
			return b.about(id, err)
		}
	}
	return nil
}

// ghostsOf makes the sockets that the datagram socket id was connected to, or
// had messages from, and that are gone.
func (b *builder) ghostsOf(id int) error {
	s := b.p.state.UNIX[id]
	if s.Type != unix.SOCK_DGRAM || b.paired[id] {
		return nil
	}
	if s.PeerClosed {
		if err := b.ghost(s.PeerName); err != nil {
			return err
		}
	}
	for _, m := range s.Queue {
		if len(m.From) == 0 || b.p.state.datagramSocket(m.From) >= 0 {
			continue
		}
		if err := b.ghost(m.From); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) ghost(name []byte) error {
	if _, done := b.ghosts[string(name)]; done {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	b.temp(fd)
	handle, err := b.p.bindName(fd, name, goneFile(name))
	if err != nil {
		return err
	}
	b.ghosts[string(name)] = at{fd, b.temp(handle)}
	return nil
}

// datagramSocket returns the ID of the socket for datagrams with the name, -1
// where there is none.
func (s *state) datagramSocket(name []byte) int {
	for id, sock := range s.UNIX {
		if sock.Type == unix.SOCK_DGRAM && string(sock.Name) == string(name) {
			return id
		}
	}
	return -1
}

// group is a listener, or one that was closed, with the connections that it
// accepted and the clients that wait.
type group struct {
	typ         int
	name        []byte
	file        *socketFile
	listener    int // ID; -1: it was closed
	connections []connection
}

// connection is of a client and the socket that was accepted, by ID; -1 for
// one that was closed.
type connection struct{ client, server int }

// groups returns all listeners and connections with names.
func (b *builder) groups() []*group {
	var all []*group
	find := func(typ int, name []byte, file *socketFile) *group {
		for _, g := range all {
			if g.typ == typ && string(g.name) == string(name) && (file == nil || g.file != nil && g.file.Ino == file.Ino) {
				return g
			}
		}
		if _, isPath := pathOf(name); isPath && file == nil {
			file = staleFile(string(name))
		}
		all = append(all, &group{typ: typ, name: name, file: file, listener: -1})
		return all[len(all)-1]
	}
	sockets := b.p.state.UNIX
	for _, id := range b.p.state.unixIDs() {
		if s := sockets[id]; s.Listen != nil {
			find(s.Type, s.Name, s.File).listener = id
		}
	}
	for _, id := range b.p.state.unixIDs() {
		s := sockets[id]
		if _, done := b.p.made[id]; done || !s.connected() || s.Type == unix.SOCK_DGRAM {
			continue
		}
		c := connection{-1, id}
		if s.Peer != 0 {
			c.client = b.ids[s.Peer]
		}
		if !b.accepted(id, all) {
			if s.Peer != 0 {
				continue // the other end brings it
			}
			c = connection{id, -1}
			g := find(s.Type, s.PeerName, nil)
			g.connections = append(g.connections, c)
			continue
		}
		g := find(s.Type, s.Name, s.File)
		g.connections = append(g.connections, c)
	}
	return all
}

// accepted says whether the connected socket id was made by accept(2): it has
// the name of its listener. Where both ends have names and the listener is
// closed, the younger one is: the client was there before.
func (b *builder) accepted(id int, groups []*group) bool {
	s := b.p.state.UNIX[id]
	if len(s.Name) == 0 || len(s.PeerName) == 0 {
		return len(s.Name) > 0
	}
	listens := func(name []byte, file *socketFile) bool {
		return slices.ContainsFunc(groups, func(g *group) bool {
			return g.listener >= 0 && g.typ == s.Type && string(g.name) == string(name) && (file == nil || g.file.Ino == file.Ino)
		})
	}
	if listens(s.Name, s.File) {
		return true
	}
	var peerFile *socketFile
	if s.Peer != 0 {
		peerFile = b.p.state.UNIX[b.ids[s.Peer]].File
	}
	if listens(s.PeerName, peerFile) {
		return false
	}
	return s.Peer != 0 && s.Ino > s.Peer
}

// staleFile is the file that a closed socket has left behind.
func staleFile(path string) *socketFile {
	var st unix.Stat_t
	if path[0] != '/' || unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return &socketFile{}
	}
	return &socketFile{Path: path, Mode: st.Mode & 0o777, UID: int(st.Uid), GID: int(st.Gid)}
}

// group makes the sockets of g.
func (b *builder) group(g *group) error {
	l, handle, err := b.bindListener(g)
	if err != nil {
		return err
	}
	var by *credentials
	for i, c := range g.connections {
		var client, server unixSocket
		if c.client >= 0 {
			client = b.p.state.UNIX[c.client]
		}
		if c.server >= 0 {
			server = b.p.state.UNIX[c.server]
		}
		// What a client sees of its peer is who called listen.
		if i == 0 || pidOf(by) != pidOf(client.Credentials) {
			by = client.Credentials
			// Room for strangers too, so that connect does not wait.
			if err := b.w.listen(b.ctx, by, l, unix.SOMAXCONN); err != nil {
				return err
			}
		}
		if err := b.connection(g, c, server.Credentials, l, handle); err != nil {
			return err
		}
	}
	if g.listener < 0 {
		return nil
	}
	s := b.p.state.UNIX[g.listener]
	backlog := s.Listen.Backlog
	if len(s.Listen.Pending) > 0 {
		backlog = unix.SOMAXCONN
	}
	if err := b.w.listen(b.ctx, s.Credentials, l, backlog); err != nil {
		return err
	}
	for _, ino := range s.Listen.Pending {
		fd, err := b.socket(b.ids[ino])
		if err != nil {
			return err
		}
		// Who connects is seen when it is accepted, and not known before.
		if err := b.w.connect(b.ctx, b.owner(b.ids[ino]), fd, g.name, handle); err != nil {
			return err
		}
	}
	if backlog == s.Listen.Backlog {
		return nil
	}
	return b.w.listen(b.ctx, s.Credentials, l, s.Listen.Backlog)
}

func pidOf(c *credentials) int {
	if c == nil {
		return 0
	}
	return c.PID
}

// owner returns the first process that has the socket id open.
func (b *builder) owner(id int) *credentials {
	if pid := b.p.state.UNIX[id].Owner; pid != 0 {
		return &credentials{PID: pid}
	}
	return nil
}

func (b *builder) bindListener(g *group) (fd, handle int, err error) {
	if g.listener >= 0 {
		fd, err = b.socket(g.listener)
		return fd, cmp.Or(b.handles[g.listener], -1), err
	}
	if fd, err = unix.Socket(unix.AF_UNIX, g.typ|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, os.NewSyscallError("socket", err)
	}
	b.temp(fd)
	if handle, err = b.p.bindName(fd, g.name, g.file); handle >= 0 {
		b.temp(handle)
	}
	return fd, handle, err
}

// connection makes one connection through the listener l. A stranger's, which
// may come in between, is closed: there is no way to put it back.
func (b *builder) connection(g *group, c connection, by *credentials, l, handle int) error {
	var client int
	var err error
	if c.client >= 0 {
		client, err = b.socket(c.client)
	} else if client, err = unix.Socket(unix.AF_UNIX, g.typ|unix.SOCK_CLOEXEC, 0); err == nil {
		b.others[c.server] = b.temp(client)
		err = b.bindClosedClient(c.server, client)
	}
	if err != nil {
		return err
	}
	if err := b.w.connect(b.ctx, by, client, g.name, handle); err != nil {
		return err
	}
	server, err := acceptFrom(l, client)
	if err != nil {
		return err
	}
	if c.server >= 0 {
		b.p.keep(c.server, server)
	} else {
		b.others[c.client] = b.temp(server)
	}
	return nil
}

// bindClosedClient gives the client that was closed the name that getpeername
// shows of it.
func (b *builder) bindClosedClient(server, fd int) error {
	name := b.p.state.UNIX[server].PeerName
	if len(name) == 0 {
		return nil
	}
	handle, err := b.p.bindName(fd, name, goneFile(name))
	if handle >= 0 {
		b.temp(handle)
	}
	return err
}

// acceptFrom accepts connections until client's comes.
func acceptFrom(listener, client int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(client, &st); err != nil {
		return -1, os.NewSyscallError("fstat", err)
	}
	for {
		server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, os.NewSyscallError("accept4", err)
		}
		var accepted unix.Stat_t
		if err = unix.Fstat(server, &accepted); err == nil {
			var d diagnosis
			if d, err = diagnose(uint32(accepted.Ino)); err == nil && d.peer == uint32(st.Ino) {
				return server, nil
			}
		}
		unix.Close(server)
		if err != nil {
			return -1, err
		}
	}
}
