package timer

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// The signal of a timer that is pending stands for all expirations until it is
// delivered, timer_getoverrun(2). One that is queued again by hand would not:
// so the timer expires again, while its signal is blocked.

// Places in a siginfo_t (include/uapi/asm-generic/siginfo.h).
const (
	siCode    = 8
	siTimerID = 16 // si_timerid
	siTimer   = -2 // SI_TIMER
)

// findPending marks the timers whose signal is pending.
func findPending(proc plugin.Process, timers []posixTimer) error {
	if len(timers) == 0 {
		return nil
	}
	signals, err := proc.PendingSignals()
	if err != nil {
		return err
	}
	pending := map[int]bool{}
	for _, si := range signals {
		if len(si) >= siTimerID+4 && int32(binary.NativeEndian.Uint32(si[siCode:])) == siTimer {
			pending[int(int32(binary.NativeEndian.Uint32(si[siTimerID:])))] = true
		}
	}
	for i := range timers {
		timers[i].Pending = pending[timers[i].ID]
	}
	return nil
}

// canExpireAgain says whether the timer's signal is pending, and can be again.
// One that was set anew since, to expire once, is not due.
func (t posixTimer) canExpireAgain() bool {
	return t.Pending && t.canSignalNow() && (t.Notify == sigevSignal || t.Notify == sigevThreadID) &&
		(t.Spec.Interval > 0) == (t.Spec.Value > 0)
}

// expireAgain arms t so that it has expired one interval before it is next due,
// and waits until its signal is pending.
func (m maker) expireAgain(ctx context.Context, t posixTimer) error {
	flags, s := uintptr(0), spec{Value: 1, Interval: t.Spec.Interval}
	if t.Spec.Interval > 0 {
		now, err := m.now(ctx, t.Clock)
		if err != nil {
			return err
		}
		last := now + min(t.Spec.Value-t.Spec.Interval, 0) - m.clock.passed()
		if last > 0 {
			flags, s.Value = unix.TIMER_ABSTIME, last
		}
	}
	if err := m.set(ctx, t, flags, s); err != nil {
		return err
	}
	for {
		got, err := readEach(ctx, m.proc, []plugin.Call{{Nr: unix.SYS_TIMER_GETTIME, Args: [6]uintptr{uintptr(t.ID)}}})
		if err != nil {
			return err
		}
		// What has come to its end but not signalled yet has 1 ns to go.
		if decodeSpec(got[0], time.Nanosecond).Value != 1 {
			return nil
		}
	}
}
