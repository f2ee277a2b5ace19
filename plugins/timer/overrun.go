package timer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// An overrun count cannot be set, timer_getoverrun(2). It is repeated: the
// timer is armed as if it had been due as many intervals ago, and its signal is
// taken at once. That leaves the count, and the timer due when it was to be.

// canSignalNow says whether the timer can be made to signal at once, and no
// injection takes the signal.
func (t posixTimer) canSignalNow() bool {
	switch t.Clock {
	case unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME, unix.CLOCK_TAI:
	default:
		return false
	}
	switch unix.Signal(t.Signal) {
	case 0, unix.SIGKILL, unix.SIGSTOP, unix.SIGWINCH, unix.SIGURG, unix.SIGCHLD: // an injection may use the latter
		return false
	}
	return true
}

// overrunCanBeRepeated says whether the leader, pid, can take the signal, and
// the clock does not stand at its beginning.
func (t posixTimer) overrunCanBeRepeated(pid int) bool {
	return t.canSignalNow() && t.Overrun > 0 && t.Spec.Interval > 0 &&
		(t.Notify == sigevSignal || t.Notify == sigevThreadID && t.TID == pid)
}

// Places behind those of maker.
const (
	nowAt     = 128
	pastAt    = nowAt + 16
	setAt     = pastAt + itimerSize
	timeoutAt = setAt + 8
	placesEnd = timeoutAt + 16
)

// repeatOverrun returns false where it did not succeed: then the timer is to
// be armed without.
func (m maker) repeatOverrun(ctx context.Context, t posixTimer) (bool, error) {
	now, err := m.now(ctx, t.Clock)
	if err != nil {
		return false, err
	}
	missed := int64(t.Overrun) + 1
	if int64(t.Spec.Interval) > math.MaxInt64/missed || t.Spec.Value > math.MaxInt64-now {
		return false, nil
	}
	first := now + t.Spec.Value - time.Duration(missed)*t.Spec.Interval
	if first <= 0 || first > now {
		return false, nil
	}
	b := make([]byte, placesEnd-nowAt)
	copy(b[pastAt-nowAt:], spec{Value: first, Interval: t.Spec.Interval}.encode(time.Nanosecond))
	binary.NativeEndian.PutUint64(b[setAt-nowAt:], 1<<(t.Signal-1))
	if _, err := m.proc.WriteAt(b, int64(m.addr+nowAt)); err != nil {
		return false, fmt.Errorf("scratch memory: %w", err)
	}
	calls := []plugin.Call{
		{Nr: unix.SYS_TIMER_SETTIME, Args: [6]uintptr{uintptr(t.ID), unix.TIMER_ABSTIME, uintptr(m.addr + pastAt)}},
		{Nr: unix.SYS_RT_SIGTIMEDWAIT, Args: [6]uintptr{uintptr(m.addr + setAt), 0, uintptr(m.addr + timeoutAt), 8}, MayFail: true},
	}
	if err := m.proc.Batch(ctx, calls); err != nil {
		return false, fmt.Errorf("timer_settime: %w", err)
	}
	if e := calls[1].Err; e != 0 && !errors.Is(e, unix.EAGAIN) { // EAGAIN: the signal is ignored
		return false, fmt.Errorf("rt_sigtimedwait: %w", e)
	}
	return calls[1].Err == 0, nil
}
