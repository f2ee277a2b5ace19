package timer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// CLOCK_MONOTONIC of a restarted tree goes on from where it stood, and so do
// timers: what remains is reckoned from the moment at which the tree was saved
// to that at which a timer is armed. Both are told by that clock.

// countsTime says whether a clock goes on by itself: the others are of CPUs.
func countsTime(clock int) bool {
	return clock >= 0 && clock != unix.CLOCK_PROCESS_CPUTIME_ID && clock != unix.CLOCK_THREAD_CPUTIME_ID
}

// agentTime is CLOCK_MONOTONIC of the agent.
func agentTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // never fails
	return time.Duration(now.Nano())
}

// clockOffset returns how far CLOCK_MONOTONIC of proc is ahead of the agent's,
// time_namespaces(7).
func clockOffset(proc plugin.Process) (time.Duration, error) {
	theirs, err := namespaceOffset(fmt.Sprintf("/proc/%d/timens_offsets", plugin.LiveTID(proc)))
	if err != nil {
		return 0, err
	}
	mine, err := namespaceOffset("/proc/self/timens_offsets")
	return theirs - mine, err
}

// namespaceOffset reads what a time namespace adds to CLOCK_MONOTONIC: nothing
// where the kernel has none.
func namespaceOffset(path string) (time.Duration, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseOffset(string(raw))
}

// parseOffset finds the line of CLOCK_MONOTONIC: its name, seconds and
// nanoseconds.
func parseOffset(raw string) (time.Duration, error) {
	for line := range strings.Lines(raw) {
		var sec, nsec int64
		if n, _ := fmt.Sscanf(line, "monotonic %d %d", &sec, &nsec); n == 2 {
			return time.Duration(sec)*time.Second + time.Duration(nsec), nil
		}
	}
	return 0, fmt.Errorf("timens_offsets: no monotonic clock in %q", raw)
}

// decodeTime reads a timespec.
func decodeTime(b []byte) time.Duration {
	return duration(int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:])))
}

// closely does what is to take no time, again where the agent was kept waiting
// meanwhile. It returns the agent's time after it.
func closely(do func() error) (time.Duration, error) {
	for range 4 {
		before := agentTime()
		if err := do(); err != nil {
			return 0, err
		}
		if after := agentTime(); after-before < time.Millisecond {
			return after, nil
		}
	}
	err := do()
	return agentTime(), err
}

// ownClock says whether proc is in a time namespace of its own. Where a kernel
// has none, the clock of a restarted tree is another.
func ownClock(proc plugin.Process) bool {
	mine, err := os.Readlink("/proc/self/ns/time")
	theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", plugin.LiveTID(proc)))
	return err == nil && err2 == nil && mine != theirs
}

// restartClock tells how much time has passed for a restarted tree: none where
// its clock does not go on.
type restartClock struct {
	goesOn bool
	began  time.Duration // the agent's time at which the tree's was that of the save
}

func newRestartClock(proc plugin.Process, saved time.Duration) (restartClock, error) {
	if !ownClock(proc) {
		return restartClock{}, nil
	}
	offset, err := clockOffset(proc)
	return restartClock{goesOn: true, began: saved - offset}, err
}

func (c restartClock) passed() time.Duration {
	if !c.goesOn {
		return 0
	}
	return max(agentTime()-c.began, 0)
}

// later adds to the value of a timer, but not to that of one that is not armed.
func (s *spec) later(d time.Duration) {
	switch {
	case s.Value == 0:
	case s.Value > math.MaxInt64-d:
		s.Value = math.MaxInt64
	default:
		s.Value += d
	}
}

// forward takes d off the value of a timer. It returns how often the timer has
// expired meanwhile: one that was to expire once then has no value.
func (s *spec) forward(d time.Duration) (times uint64) {
	switch {
	case s.Value == 0:
	case s.Value > d:
		s.Value -= d
	case s.Interval == 0:
		s.Value = 0
		return 1
	default:
		late := d - s.Value
		times = uint64(late/s.Interval) + 1
		s.Value = s.Interval - late%s.Interval
	}
	return times
}
