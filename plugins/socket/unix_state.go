package socket

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// unixSocket is one socket of AF_UNIX. It listens (Listen), or is connected
// (Peer or PeerClosed), or waits to be accepted (Waiting), or is as socket(2)
// and bind(2) made it.
type unixSocket struct {
	Type int    `json:"type"` // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
	Ino  uint32 `json:"ino"`  // by which sockets find each other
	// Name is sun_path as bind(2) was given it, unix(7): a path, or an
	// abstract name, which begins with a zero byte. A connection has the name
	// and the file of the listener that accepted it.
	Name   []byte      `json:"name,omitempty"`
	File   *socketFile `json:"file,omitempty"` // of a path
	Listen *listener   `json:"listen,omitempty"`

	Peer       uint32 `json:"peer,omitempty"` // inode
	PeerName   []byte `json:"peer_name,omitempty"`
	PeerClosed bool   `json:"peer_closed,omitempty"`
	Reset      bool   `json:"reset,omitempty"`   // ECONNRESET is pending
	Waiting    bool   `json:"waiting,omitempty"` // to be accepted by the listener of PeerName
	// Shutdown holds the directions that are shut down: 1 receive, 2 send.
	Shutdown uint8 `json:"shutdown,omitempty"`
	// Queue is what was received and not read. Of a stream a message is what
	// one call of recvmsg(2) returns at most.
	Queue       []message    `json:"queue,omitempty"`
	Credentials *credentials `json:"credentials,omitempty"` // SO_PEERCRED
	// Owner is the first process that has it open, 0 where it is in flight.
	Owner   int     `json:"owner,omitempty"`
	Options options `json:"options"`
}

const (
	shutReceive = 1
	shutSend    = 2
)

