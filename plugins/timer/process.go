package timer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// The values of sigev_notify, sigevent(3type).
const (
	sigevSignal   = 0
	sigevNone     = 1
	sigevThread   = 2
	sigevThreadID = 4
)

const (
	lastSignal = 64 // _NSIG
	// libraryTimerSignal is SIGTIMER, by which the C library's own thread
	// hears of the timers of SIGEV_THREAD.
	libraryTimerSignal = 32
	// prTimerCreateRestoreIDs is PR_TIMER_CREATE_RESTORE_IDS of Linux 6.15.
	prTimerCreateRestoreIDs = 77
)

// Sizes of the kernel's structures: sigevent; itimerspec and itimerval.
const (
	sigeventSize = 64
	itimerSize   = 32
)

// saveProcess reads the timers of proc as of began. A getitimer call and a
// timer_gettime call each fill 32 bytes.
func saveProcess(ctx context.Context, proc plugin.Process, began time.Duration, living map[int]bool) (process, error) {
	timers, err := readTimers(proc, living)
	if err != nil {
		return process{}, err
	}
	var calls []plugin.Call
	for which := unix.ITIMER_REAL; which <= unix.ITIMER_PROF; which++ {
		calls = append(calls, plugin.Call{Nr: unix.SYS_GETITIMER, Args: [6]uintptr{uintptr(which)}})
	}
	itimers := len(calls)
	for _, t := range timers {
		calls = append(calls, plugin.Call{Nr: unix.SYS_TIMER_GETTIME, Args: [6]uintptr{uintptr(t.ID)}})
	}
	got, err := readEach(ctx, proc, calls)
	if err != nil {
		return process{}, fmt.Errorf("pid %d: timers: %w", proc.PID(), err)
	}
	late := agentTime() - began
	saved := process{Timers: timers}
	for which, b := range got[:itimers] {
		if s := decodeSpec(b, time.Microsecond); s != (spec{}) {
			if saved.ITimers == nil {
				saved.ITimers = make(map[int]spec)
			}
			saved.ITimers[which] = s
		}
	}
	for i, b := range got[itimers:] {
		saved.Timers[i].Spec = decodeSpec(b, time.Nanosecond)
	}
	saved.asOf(late)
	if err := errors.Join(readOverruns(ctx, proc, saved.Timers), findPending(proc, saved.Timers)); err != nil {
		return process{}, fmt.Errorf("pid %d: timers: %w", proc.PID(), err)
	}
	return saved, nil
}

// asOf makes values that were read late refer to the time before.
func (p *process) asOf(late time.Duration) {
	if s, ok := p.ITimers[unix.ITIMER_REAL]; ok {
		s.later(late)
		p.ITimers[unix.ITIMER_REAL] = s
	}
	for i := range p.Timers {
		if countsTime(p.Timers[i].Clock) {
			p.Timers[i].Spec.later(late)
		}
	}
}

// readOverruns reads what timer_getoverrun(2) says.
func readOverruns(ctx context.Context, proc plugin.Process, timers []posixTimer) error {
	calls := make([]plugin.Call, len(timers))
	for i, t := range timers {
		calls[i] = plugin.Call{Nr: unix.SYS_TIMER_GETOVERRUN, Args: [6]uintptr{uintptr(t.ID)}}
	}
	if len(calls) == 0 {
		return nil
	}
	if err := proc.Batch(ctx, calls); err != nil {
		return err
	}
	for i, c := range calls {
		timers[i].Overrun = int(c.Ret)
	}
	return nil
}

// readEach makes calls whose second argument is where the result goes, and
// returns the results.
func readEach(ctx context.Context, proc plugin.Process, calls []plugin.Call) ([][]byte, error) {
	addr, size := proc.Scratch()
	var all [][]byte
	for chunk := range slices.Chunk(calls, max(size/itimerSize, 1)) {
		for i := range chunk {
			chunk[i].Args[1] = uintptr(addr) + uintptr(i*itimerSize)
		}
		if err := proc.Batch(ctx, chunk); err != nil {
			return nil, err
		}
		buf := make([]byte, len(chunk)*itimerSize)
		if _, err := proc.ReadAt(buf, int64(addr)); err != nil {
			return nil, fmt.Errorf("scratch memory: %w", err)
		}
		all = slices.AppendSeq(all, slices.Chunk(buf, itimerSize))
	}
	return all, nil
}

