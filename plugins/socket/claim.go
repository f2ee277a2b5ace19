package socket

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

var errFilter = errors.New("it has a filter (SO_ATTACH_FILTER): not kept yet")

// claim is one UNIX socket that is being saved.
type claim struct {
	plugin *Plugin
	file   plugin.OpenFile
	fd     int // a duplicate
	ino    uint32
}

func (p *Plugin) claimUNIX(f plugin.OpenFile, fd int, k kind) error {
	c := claim{plugin: p, file: f, fd: fd, ino: uint32(f.Stat.Ino)}
	s, err := c.save(k.kind)
	if err != nil {
		return err
	}
	p.state.add(f.ID, s)
	return nil
}

// save returns the reason alone as an error.
func (c claim) save(typ int) (socket, error) {
	d, err := diagnose(c.ino)
	if err != nil {
		return socket{}, err
	}
	if err := checkName(d.name); err != nil {
		return socket{}, err
	}
	if filtered, err := hasFilter(c.fd); err != nil || filtered {
		return socket{}, cmp.Or(err, errFilter)
	}
	s := socket{Type: typ, Ino: c.ino, Name: d.name, Shutdown: d.shutdown & (shutReceive | shutSend)}
	if s.Options, err = saveOptions(c.fd, typ); err != nil {
		return socket{}, err
	}
	switch {
	case d.state == tcpListen && typ != unix.SOCK_DGRAM:
		s.Listen, err = c.saveListener(d)
	case d.hasPeer:
		err = c.saveConnection(&s, d)
	case len(d.name) > 0:
		err = fmt.Errorf("bound to %q, but neither listening nor connected: not kept yet", d.name)
	}
	return s, err
}

func (c claim) saveListener(d diagnosis) (*listener, error) {
	if d.pending > 0 {
		return nil, fmt.Errorf("%d connections to %q wait to be accepted", d.pending, d.name)
	}
	l := &listener{Backlog: int(d.backlog)}
	if d.name[0] == 0 {
		return l, nil
	}
	var st unix.Stat_t
	err := unix.Lstat(c.plugin.host.Root()+string(d.name), &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.Deleted = true
	case err != nil:
		return nil, fmt.Errorf("lstat of %q: %w", d.name, err)
	case uint32(st.Ino) != d.fileIno:
		return nil, fmt.Errorf("%q is now another file than the one it is bound to", d.name)
	case int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%q belongs to user %d", d.name, st.Uid)
	default:
		l.Mode, l.GID = st.Mode&0o777, int(st.Gid)
	}
	return l, nil
}

func (c claim) saveConnection(s *socket, d diagnosis) (err error) {
	if s.PeerName, err = peerName(c.fd); err != nil {
		return err
	}
	switch {
	case s.Type == unix.SOCK_DGRAM && (len(s.Name) > 0 || len(s.PeerName) > 0):
		return fmt.Errorf("connection from %q to %q: datagram sockets with names are not kept yet", s.Name, s.PeerName)
	case len(s.Name) > 0 && len(s.PeerName) > 0:
		return fmt.Errorf("both ends have names, %q and %q: not kept yet", s.Name, s.PeerName)
	}
	if err := checkName(s.PeerName); err != nil {
		return fmt.Errorf("the peer is %w", err)
	}
	if err := c.findPeer(s, d); err != nil {
		return err
	}
	s.Queue, err = c.saveQueue(s)
	return err
}

func (c claim) findPeer(s *socket, d diagnosis) error {
	switch {
	case d.peer != 0:
		if !c.plugin.holds(d.peer) {
			return fmt.Errorf("its peer (inode %d, name %q) is outside the computation", d.peer, s.PeerName)
		}
		s.Peer = d.peer
	case s.Type == unix.SOCK_DGRAM || s.Shutdown == shutReceive|shutSend:
		s.PeerClosed = true // which shuts down both directions of a connection
	default:
		return fmt.Errorf("its connection to %q is not accepted yet", s.PeerName)
	}
	return nil
}

// saveQueue looks for what makes a look at the queue unsafe, and then looks.
func (c claim) saveQueue(s *socket) ([][]byte, error) {
	ready := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN | unix.POLLPRI}}
	if _, err := unix.Poll(ready, 0); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	bytes, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ) // SIOCINQ, unix(7)
	if err != nil {
		return nil, fmt.Errorf("ioctl SIOCINQ: %w", err)
	}
	events, ended := ready[0].Revents, s.Shutdown&shutReceive != 0
	queued := bytes > 0 || events&unix.POLLIN != 0 && !ended
	if !queued {
		delete(c.plugin.empties, c.ino)
	}
	switch {
	case events&unix.POLLPRI != 0:
		return nil, errors.New("out-of-band data is queued")
	case events&unix.POLLERR != 0 && !(s.Type == unix.SOCK_STREAM && s.PeerClosed):
		return nil, errors.New("an error is pending")
	case c.plugin.empties[c.ino]:
		return nil, errEmptyMessage
	case queued && s.Options.passesSenders():
		return nil, errors.New("data with the credentials of its sender (SO_PASSCRED, SO_PASSPIDFD) is queued")
	}
	s.Reset = events&unix.POLLERR != 0
	queue, err := peek(c.fd, s.Type, bytes, ended)
	if errors.Is(err, errEmptyMessage) {
		c.plugin.empties[c.ino] = true
	}
	return queue, err
}

// holds says whether a process of the tree has a socket with this inode open.
func (p *Plugin) holds(ino uint32) bool {
	if p.inTree == nil {
		p.inTree = make(map[uint32]bool)
		for _, host := range p.hosts {
			addSockets(p.inTree, host)
		}
	}
	return p.inTree[ino]
}

// addSockets adds the inodes of the sockets that a process has open, which
// are in the links of proc_pid_fd(5): "socket:[4711]".
func addSockets(inodes map[uint32]bool, host int) {
	dir := fmt.Sprintf("/proc/%d/fd", host)
	d, err := os.Open(dir)
	if err != nil {
		return // it has ended
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		link, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if s, ok := strings.CutPrefix(link, "socket:["); ok {
			if ino, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
				inodes[uint32(ino)] = true
			}
		}
	}
}
