package socket

import (
	"context"
	"encoding/json"
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
	UNIX      map[int]unixSocket     `json:"unix,omitempty"`
	Datagrams map[int]datagramSocket `json:"datagrams,omitempty"`
	Netlink   map[int]netlinkSocket  `json:"netlink,omitempty"`
	Packet    map[int]packetSocket   `json:"packet,omitempty"`
	TCP       map[int]tcpSocket      `json:"tcp,omitempty"`
	Signals   map[int]signals        `json:"signals,omitempty"`
}

// options are of SOL_SOCKET, socket(7). Buffer sizes are as getsockopt reads
// them, and 0 where the program has not set them.
type options struct {
	Values         map[int]int   `json:"values"`
	SendBuffer     int           `json:"send_buffer,omitempty"`
	ReceiveBuffer  int           `json:"receive_buffer,omitempty"`
	SendTimeout    time.Duration `json:"send_timeout_ns,omitempty"`
	ReceiveTimeout time.Duration `json:"receive_timeout_ns,omitempty"`
	Linger         *linger       `json:"linger,omitempty"`
	Device         string        `json:"device,omitempty"`          // SO_BINDTODEVICE
	MaxPacingRate  uint64        `json:"max_pacing_rate,omitempty"` // bytes a second; 0: not limited
	TxTime         *txTime       `json:"tx_time,omitempty"`         // SO_TXTIME
	Filter         []byte        `json:"filter,omitempty"`          // of sock_filter, linux/filter.h
	FilterLocked   bool          `json:"filter_locked,omitempty"`
}

// linger is SO_LINGER of socket(7).
type linger struct {
	On      bool `json:"on"`
	Seconds int  `json:"seconds"`
}

func (s *state) add(id int, sock unixSocket) {
	if s.UNIX == nil {
		s.UNIX = make(map[int]unixSocket)
	}
	s.UNIX[id] = sock
}

// Save writes the state. It fails where what belongs together was not claimed
// as a whole.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	if err := p.refuseIncomplete(); err != nil {
		return err
	}
	if id, err := p.state.incompleteTCP(); err != nil {
		return plugin.Refuse(p.claimed[id], "%v", err)
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
	if err := s.validateUNIX(); err != nil {
		return fmt.Errorf("socket: state: %w", err)
	}
	for id, sig := range s.Signals {
		if err := sig.validate(); err != nil {
			return fmt.Errorf("socket: state of open file %d: %w", id, err)
		}
	}
	for id, sock := range s.Netlink {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("socket: state of open file %d: %w", id, err)
		}
	}
	for id, sock := range s.Packet {
		if err := sock.validate(); err != nil {
			return fmt.Errorf("socket: state of open file %d: %w", id, err)
		}
	}
	if err := s.validateDatagrams(); err != nil {
		return fmt.Errorf("socket: state of %w", err)
	}
	if err := s.validateTCP(); err != nil {
		return fmt.Errorf("socket: state of %w", err)
	}
	p.state = s
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
	if len(o.Device) >= unix.IFNAMSIZ || len(o.Filter)%8 != 0 || len(o.Filter) > 8*maxFilter {
		return fmt.Errorf("device %q, filter of %d bytes", o.Device, len(o.Filter))
	}
	return nil
}