// decodeSpec reads an itimerval or itimerspec: the interval, then the value;
// of each the seconds, then the fraction in units of unit.
func decodeSpec(b []byte, unit time.Duration) spec {
	word := func(i int) int64 { return int64(binary.NativeEndian.Uint64(b[8*i:])) }
	return spec{
		Interval: duration(word(0), word(1)*int64(unit)),
		Value:    duration(word(2), word(3)*int64(unit)),
	}
}

// encode is the reverse of decodeSpec. A value that is not zero stays so, for
// zero would disarm the timer.
func (s spec) encode(unit time.Duration) []byte {
	var b []byte
	for _, d := range []time.Duration{s.Interval, s.Value} {
		if d > 0 {
			d = max(d, unit)
		}
		b = binary.NativeEndian.AppendUint64(b, uint64(d/time.Second))
		b = binary.NativeEndian.AppendUint64(b, uint64(d%time.Second/unit))
	}
	return b
}

// readTimers reads the POSIX timers of proc, without their times. living are
// the pids of the tree.
func readTimers(proc plugin.Process, living map[int]bool) ([]posixTimer, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/timers", proc.HostPID()))
	if err != nil {
		return nil, fmt.Errorf("pid %d: POSIX timers: %w", proc.PID(), err)
	}
	listed, err := procparse.ParseTimers(raw)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", proc.PID(), err)
	}
	if len(listed) == 0 {
		return nil, nil
	}
	threads := proc.Threads()
	timers := make([]posixTimer, len(listed))
	for i, l := range listed {
		if timers[i], err = asSeenBy(threads, l); err == nil {
			err = checkClock(timers[i].Clock, threads, living)
		}
		if err != nil {
			return nil, plugin.RefuseProcess(proc, fmt.Sprintf("POSIX timer %d", l.ID), "%v", err)
		}
	}
	slices.SortFunc(timers, func(a, b posixTimer) int { return cmp.Compare(a.ID, b.ID) })
	return timers, nil
}

// asSeenBy translates a timer to the ids that the program knows.
func asSeenBy(threads []plugin.Thread, l procparse.Timer) (posixTimer, error) {
	t := posixTimer{ID: l.ID, Clock: l.Clock, Signal: l.Signal, Value: l.Value}
	switch l.Notify {
	case "signal":
		t.Notify = sigevSignal
	case "none":
		t.Notify = sigevNone
	case "thread":
		t.Notify = sigevThread
	default:
		return t, fmt.Errorf("unknown notification %q", l.Notify)
	}
	if l.PID == 0 { // tid.N, not pid.N
		i := slices.IndexFunc(threads, func(th plugin.Thread) bool { return th.HostTID == l.TID })
		if i < 0 {
			return t, errors.New("it notifies a thread that has ended")
		}
		t.Notify |= sigevThreadID
		t.TID = threads[i].TID
	}
	if t.Notify == sigevNone|sigevThreadID || t.Notify == sigevThread|sigevThreadID {
		return t, fmt.Errorf("unknown notification %q of a thread", l.Notify)
	}
	return t, t.resolveThreadClock(threads)
}

// resolveThreadClock makes explicit whose clock the CPU clock of "this thread"
// is, since the timer is made again by the leader. The kernel does not show
// it: it is the thread that made the timer.
func (t *posixTimer) resolveThreadClock(threads []plugin.Thread) error {
	kind, ok := ownThreadClock(t.Clock)
	if !ok || len(threads) == 1 {
		return nil
	}
	// A timer that a thread makes to be told itself, as profilers do.
	if t.Notify == sigevThreadID && t.Signal != libraryTimerSignal {
		t.Clock = ^t.TID<<3 | kind
		return nil
	}
	return errors.New("it counts the CPU time of one of several threads, and the kernel does not tell of which")
}

// The clock id of a CPU clock, as clock_getcpuclockid(3) makes it, is the
// inverted pid or tid, 0 for the caller's own, above three bits: whether it is
// of a thread, and what is counted.
const (
	cpuClockPerThread = 4
	cpuClockSched     = 2 // all CPU time
	cpuClockDevice    = 3 // no CPU clock, but that of a descriptor
)

