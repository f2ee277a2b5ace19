package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/strictjson"
	"github.com/hiatus-project/hiatus/plugin"
)

// stateFormat is the one format so far.
const stateFormat = 1

// state is what the image holds, by plugin.OpenFile's ID.
type state struct {
	UNIX    map[int]socket        `json:"unix,omitempty"`
	Netlink map[int]netlinkSocket `json:"netlink,omitempty"`
}

// socket is one UNIX socket. It listens (Listen), or is connected (Peer or
// PeerClosed), or is as socket(2) made it.
type socket struct {
	Type int    `json:"type"` // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
	Ino  uint32 `json:"ino"`  // by which the ends of a pair find each other
	// Name is sun_path as bind(2) was given it, unix(7): an absolute path, or
	// an abstract name, which begins with a zero byte. A connection has the
	// name of the listener that accepted it.
	Name   []byte    `json:"name,omitempty"`
	Listen *listener `json:"listen,omitempty"`

	Peer       uint32 `json:"peer,omitempty"` // inode
	PeerName   []byte `json:"peer_name,omitempty"`
	PeerClosed bool   `json:"peer_closed,omitempty"`
	Reset      bool   `json:"reset,omitempty"` // ECONNRESET is pending
	// Shutdown holds the directions that are shut down: 1 receive, 2 send.
	Shutdown uint8 `json:"shutdown,omitempty"`
	// Queue is what was received and not read: messages, or for a stream all
	// bytes as one.
	Queue   [][]byte `json:"queue,omitempty"`
	Options options  `json:"options"`
}

const (
	shutReceive = 1
	shutSend    = 2
)

// listener is a listening socket. Mode and GID are of its file.
type listener struct {
	Backlog int    `json:"backlog"`
	Mode    uint32 `json:"mode,omitempty"`
	GID     int    `json:"gid,omitempty"`
	Deleted bool   `json:"deleted,omitempty"` // the file is gone
}

// options are of SOL_SOCKET, socket(7). Buffer sizes are as getsockopt reads
// them, and 0 where the program has not set them.
type options struct {
	Values         map[int]int   `json:"values"`
	SendBuffer     int           `json:"send_buffer,omitempty"`
	ReceiveBuffer  int           `json:"receive_buffer,omitempty"`
	SendTimeout    time.Duration `json:"send_timeout_ns,omitempty"`
	ReceiveTimeout time.Duration `json:"receive_timeout_ns,omitempty"`
}

func (s socket) connected() bool { return s.Peer != 0 || s.PeerClosed }

func (s *state) add(id int, sock socket) {
	if s.UNIX == nil {
		s.UNIX = make(map[int]socket)
	}
	s.UNIX[id] = sock
}

// byInode returns the ID of the socket that had the inode.
func (s *state) byInode(ino uint32) (id int, ok bool) {
	for id, sock := range s.UNIX {
		if sock.Ino == ino {
			return id, true
		}
	}
	return 0, false
}

// incomplete returns the first socket found whose peer is not in the state,
// or is not connected to it.
func (s *state) incomplete() (id int, found bool) {
	inodes := make(map[uint32]socket, len(s.UNIX))
	for _, sock := range s.UNIX {
		inodes[sock.Ino] = sock
	}
	for id, sock := range s.UNIX {
		if sock.Peer == 0 {
			continue
		}
		peer, ok := inodes[sock.Peer]
		if !ok || peer.Ino == sock.Ino || peer.Peer != sock.Ino || peer.Type != sock.Type || !bytes.Equal(peer.Name, sock.PeerName) {
			return id, true
		}
	}
	return 0, false
}

// Save writes the state. It fails where one end of a pair was not claimed.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	if id, found := p.state.incomplete(); found {
		return plugin.Refuse(p.claimed[id], "its peer (inode %d) is not kept, or not connected to it", p.state.UNIX[id].Peer)
	}
	return json.NewEncoder(w).Encode(p.state)
}

