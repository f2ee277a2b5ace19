package socket

import (
	"cmp"
	"errors"
	"fmt"
	"os"

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
func (c claim) save(typ int) (unixSocket, error) {
	d, err := diagnose(c.ino)
	if err != nil {
		return unixSocket{}, err
	}
	if filtered, err := hasFilter(c.fd); err != nil || filtered {
		return unixSocket{}, cmp.Or(err, errFilter)
	}
	s := unixSocket{Type: typ, Ino: c.ino, Name: d.name, Shutdown: d.shutdown & (shutReceive | shutSend)}
	if len(c.file.Refs) > 0 {
		s.Owner = c.file.Refs[0].PID
	}
	if s.Options, err = saveOptions(c.fd, typ); err != nil {
		return unixSocket{}, err
	}
	if s.Credentials, err = c.peerCredentials(); err != nil {
		return unixSocket{}, err
	}
	if _, isPath := pathOf(s.Name); isPath {
		if s.File, err = c.plugin.locate(s.Name, d.fileIno); err != nil {
			return unixSocket{}, err
		}
	}
	if d.state == tcpListen && typ != unix.SOCK_DGRAM {
		s.Listen = &listener{Backlog: int(d.backlog), Pending: d.clients}
		return s, nil
	}
	if d.hasPeer {
		if err := c.savePeer(&s, d); err != nil {
			return unixSocket{}, err
		}
	}
	if !s.Waiting {
		s.Queue, err = c.saveQueue(&s)
	}
	return s, err
}

// hold notes where a description was found that may have no descriptor.
func (c claim) hold(fd int) (id int, err error) {
	if id, err = c.file.Hold(fd); err != nil {
		return 0, err
	}
	if _, known := c.plugin.holders[id]; !known {
		c.plugin.holders[id] = c.file
	}
	return id, nil
}

// savePeer says to whom the socket is connected. Whether the other end is
// kept as well only all claims together show.
func (c claim) savePeer(s *unixSocket, d diagnosis) (err error) {
	if s.PeerName, err = peerName(c.fd); err != nil {
		return err
	}
	switch {
	case d.peer != 0:
		s.Peer = d.peer
	case s.Type == unix.SOCK_DGRAM || s.Shutdown == shutReceive|shutSend:
		s.PeerClosed = true // which shuts down both directions of a connection
	default:
		s.Waiting = true
		sent, err := unix.IoctlGetInt(c.fd, unix.TIOCOUTQ) // SIOCOUTQ, unix(7)
		if err != nil {
			return fmt.Errorf("ioctl SIOCOUTQ: %w", err)
		}
		if sent > 0 {
			return plugin.Passing(fmt.Sprintf("data was sent to %q, which has not accepted the connection yet", s.PeerName))
		}
	}
	return nil
}

// peerCredentials returns SO_PEERCRED, nil where there are none.
func (c claim) peerCredentials() (*credentials, error) {
	cred, err := unix.GetsockoptUcred(c.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if cred.Pid == 0 && cred.Uid == ^uint32(0) {
		return nil, nil
	}
	return &credentials{PID: c.plugin.pids[int(cred.Pid)], UID: cred.Uid, GID: cred.Gid}, nil
}

// saveQueue looks for what makes a look at the queue unsafe, and then looks.
func (c claim) saveQueue(s *unixSocket) ([]message, error) {
	ready := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN | unix.POLLPRI}}
	if err := pollReady(ready); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	bytes, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ) // SIOCINQ, unix(7)
	if err != nil {
		return nil, fmt.Errorf("ioctl SIOCINQ: %w", err)
	}
	events := ready[0].Revents
	switch {
	case events&unix.POLLPRI != 0:
		return nil, errors.New("out-of-band data is queued")
	case events&unix.POLLERR != 0 && !(s.Type == unix.SOCK_STREAM && s.PeerClosed):
		return nil, errors.New("an error is pending")
	}
	s.Reset = events&unix.POLLERR != 0
	l := look{fd: c.fd, typ: s.Type, ended: s.Shutdown&shutReceive != 0, host: c.plugin.pids, hold: c.hold}
	if s.Type == unix.SOCK_STREAM {
		return l.stream(bytes)
	}
	if events&unix.POLLIN == 0 || s.Type == unix.SOCK_SEQPACKET && !s.connected() { // which cannot have any
		delete(c.plugin.seen, c.ino)
		return nil, nil
	}
	return c.remember(s, l)
}
