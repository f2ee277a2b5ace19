package procparse

import (
	"fmt"
	"strconv"
	"strings"
)

// Timer is a POSIX timer as /proc/PID/timers tells it, proc_pid_timers(5).
// When it expires next is read with timer_gettime(2) in the process. TID and
// PID are in the pid namespace of the /proc mount that was read.
type Timer struct {
	ID     int    // the kernel's timer_t
	Signal int    // sigev_signo
	Value  uint64 // sigev_value
	Notify string // "signal", "none" or "thread"; with TID, SIGEV_THREAD_ID
	TID    int    // the thread to notify, 0 where the process is
	PID    int    // the process to notify, 0 where a thread is
	Clock  int    // clockid_t; negative for a CPU clock of a process or thread
}

// ParseTimers parses the content of /proc/PID/timers.
func ParseTimers(raw []byte) ([]Timer, error) {
	var all []Timer
	for line := range strings.Lines(string(raw)) {
		key, val, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, val = strings.TrimSpace(key), strings.TrimSpace(val)
		if key == "ID" {
			all = append(all, Timer{})
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("timers: %s %q before the first ID", key, val)
		}
		if err := all[len(all)-1].set(key, val); err != nil {
			return nil, fmt.Errorf("timers: %s %q: %w", key, val, err)
		}
	}
	return all, nil
}

func (t *Timer) set(key, val string) (err error) {
	switch key {
	case "ID":
		t.ID, err = strconv.Atoi(val)
	case "ClockID":
		t.Clock, err = strconv.Atoi(val)
	case "signal": // 10/00007fff86e452a8
		sig, ptr, _ := strings.Cut(val, "/")
		if t.Signal, err = strconv.Atoi(sig); err != nil {
			return err
		}
		t.Value, err = strconv.ParseUint(ptr, 16, 64)
	case "notify": // signal/pid.2634
		how, who, _ := strings.Cut(val, "/")
		what, id, _ := strings.Cut(who, ".")
		t.Notify, t.TID, t.PID = how, 0, 0
		switch what {
		case "tid":
			t.TID, err = strconv.Atoi(id)
		case "pid":
			t.PID, err = strconv.Atoi(id)
		default:
			err = fmt.Errorf("neither tid nor pid")
		}
	}
	return err
}