// Load reads and validates a state.
func (p *Plugin) Load(_ context.Context, format uint16, r io.Reader) error {
	if format != stateFormat {
		return fmt.Errorf("socket: state format %d is unknown, want %d", format, stateFormat)
	}
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return fmt.Errorf("socket: state: %w", err)
	}
	inodes := make(map[uint32]bool, len(s.UNIX))
	for id, sock := range s.UNIX {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("socket: state of open file %d: %w", id, err)
		}
		if inodes[sock.Ino] {
			return fmt.Errorf("socket: state of open file %d: inode %d is there twice", id, sock.Ino)
		}
		inodes[sock.Ino] = true
	}
	if id, found := s.incomplete(); found {
		return fmt.Errorf("socket: state of open file %d: its peer (inode %d) is missing, or not connected to it", id, s.UNIX[id].Peer)
	}
	for id, sock := range s.Netlink {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("socket: state of open file %d: %w", id, err)
		}
	}
	p.state = s
	return nil
}

func (s socket) validate() error {
	switch {
	case s.Type != unix.SOCK_STREAM && s.Type != unix.SOCK_DGRAM && s.Type != unix.SOCK_SEQPACKET:
		return fmt.Errorf("type %d", s.Type)
	case s.Peer != 0 && s.PeerClosed:
		return errors.New("a peer that is closed and is not")
	case s.Reset && !(s.PeerClosed && s.Type == unix.SOCK_STREAM):
		return errors.New("a reset without a closed stream")
	case s.Shutdown&^(shutReceive|shutSend) != 0:
		return fmt.Errorf("shutdown %d", s.Shutdown)
	case len(s.Queue) > 0 && !s.connected():
		return errors.New("a queue without a connection")
	case len(s.Queue) > 1 && s.Type == unix.SOCK_STREAM:
		return fmt.Errorf("a stream of %d messages", len(s.Queue))
	}
	for _, m := range s.Queue {
		if len(m) == 0 {
			return errors.New("an empty message")
		}
	}
	if err := s.validateNames(); err != nil {
		return err
	}
	return s.Options.validate()
}

func (s socket) validateNames() error {
	for _, name := range [][]byte{s.Name, s.PeerName} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	switch {
	case s.Listen != nil && (s.connected() || s.Type == unix.SOCK_DGRAM || len(s.Name) == 0):
		return errors.New("a listener that is connected, for datagrams, or without a name")
	case s.Listen != nil && (s.Listen.Backlog < 0 || s.Listen.Mode&^0o777 != 0 || s.Listen.GID < 0):
		return fmt.Errorf("listener %+v", *s.Listen)
	case s.Listen == nil && len(s.Name) > 0 && !s.connected():
		return errors.New("a name without a listener or a connection")
	case s.connected() && len(s.Name) > 0 && len(s.PeerName) > 0:
		return errors.New("both ends have names")
	case s.Type == unix.SOCK_DGRAM && (len(s.Name) > 0 || len(s.PeerName) > 0):
		return errors.New("a name of a socket for datagrams")
	case len(s.PeerName) > 0 && !s.connected():
		return errors.New("a peer's name without a connection")
	}
	return nil
}

// maxName is the size of sun_path.
const maxName = 108

// checkName says whether name can be bound again from anywhere.
func checkName(name []byte) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes", len(name))
	case len(name) > 0 && name[0] != 0 && name[0] != '/':
		return fmt.Errorf("bound to the relative path %q: not kept yet", name)
	}
	return nil
}

func (o options) validate() error {
	for opt := range o.Values {
		if !isKept(opt) {
			return fmt.Errorf("option %d", opt)
		}
	}
	if o.SendBuffer < 0 || o.ReceiveBuffer < 0 || o.SendTimeout < 0 || o.ReceiveTimeout < 0 {
		return fmt.Errorf("options %+v", o)
	}
	return nil
}