// checkClock refuses the CPU clock of what a restart does not make: the kernel
// keeps a timer whose thread or process has ended, and makes none.
func checkClock(clock int, threads []plugin.Thread, living map[int]bool) error {
	id := ^(clock >> 3)
	switch {
	case clock >= 0 || clock&cpuClockDevice == cpuClockDevice || id == 0:
	case clock&cpuClockPerThread == 0:
		if !living[id] {
			return fmt.Errorf("it counts the CPU time of process %d, which is not a living one of the computation", id)
		}
	case !slices.ContainsFunc(threads, func(th plugin.Thread) bool { return th.TID == id }):
		return fmt.Errorf("it counts the CPU time of thread %d, which has ended", id)
	}
	return nil
}

// ownThreadClock returns the low bits of a CPU clock that is of the thread
// which made the timer.
func ownThreadClock(clock int) (kind int, ok bool) {
	if clock == unix.CLOCK_THREAD_CPUTIME_ID {
		return cpuClockPerThread | cpuClockSched, true
	}
	kind = clock & 7
	return kind, clock>>3 == ^0 && kind >= cpuClockPerThread && kind <= cpuClockPerThread|cpuClockSched
}

// restore makes and arms all timers. Those of the process are armed last.
func (p process) restore(ctx context.Context, proc plugin.Process, clock restartClock) error {
	if err := restoreTimers(ctx, proc, p.Timers, clock); err != nil {
		return err
	}
	addr, _ := proc.Scratch()
	for which, s := range p.ITimers {
		switch {
		case which != unix.ITIMER_REAL: // those that are off may have an interval
		case s.Value == 0:
			// It has expired and its signal is pending: the kernel goes on
			// from the interval when that is taken (kernel/time/itimer.c, ITIMER_REAL).
			s.Value = s.Interval
		default:
			s.Value = max(s.Value-clock.passed(), 1)
		}
		if _, err := proc.WriteAt(s.encode(time.Microsecond), int64(addr)); err != nil {
			return fmt.Errorf("scratch memory: %w", err)
		}
		if _, err := proc.Syscall(ctx, unix.SYS_SETITIMER, uintptr(which), uintptr(addr), 0); err != nil {
			return fmt.Errorf("setitimer %d: %w", which, err)
		}
	}
	return nil
}

func restoreTimers(ctx context.Context, proc plugin.Process, timers []posixTimer, clock restartClock) (err error) {
	if len(timers) == 0 {
		return nil
	}
	m := maker{proc: proc, clock: clock}
	m.addr, _ = proc.Scratch()
	_, err = proc.Syscall(ctx, unix.SYS_PRCTL, prTimerCreateRestoreIDs, 1, 0, 0, 0)
	switch {
	case err == nil:
		m.exact = true
		defer func() {
			_, off := proc.Syscall(ctx, unix.SYS_PRCTL, prTimerCreateRestoreIDs, 0, 0, 0, 0)
			if err == nil && off != nil {
				err = fmt.Errorf("prctl PR_TIMER_CREATE_RESTORE_IDS off: %w", off)
			}
		}()
	case !errors.Is(err, unix.EINVAL): // EINVAL: before Linux 6.15
		return fmt.Errorf("prctl PR_TIMER_CREATE_RESTORE_IDS: %w", err)
	}
	for _, t := range timers {
		if err := m.make(ctx, t); err != nil {
			return fmt.Errorf("POSIX timer %d: %w", t.ID, err)
		}
	}
	return nil
}

// maker makes POSIX timers with given ids.
type maker struct {
	proc  plugin.Process
	addr  uint64 // of scratch memory: sigevent, itimerspec, timer_t
	exact bool   // timer_create takes the id that it finds in its third argument
	clock restartClock
}

// Places in the scratch memory.
const (
	specAt = sigeventSize
	idAt   = specAt + itimerSize
)

// maxTries bounds the ids that are passed over to come to the wanted one.
const maxTries = 1 << 16

