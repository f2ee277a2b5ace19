package event

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

// state is what the image holds, by plugin.OpenFile's ID.
type state struct {
	Files map[int]file `json:"files,omitempty"`
	AIO   []aioContext `json:"aio,omitempty"`
}

// file has exactly one member that is not nil. Numbers of 64 bits are
// strings, since many readers of JSON keep 53 bits.
type file struct {
	EventFD  *eventFD  `json:"eventfd,omitempty"`
	SignalFD *signalFD `json:"signalfd,omitempty"`
	Epoll    *epoll    `json:"epoll,omitempty"`
	Inotify  *inotify  `json:"inotify,omitempty"`
	PIDFD    *pidFD    `json:"pidfd,omitempty"`
}

type eventFD struct {
	Count     uint64 `json:"count,string"`
	Semaphore bool   `json:"semaphore"`
}

// signalFD holds the set of signals: bit n-1 is signal n.
type signalFD struct {
	Mask uint64 `json:"mask,string"`
}

type epoll struct {
	Targets []target     `json:"targets"`
	Quiet   bool         `json:"quiet"` // epoll_wait(2) would have told nothing
	Params  *epollParams `json:"params,omitempty"`
}

// target is a registration: what epoll_ctl(2) is called with, and in which
// process.
type target struct {
	PID     int    `json:"pid"`
	EpollFD int    `json:"epoll_fd"`
	FD      int    `json:"fd"`
	Events  uint32 `json:"events"`
	Data    uint64 `json:"data,string"`
	// From is where the file is open, if not as FD any more.
	From *source `json:"from,omitempty"`
	// Ready is what the file of an edge-triggered registration of a quiet
	// epoll was ready for.
	Ready uint32 `json:"ready,omitempty"`
}

// source is a descriptor of a process.
type source struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
}

func (s *source) validate() error {
	if s != nil && (s.PID <= 0 || s.FD < 0) {
		return fmt.Errorf("pid %d fd %d", s.PID, s.FD)
	}
	return nil
}

// file is the descriptor that is registered.
func (t target) file() source { return source{PID: t.PID, FD: t.FD} }

// spent says that the registration had EPOLLONESHOT and has fired: the kernel
// then clears all but the flags of the registration (EP_PRIVATE_BITS).
func (t target) spent() bool {
	return t.Events&unix.EPOLLONESHOT != 0 && t.Events&^uint32(privateBits) == 0
}

// edge says that the registration tells of each change once.
func (t target) edge() bool {
	return t.Events&(unix.EPOLLET&math.MaxUint32) != 0 && t.Events&unix.EPOLLONESHOT == 0 && t.From == nil
}

const privateBits = unix.EPOLLWAKEUP | unix.EPOLLONESHOT | unix.EPOLLET&math.MaxUint32 | unix.EPOLLEXCLUSIVE

type inotify struct {
	Watches []watch `json:"watches"`
	Queued  bool    `json:"queued"` // events waited to be read
}

// watch is of the file at Path, as the program sees it, or of one without a
// path that is open as From.
type watch struct {
	WD   int     `json:"wd"`
	Mask uint32  `json:"mask"`
	Path string  `json:"path,omitempty"`
	From *source `json:"from,omitempty"`
}

// pidFD names the process as the program sees it, and the thread if it is of
// one that is no leader; or it is of one that has ended and was waited for.
type pidFD struct {
	PID   int    `json:"pid,omitempty"`
	TID   int    `json:"tid,omitempty"`
	Ended *ended `json:"ended,omitempty"`
}

// ended is a process, or thread, that nothing but its pidfds is left of.
type ended struct {
	Process uint64 `json:"process,string"` // the same for all pidfds of one
	Status  int    `json:"status"`         // as wait(2) describes
	Thread  bool   `json:"thread"`         // PIDFD_THREAD
}

func (s *pidFD) validate() error {
	if s.Ended == nil {
		if s.PID <= 0 || s.TID < 0 {
			return fmt.Errorf("pid %d, thread %d", s.PID, s.TID)
		}
		return nil
	}
	ws := unix.WaitStatus(s.Ended.Status)
	if s.PID != 0 || s.TID != 0 || s.Ended.Status>>16 != 0 || !ws.Exited() && !ws.Signaled() {
		return fmt.Errorf("pid %d, thread %d, ended with the wait status %#x", s.PID, s.TID, s.Ended.Status)
	}
	return nil
}

func (s *state) add(id int, f file) {
	if s.Files == nil {
		s.Files = make(map[int]file)
	}
	s.Files[id] = f
}

// Save writes the state.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	return json.NewEncoder(w).Encode(p.state)
}

// Load reads and validates a state.
func (p *Plugin) Load(_ context.Context, format uint16, r io.Reader) error {
	if format != stateFormat {
		return fmt.Errorf("event: state format %d is unknown, want %d", format, stateFormat)
	}
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return fmt.Errorf("event: state: %w", err)
	}
	for id, f := range s.Files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("event: state of open file %d: %w", id, err)
		}
	}
	for i := range s.AIO {
		if err := s.AIO[i].validate(); err != nil {
			return fmt.Errorf("event: state of asynchronous I/O: %w", err)
		}
	}
	p.state = s
	return nil
}

func (f file) validate() error {
	kinds := 0
	if f.EventFD != nil {
		kinds++
		if f.EventFD.Count == math.MaxUint64 {
			return errors.New("eventfd: count is above the greatest, 2^64-2")
		}
	}
	if f.SignalFD != nil {
		kinds++
	}
	if f.Epoll != nil {
		kinds++
		for _, t := range f.Epoll.Targets {
			if t.PID <= 0 || t.EpollFD < 0 || t.FD < 0 || t.FD == math.MaxInt32 || t.From.validate() != nil {
				return fmt.Errorf("epoll: registration of fd %d in pid %d fd %d", t.FD, t.PID, t.EpollFD)
			}
		}
	}
	if f.Inotify != nil {
		kinds++
		if err := f.Inotify.validate(); err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
	}
	if f.PIDFD != nil {
		kinds++
		if err := f.PIDFD.validate(); err != nil {
			return fmt.Errorf("pidfd: %w", err)
		}
	}
	if kinds != 1 {
		return fmt.Errorf("%d kinds of file, want one", kinds)
	}
	return nil
}

func (s *inotify) validate() error {
	for _, w := range s.Watches {
		if w.WD <= 0 || w.WD > math.MaxInt32 {
			return fmt.Errorf("watch %d", w.WD)
		}
		named := strings.HasPrefix(w.Path, "/") && !strings.ContainsRune(w.Path, 0)
		if named == (w.From != nil) || w.From != nil && w.Path != "" || w.From.validate() != nil {
			return fmt.Errorf("watch %d: path %q, descriptor %v", w.WD, w.Path, w.From)
		}
	}
	return nil
}