// socketFile is the file that a path was bound to.
type socketFile struct {
	Ino uint32 `json:"ino"`
	// Dir is the directory that a relative name began from.
	Dir string `json:"dir,omitempty"`
	// Path is where the file is now; "" where it is gone.
	Path string `json:"path,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
	UID  int    `json:"uid,omitempty"`
	GID  int    `json:"gid,omitempty"`
	// Directory is that of Path, which may be gone at a restart.
	missing.Directory
}

// listener is a listening socket. Pending are the inodes of the clients that
// wait, in order; 0 for one that was closed.
type listener struct {
	Backlog int      `json:"backlog"`
	Pending []uint32 `json:"pending,omitempty"`
}

// message is one message in a queue.
type message struct {
	Data   []byte       `json:"data,omitempty"`
	From   []byte       `json:"from,omitempty"`  // name of the sender of a datagram
	Files  []int        `json:"files,omitempty"` // plugin.OpenFile's ID: SCM_RIGHTS
	Sender *credentials `json:"sender,omitempty"`

	segment int // see datagram
}

func (m message) equal(o message) bool {
	return bytes.Equal(m.Data, o.Data) && bytes.Equal(m.From, o.From) && len(m.Files) == len(o.Files)
}

// credentials are ucred of unix(7), the pid as the program sees it; 0 for a
// process that is not of the computation.
type credentials struct {
	PID int    `json:"pid,omitempty"`
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

func (s unixSocket) connected() bool { return s.Peer != 0 || s.PeerClosed }

// unixByInode returns the IDs of the UNIX sockets.
func (s *state) unixByInode() map[uint32]int {
	ids := make(map[uint32]int, len(s.UNIX))
	for id, sock := range s.UNIX {
		ids[sock.Ino] = id
	}
	return ids
}

// incompleteUNIX returns, by ID, what is wrong with sockets that need others.
func (s *state) incompleteUNIX() map[int]error {
	wrong := make(map[int]error)
	ids := s.unixByInode()
	waiting := make(map[uint32]bool)
	for id, sock := range s.UNIX {
		if sock.Listen == nil {
			continue
		}
		for _, ino := range sock.Listen.Pending {
			client, ok := s.UNIX[ids[ino]]
			if ok && client.Waiting && client.Type == sock.Type && bytes.Equal(client.PeerName, sock.Name) && !waiting[ino] {
				waiting[ino] = true
			} else {
				wrong[id] = plugin.Passing(fmt.Sprintf("a client (inode %d) waits to be accepted that is closed, or outside the computation", ino))
			}
		}
	}
	for id, sock := range s.UNIX {
		peer, ok := s.UNIX[ids[sock.Peer]]
		switch {
		case sock.Waiting && !waiting[sock.Ino]:
			wrong[id] = fmt.Errorf("its connection to %q is not accepted yet, and the listener is outside the computation", sock.PeerName)
		case sock.Peer == 0:
		case !ok:
			wrong[id] = fmt.Errorf("its peer (inode %d, name %q) is outside the computation", sock.Peer, sock.PeerName)
		case peer.Type != sock.Type || !bytes.Equal(peer.Name, sock.PeerName):
			wrong[id] = fmt.Errorf("its peer (inode %d) is another", sock.Peer)
		case sock.Type != unix.SOCK_DGRAM && (peer.Peer != sock.Ino || peer.Ino == sock.Ino):
			wrong[id] = fmt.Errorf("its peer (inode %d) is not connected to it", sock.Peer)
		}
	}
	return wrong
}

// dropStrangers forgets the clients that wait and are not of the computation:
// they see the end of their connection.
func (p *Plugin) dropStrangers() {
	ids := p.state.unixByInode()
	for id, sock := range p.state.UNIX {
		if sock.Listen == nil {
			continue
		}
		var pending []uint32
		for _, ino := range sock.Listen.Pending {
			if _, ours := ids[ino]; ours || ino == 0 {
				pending = append(pending, ino)
				continue
			}
			p.host.Log().Info().Str("listener", string(sock.Name)).Uint32("inode", ino).
				Msg("a client from outside waits to be accepted: it is not kept")
		}
		if len(pending) < len(sock.Listen.Pending) {
			sock.Listen = &listener{Backlog: sock.Listen.Backlog, Pending: pending}
			p.state.UNIX[id] = sock
		}
	}
}

// refuseIncomplete refuses what all claims together show to be incomplete.
func (p *Plugin) refuseIncomplete() error {
	p.dropStrangers()
	var errs []error
	for id, err := range p.state.incompleteUNIX() {
		errs = append(errs, plugin.Refuse(p.claimed[id], "UNIX %s socket: %v", typeNames[p.state.UNIX[id].Type], err))
	}
	return errors.Join(errs...)
}

func (s *state) validateUNIX() error {
	inodes := make(map[uint32]bool, len(s.UNIX))
	for id, sock := range s.UNIX {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("open file %d: %w", id, err)
		}
		if inodes[sock.Ino] {
			return fmt.Errorf("open file %d: inode %d is there twice", id, sock.Ino)
		}
		inodes[sock.Ino] = true
	}
	for id, err := range s.incompleteUNIX() {
		return fmt.Errorf("open file %d: %w", id, err)
	}
	return nil
}

func (s unixSocket) validate() error {
	stream := s.Type == unix.SOCK_STREAM
	switch {
	case !stream && s.Type != unix.SOCK_DGRAM && s.Type != unix.SOCK_SEQPACKET:
		return fmt.Errorf("type %d", s.Type)
	case s.Ino == 0 || s.Owner < 0 || s.Credentials != nil && s.Credentials.PID < 0:
		return errors.New("no inode, or a process with a negative id")
	case s.Peer != 0 && s.PeerClosed || s.connected() && s.Waiting:
		return errors.New("a peer that is closed and is not")
	case s.Waiting && (s.Type == unix.SOCK_DGRAM || len(s.PeerName) == 0):
		return errors.New("a socket that waits to be accepted by nobody")
	case s.Reset && !(s.PeerClosed && stream):
		return errors.New("a reset without a closed stream")
	case s.Shutdown&^(shutReceive|shutSend) != 0:
		return fmt.Errorf("shutdown %d", s.Shutdown)
	case len(s.Queue) > 0 && s.Type != unix.SOCK_DGRAM && !s.connected():
		return errors.New("a queue without a connection")
	case len(s.Queue) > 0 && s.Type == unix.SOCK_DGRAM && !s.connected() && len(s.Name) == 0:
		return errors.New("a queue without a name")
	}
	for _, m := range s.Queue {
		if err := m.validate(s.Type); err != nil {
			return err
		}
	}
	if err := s.validateNames(); err != nil {
		return err
	}
	return s.Options.validate()
}

// maxRights is SCM_MAX_FD.
const maxRights = 253

func (m message) validate(typ int) error {
	switch {
	case typ == unix.SOCK_STREAM && len(m.Data) == 0:
		return errors.New("an empty message in a stream")
	case typ != unix.SOCK_DGRAM && len(m.From) > 0:
		return errors.New("a message of a connection with a sender of its own")
	case len(m.Files) > maxRights:
		return fmt.Errorf("a message with %d descriptors", len(m.Files))
	case m.Sender != nil && m.Sender.PID < 0:
		return fmt.Errorf("a message from process %d", m.Sender.PID)
	}
	return checkName(m.From)
}

func (s unixSocket) validateNames() error {
	for _, name := range [][]byte{s.Name, s.PeerName} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	_, isPath := pathOf(s.Name)
	switch {
	case isPath != (s.File != nil):
		return errors.New("a path without a file, or a file without a path")
	case s.Listen != nil && (s.connected() || s.Waiting || s.Type == unix.SOCK_DGRAM || len(s.Name) == 0):
		return errors.New("a listener that is connected, for datagrams, or without a name")
	case s.Listen != nil && s.Listen.Backlog < 0:
		return fmt.Errorf("listener %+v", *s.Listen)
	case len(s.PeerName) > 0 && !s.connected() && !s.Waiting:
		return errors.New("a peer's name without a connection")
	}
	return s.File.validate(s.Name)
}

func (f *socketFile) validate(name []byte) error {
	if f == nil {
		return nil
	}
	for _, path := range []string{f.Dir, f.Path} {
		if path != "" && (path[0] != '/' || path != filepath.Clean(path)) {
			return fmt.Errorf("path %q", path)
		}
	}
	switch {
	case f.Mode&^0o777 != 0 || f.Directory.Check() != nil || f.GID < 0 || f.UID < 0:
		return fmt.Errorf("file %+v", *f)
	case f.Path != "" && name[0] != '/' && f.Dir == "":
		return fmt.Errorf("relative name %q without a directory", name)
	}
	return nil
}

// maxName is the size of sun_path.
const maxName = 108

func checkName(name []byte) error {
	if len(name) > maxName {
		return fmt.Errorf("a name of %d bytes", len(name))
	}
	if path, isPath := pathOf(name); isPath && strings.ContainsRune(path, 0) {
		return fmt.Errorf("the name %q", name)
	}
	return nil
}