// make makes and arms t. Without exact ids, those that come before the wanted
// one are made and deleted: a new process counts up from 0.
func (m maker) make(ctx context.Context, t posixTimer) error {
	if _, err := m.proc.WriteAt(t.arguments(), int64(m.addr)); err != nil {
		return fmt.Errorf("scratch memory: %w", err)
	}
	for range maxTries {
		id, err := m.create(ctx, t)
		if err != nil {
			return err
		}
		if id == t.ID {
			return m.arm(ctx, t)
		}
		if _, err := m.proc.Syscall(ctx, unix.SYS_TIMER_DELETE, uintptr(id)); err != nil {
			return fmt.Errorf("timer_delete %d: %w", id, err)
		}
		if m.exact || id > t.ID {
			return fmt.Errorf("timer_create gave the id %d", id)
		}
	}
	return fmt.Errorf("timer_create did not come to the id in %d calls", maxTries)
}

func (m maker) create(ctx context.Context, t posixTimer) (id int, err error) {
	_, err = m.proc.Syscall(ctx, unix.SYS_TIMER_CREATE, uintptr(t.Clock), uintptr(m.addr), uintptr(m.addr+idAt))
	if err != nil {
		return 0, fmt.Errorf("timer_create of clock %d: %w", t.Clock, err)
	}
	var b [4]byte
	if _, err := m.proc.ReadAt(b[:], int64(m.addr+idAt)); err != nil {
		return 0, fmt.Errorf("scratch memory: %w", err)
	}
	return int(int32(binary.NativeEndian.Uint32(b[:]))), nil
}

func (m maker) arm(ctx context.Context, t posixTimer) error {
	if t.canExpireAgain() {
		return m.expireAgain(ctx, t)
	}
	if t.Spec.Value == 0 {
		return nil
	}
	if countsTime(t.Clock) {
		missed := t.Spec
		if missed.forward(m.clock.passed()) > 0 {
			return m.armMissed(ctx, t)
		}
		t.Spec = missed
	}
	if t.overrunCanBeRepeated(m.proc.PID()) {
		if done, err := m.repeatOverrun(ctx, t); done || err != nil {
			return err
		}
	}
	return m.set(ctx, t, 0, t.Spec)
}

// armMissed arms a timer that was to expire since the tree's clock goes on. The
// clocks that nobody sets count those that were missed, and keep the beat.
func (m maker) armMissed(ctx context.Context, t posixTimer) error {
	if t.Clock == unix.CLOCK_MONOTONIC || t.Clock == unix.CLOCK_BOOTTIME {
		now, err := m.now(ctx, t.Clock)
		if err != nil {
			return err
		}
		if due := now + t.Spec.Value - m.clock.passed(); due > 0 {
			return m.set(ctx, t, unix.TIMER_ABSTIME, spec{Value: due, Interval: t.Spec.Interval})
		}
	}
	return m.set(ctx, t, 0, spec{Value: 1, Interval: t.Spec.Interval})
}

// set arms t.
func (m maker) set(ctx context.Context, t posixTimer, flags uintptr, s spec) error {
	if _, err := m.proc.WriteAt(s.encode(time.Nanosecond), int64(m.addr+specAt)); err != nil {
		return fmt.Errorf("scratch memory: %w", err)
	}
	if _, err := m.proc.Syscall(ctx, unix.SYS_TIMER_SETTIME, uintptr(t.ID), flags, uintptr(m.addr+specAt), 0); err != nil {
		return fmt.Errorf("timer_settime: %w", err)
	}
	return nil
}

// now reads a clock as the process sees it.
func (m maker) now(ctx context.Context, clock int) (time.Duration, error) {
	if _, err := m.proc.Syscall(ctx, unix.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(m.addr+nowAt)); err != nil {
		return 0, fmt.Errorf("clock_gettime %d: %w", clock, err)
	}
	var b [16]byte
	if _, err := m.proc.ReadAt(b[:], int64(m.addr+nowAt)); err != nil {
		return 0, fmt.Errorf("scratch memory: %w", err)
	}
	return decodeTime(b[:]), nil
}

// arguments is what the scratch memory holds for timer_create.
func (t posixTimer) arguments() []byte {
	b := make([]byte, sigeventSize, idAt+4)
	binary.NativeEndian.PutUint64(b, t.Value)
	binary.NativeEndian.PutUint32(b[8:], uint32(t.Signal))
	binary.NativeEndian.PutUint32(b[12:], uint32(t.Notify))
	binary.NativeEndian.PutUint32(b[16:], uint32(t.TID))
	b = append(b, make([]byte, itimerSize)...)
	return binary.NativeEndian.AppendUint32(b, uint32(t.ID))
}
