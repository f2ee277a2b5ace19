package timer

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/hiatus-project/hiatus/internal/strictjson"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// stateFormat is the one format so far.
const stateFormat = 1

// state is what the image holds.
type state struct {
	// Now is CLOCK_MONOTONIC of the tree to which what remains refers.
	Now       time.Duration   `json:"now_ns,omitempty"`
	TimerFDs  map[int]timerFD `json:"timerfds,omitempty"`  // by plugin.OpenFile's ID
	Processes map[int]process `json:"processes,omitempty"` // by pid
}

// spec is when a timer expires: in Value, and then each Interval. A Value of
// 0 is a timer that is not armed.
type spec struct {
	Value    time.Duration `json:"value_ns"`
	Interval time.Duration `json:"interval_ns"`
}

type timerFD struct {
	Clock int    `json:"clock"`
	Ticks uint64 `json:"ticks,string"` // expirations not read yet
	spec
	// Absolute says that the timer waits for Deadline, a time of day in
	// nanoseconds since the epoch.
	Absolute    bool  `json:"absolute"`
	CancelOnSet bool  `json:"cancel_on_set"` // TFD_TIMER_CANCEL_ON_SET
	Deadline    int64 `json:"deadline_ns"`
}

type process struct {
	ITimers map[int]spec `json:"itimers,omitempty"` // by ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
	Timers  []posixTimer `json:"timers,omitempty"`  // ids ascend
}

type posixTimer struct {
	ID     int    `json:"id"`
	Clock  int    `json:"clock"`
	Signal int    `json:"signal"`
	Value  uint64 `json:"sigev_value,string"`
	Notify int    `json:"notify"` // sigev_notify
	TID    int    `json:"tid"`    // of SIGEV_THREAD_ID, else 0
	Spec   spec   `json:"spec"`
	// Overrun is what timer_getoverrun(2) says of the last signal.
	Overrun int `json:"overrun,omitempty"`
	// Pending: its signal waits to be delivered.
	Pending bool `json:"pending,omitempty"`
}

func (s *state) addTimerFD(id int, t timerFD) {
	if s.TimerFDs == nil {
		s.TimerFDs = make(map[int]timerFD)
	}
	s.TimerFDs[id] = t
}

func (s *state) addProcess(pid int, p process) {
	if s.Processes == nil {
		s.Processes = make(map[int]process)
	}
	s.Processes[pid] = p
}

// Save writes the state.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	return json.NewEncoder(w).Encode(p.state)
}

// Load reads and validates a state.
func (p *Plugin) Load(_ context.Context, format uint16, r io.Reader) error {
	if format != stateFormat {
		return fmt.Errorf("timer: state format %d is unknown, want %d", format, stateFormat)
	}
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return fmt.Errorf("timer: state: %w", err)
	}
	if s.Now < 0 {
		return fmt.Errorf("timer: state: time %d", s.Now)
	}
	for id, t := range s.TimerFDs {
		if err := t.validate(); err != nil {
			return fmt.Errorf("timer: state of open file %d: %w", id, err)
		}
	}
	for pid, saved := range s.Processes {
		if err := saved.validate(); err != nil {
			return fmt.Errorf("timer: state of pid %d: %w", pid, err)
		}
	}
	p.state = s
	return nil
}

func (s spec) validate() error {
	if s.Value < 0 || s.Interval < 0 {
		return fmt.Errorf("value %d ns, interval %d ns: less than zero", s.Value, s.Interval)
	}
	return nil
}

func (t timerFD) validate() error {
	switch t.Clock {
	case unix.CLOCK_REALTIME, unix.CLOCK_REALTIME_ALARM:
	case unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME, unix.CLOCK_BOOTTIME_ALARM:
		if t.Absolute {
			return fmt.Errorf("timerfd: clock %d is not a time of day", t.Clock)
		}
	default:
		return fmt.Errorf("timerfd: clock %d", t.Clock)
	}
	if t.Deadline < 0 {
		return fmt.Errorf("timerfd: deadline %d", t.Deadline)
	}
	return t.spec.validate()
}

// maxTimers bounds the POSIX timers of a process: the kernel's limit is
// RLIMIT_SIGPENDING, of the order of the number of processes.
const maxTimers = 1 << 20

func (p process) validate() error {
	for which, s := range p.ITimers {
		if which < unix.ITIMER_REAL || which > unix.ITIMER_PROF {
			return fmt.Errorf("interval timer %d", which)
		}
		if err := s.validate(); err != nil {
			return fmt.Errorf("interval timer %d: %w", which, err)
		}
	}
	if len(p.Timers) > maxTimers {
		return fmt.Errorf("%d POSIX timers", len(p.Timers))
	}
	last := -1
	for _, t := range p.Timers {
		if t.ID <= last || t.ID > math.MaxInt32 {
			return fmt.Errorf("POSIX timer %d after %d", t.ID, last)
		}
		last = t.ID
		if err := t.validate(); err != nil {
			return fmt.Errorf("POSIX timer %d: %w", t.ID, err)
		}
	}
	return nil
}

func (t posixTimer) validate() error {
	if t.Clock < math.MinInt32 || t.Clock > math.MaxInt32 {
		return fmt.Errorf("clock %d", t.Clock)
	}
	if t.Signal < 0 || t.Signal > lastSignal {
		return fmt.Errorf("signal %d", t.Signal)
	}
	switch t.Notify {
	case sigevSignal, sigevNone, sigevThread:
		if t.TID != 0 {
			return fmt.Errorf("notify %d with thread %d", t.Notify, t.TID)
		}
	case sigevThreadID:
		if t.TID <= 0 {
			return fmt.Errorf("notify thread %d", t.TID)
		}
	default:
		return fmt.Errorf("notify %d", t.Notify)
	}
	if t.Overrun < 0 || t.Overrun > math.MaxInt32 {
		return fmt.Errorf("overrun %d", t.Overrun)
	}
	return t.Spec.validate()
}
