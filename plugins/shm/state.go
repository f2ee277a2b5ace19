package shm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/strictjson"
)

// stateFormat is the one format so far.
const stateFormat = 1

// state is what the image holds. Pids are as the program sees them.
type state struct {
	Segments   []segment    `json:"segments,omitempty"`
	Attached   []attachment `json:"attached,omitempty"` // mappings of segments
	Semaphores []semSet     `json:"semaphores,omitempty"`
	Undo       []undo       `json:"undo,omitempty"`
	Queues     []msgQueue   `json:"message_queues,omitempty"`
	POSIX      []posixQueue `json:"posix_queues,omitempty"`
	Files      map[int]mqd  `json:"posix_files,omitempty"` // by plugin.OpenFile's ID
}

// perm is struct ipc_perm, with the object's id.
type perm struct {
	ID   int    `json:"id"`
	Key  int32  `json:"key"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	CUID uint32 `json:"cuid"`
	CGID uint32 `json:"cgid"`
	Mode uint32 `json:"mode"`
	// Doubtful: nothing shows that the computation uses it. Where it is still
	// there at a restart, it is left alone.
	Doubtful bool `json:"doubtful,omitempty"`
	// Unproven: it was made since the launch, and nobody else alive has used
	// it, but nothing else shows that it is of the computation. It is restored
	// in a new namespace only, where it is in nobody's way.
	Unproven bool `json:"unproven,omitempty"`
}

// Bits of shm_perm.mode beyond the permissions, shmctl(2).
const (
	shmDest   = 0o1000
	shmLocked = 0o2000
)

type segment struct {
	perm
	Size    uint64 `json:"size,string"`
	Huge    uint   `json:"huge_shift,omitempty"` // log2 of the size of its huge pages
	Creator int    `json:"cpid"`
	Last    int    `json:"lpid"`
	// Whole is a mapping that was made for the checkpoint only, where no
	// process maps all of the segment.
	Whole *place `json:"whole,omitempty"`
}

type place struct {
	PID  int    `json:"pid"`
	Addr uint64 `json:"addr,string"`
}

type semSet struct {
	perm
	Values []uint16 `json:"values"`
	PIDs   []int    `json:"pids"` // sempid of each
	// Unused: there was no semop(2) yet, sem_otime is 0. By that programs tell a
	// set that is not initialized.
	Unused bool `json:"unused,omitempty"`
}

// undo is what a process's end adds to a semaphore, semop(2) SEM_UNDO.
type undo struct {
	PID   int `json:"pid"`
	ID    int `json:"id"`
	Num   int `json:"num"`
	Count int `json:"count"`
}

type msgQueue struct {
	perm
	Limit    uint64    `json:"msg_qbytes,string"`
	Sender   int       `json:"lspid"`
	Receiver int       `json:"lrpid"`
	Messages []message `json:"messages,omitempty"`
}

type message struct {
	Type int64  `json:"type,string"`
	Data []byte `json:"data"`
}

type posixQueue struct {
	Name     string         `json:"name"` // without the slash
	Unlinked bool           `json:"unlinked,omitempty"`
	UID      uint32         `json:"uid"`
	GID      uint32         `json:"gid"`
	Mode     uint32         `json:"mode"`
	Maximum  int64          `json:"maxmsg"`
	Size     int64          `json:"msgsize"`
	Messages []posixMessage `json:"messages,omitempty"` // in the order in which they are received
	Notify   *notification  `json:"notify,omitempty"`
}

type posixMessage struct {
	Priority uint32 `json:"priority"`
	Data     []byte `json:"data"`
}

// notification is a registration by mq_notify(3).
type notification struct {
	PID    int    `json:"pid"`
	FD     int    `json:"fd"`
	Signal int    `json:"signal"` // 0: SIGEV_NONE
	Value  uint64 `json:"sigev_value,string"`
}

// mqd is an open file description of a queue.
type mqd struct {
	Queue int `json:"queue"` // index in POSIX
	Flags int `json:"flags"`
}

// Save writes the state.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	return json.NewEncoder(w).Encode(p.state)
}

// Load reads and validates a state.
func (p *Plugin) Load(_ context.Context, format uint16, r io.Reader) error {
	if format != stateFormat {
		return fmt.Errorf("shm: state format %d is unknown, want %d", format, stateFormat)
	}
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return fmt.Errorf("shm: state: %w", err)
	}
	if err := s.validate(); err != nil {
		return fmt.Errorf("shm: state: %w", err)
	}
	p.state = s
	return nil
}

func (s *state) validate() error {
	for _, check := range []func() error{s.checkSegments, s.checkSemaphores, s.checkQueues, s.checkPOSIX} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// unique refuses ids that stand twice, or are out of their range.
type unique map[int]bool

func (u unique) take(p perm) error {
	const modes = 0o777 | shmDest | shmLocked
	if p.ID < 0 || p.ID > math.MaxInt32 || u[p.ID] {
		return fmt.Errorf("id %d is impossible or stands twice", p.ID)
	}
	if p.Mode&^modes != 0 {
		return fmt.Errorf("id %d: mode %#o", p.ID, p.Mode)
	}
	u[p.ID] = true
	return nil
}

func (s *state) checkSegments() error {
	ids := unique{}
	for _, g := range s.Segments {
		if err := ids.take(g.perm); err != nil {
			return fmt.Errorf("segment: %w", err)
		}
		if g.Size == 0 || g.Size > math.MaxInt64 || g.Huge > 40 {
			return fmt.Errorf("segment %d: size %d, huge pages 1<<%d", g.ID, g.Size, g.Huge)
		}
		if g.Whole != nil && g.Whole.PID <= 0 {
			return fmt.Errorf("segment %d: mapped in process %d", g.ID, g.Whole.PID)
		}
	}
	for _, a := range s.Attached {
		if !ids[a.ID] || a.End <= a.Start || a.Offset > a.Start || a.Offset > math.MaxInt64 {
			return fmt.Errorf("mapping %x-%x of segment %d", a.Start, a.End, a.ID)
		}
	}
	return nil
}

const (
	semMax  = math.MaxInt16 // SEMVMX, SEMAEM
	semsMax = 1 << 16
)

func (s *state) checkSemaphores() error {
	ids := unique{}
	sizes := map[int]int{}
	for _, set := range s.Semaphores {
		if err := ids.take(set.perm); err != nil {
			return fmt.Errorf("semaphores: %w", err)
		}
		if len(set.Values) == 0 || len(set.Values) > semsMax || len(set.PIDs) != len(set.Values) {
			return fmt.Errorf("semaphores %d: %d values, %d pids", set.ID, len(set.Values), len(set.PIDs))
		}
		for _, v := range set.Values {
			if v > semMax {
				return fmt.Errorf("semaphores %d: value %d", set.ID, v)
			}
		}
		sizes[set.ID] = len(set.Values)
	}
	for _, u := range s.Undo {
		if u.PID <= 0 || u.Num < 0 || u.Num >= sizes[u.ID] || u.Count < -semMax-1 || u.Count > semMax || u.Count == 0 {
			return fmt.Errorf("undo count %d of process %d for semaphore %d of set %d", u.Count, u.PID, u.Num, u.ID)
		}
	}
	return nil
}

func (s *state) checkQueues() error {
	ids := unique{}
	for _, q := range s.Queues {
		if err := ids.take(q.perm); err != nil {
			return fmt.Errorf("message queue: %w", err)
		}
		for i, m := range q.Messages {
			if m.Type <= 0 || len(m.Data) > math.MaxInt32 {
				return fmt.Errorf("message queue %d: message %d: type %d", q.ID, i, m.Type)
			}
		}
	}
	return nil
}

// Limits that no privilege moves, mq_overview(7).
const (
	mqMaxMessages = 65536
	mqMaxSize     = 16 << 20
	mqMaxPriority = 32768
)

func (s *state) checkPOSIX() error {
	names := map[string]bool{}
	for _, q := range s.POSIX {
		if q.Name == "" || len(q.Name) > unix.NAME_MAX || strings.ContainsAny(q.Name, "/\x00") || q.Name == "." || q.Name == ".." {
			return fmt.Errorf("POSIX queue of the name %.300q", q.Name)
		}
		if !q.Unlinked && names[q.Name] {
			return fmt.Errorf("POSIX queue /%s stands twice", q.Name)
		}
		names[q.Name] = !q.Unlinked || names[q.Name]
		if err := q.validate(); err != nil {
			return fmt.Errorf("POSIX queue /%s: %w", q.Name, err)
		}
	}
	for id, f := range s.Files {
		if f.Queue < 0 || f.Queue >= len(s.POSIX) || f.Flags&^(unix.O_ACCMODE|unix.O_NONBLOCK) != 0 || f.Flags&unix.O_ACCMODE == unix.O_ACCMODE {
			return fmt.Errorf("open file %d: queue %d, flags %#o", id, f.Queue, f.Flags)
		}
	}
	return nil
}

func (q *posixQueue) validate() error {
	if q.Maximum <= 0 || q.Maximum > mqMaxMessages || q.Size <= 0 || q.Size > mqMaxSize || q.Mode&^0o7777 != 0 {
		return fmt.Errorf("%d messages of %d bytes, mode %#o", q.Maximum, q.Size, q.Mode)
	}
	if int64(len(q.Messages)) > q.Maximum {
		return errors.New("more messages than it holds")
	}
	for _, m := range q.Messages {
		if m.Priority >= mqMaxPriority || int64(len(m.Data)) > q.Size {
			return fmt.Errorf("message of %d bytes, priority %d", len(m.Data), m.Priority)
		}
	}
	if n := q.Notify; n != nil && (n.PID <= 0 || n.FD < 0 || n.Signal < 0 || n.Signal > lastSignal) {
		return fmt.Errorf("notification of process %d by signal %d", n.PID, n.Signal)
	}
	return nil
}

const lastSignal = 64 // _NSIG
