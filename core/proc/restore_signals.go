package proc

import (
	"bytes"
	"context"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// pendingSignals is the set of signals that are pending in the image.
func (ps *ProcessState) pendingSignals() (set uint64) {
	add := func(list [][]byte) {
		for _, si := range list {
			set |= sigBit(syscall.Signal(le.Uint32(si)))
		}
	}
	add(ps.Pending)
	for i := range ps.Threads {
		add(ps.Threads[i].Pending)
	}
	return set
}

// queueShared gives the process its pending signals: those that the end of helpers and
// zombies has caused, and setStops, are taken away first. To ignore a signal would take
// it away too, sigaction(2).
func (r *Restorer) queueShared(ctx context.Context, p *Process, ps *ProcessState) error {
	b := newArgs(p)
	ours := b.put(le.AppendUint64(nil, sigBit(unix.SIGCHLD)|sigBit(unix.SIGCONT)))
	zero := b.put(make([]byte, 16))
	take := sys(unix.SYS_RT_SIGTIMEDWAIT, ours, 0, zero, 8).may()
	calls := []call{
		take, take, // one of each, at most
		sys(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), b.put(ps.Actions[unix.SIGCHLD-1]), 0, 8).as("rt_sigaction %d", unix.SIGCHLD),
	}
	if err := b.flush(ctx, p.threads[0], calls); err != nil {
		return err
	}
	pending, err := withoutExpired(ps.Pending, p.threads[0], true)
	if err != nil {
		return err
	}
	return b.queue(ctx, p.threads[0], pending, sys(unix.SYS_RT_SIGQUEUEINFO, uint64(p.pid)).as("rt_sigqueueinfo"))
}

// queueOwn gives a thread its pending signals.
func (r *Restorer) queueOwn(ctx context.Context, p *Process, th *Thread, ts *ThreadState) error {
	pending, err := withoutExpired(ts.Pending, th, false)
	if err != nil {
		return err
	}
	return newArgs(p).queue(ctx, th, pending, sys(unix.SYS_RT_TGSIGQUEUEINFO, uint64(p.pid), uint64(th.TID)).as("rt_tgsigqueueinfo"))
}

// queue queues signals by calls like c, which lacks their number and siginfo_t.
func (a *args) queue(ctx context.Context, th *Thread, pending [][]byte, c call) error {
	n := slices.Index(c.args[:], 0)
	var calls []call
	for _, si := range pending {
		if a.full(len(si)) {
			if err := a.flush(ctx, th, calls); err != nil {
				return err
			}
			calls = nil
		}
		c.args[n], c.args[n+1] = uint64(le.Uint32(si)), a.put(si)
		calls = append(calls, c)
	}
	return a.flush(ctx, th, calls)
}

// withoutExpired leaves out the signals of POSIX timers that have expired again
// since they were made: the kernel has queued such a signal itself, and counts
// further expirations with it.
func withoutExpired(saved [][]byte, th *Thread, shared bool) ([][]byte, error) {
	if !slices.ContainsFunc(saved, ofTimer) {
		return saved, nil
	}
	queued, err := peekSignals(th.HostTID, shared)
	if err != nil {
		return nil, err
	}
	var rest [][]byte
	for _, si := range saved {
		again := ofTimer(si) && slices.ContainsFunc(queued, func(q []byte) bool {
			return ofTimer(q) && bytes.Equal(q[:4], si[:4]) && bytes.Equal(q[siTimerID:siTimerID+4], si[siTimerID:siTimerID+4])
		})
		if !again {
			rest = append(rest, si)
		}
	}
	return rest, nil
}

// Places in a siginfo_t (include/uapi/asm-generic/siginfo.h).
const (
	siCode    = 8
	siTimerID = 16 // si_timerid
)

// ofTimer says whether a POSIX timer has sent a signal.
func ofTimer(si []byte) bool {
	const siTimer = -2 // SI_TIMER
	return int32(le.Uint32(si[siCode:])) == siTimer
}
