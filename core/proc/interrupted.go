package proc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Results of an interrupted system call as a tracer sees them at a
// PTRACE_EVENT_STOP (include/linux/errno.h). The kernel acts on them when the
// thread goes on with orig_rax in place: the first three run the call again,
// the last continues it by restart_syscall(2) from a block that only the
// kernel has.
const (
	errRestartSys    = syscall.Errno(512)
	errRestartNointr = syscall.Errno(513)
	errRestartNohand = syscall.Errno(514)
	errRestartBlock  = syscall.Errno(516)
)

// Sleep is a call that the kernel would continue from a restart block. In a
// new process it is issued again with what remains.
type Sleep struct {
	Nr        uint64        `json:"nr"`        // of the call as the program issued it
	Remaining time.Duration `json:"remaining"` // -1: no limit, or absolute

	wchan   string        // where the thread slept, read before it was stopped
	state   byte          // in which state
	elapsed time.Duration // since it last went to sleep
	waits   int64         // how often it had gone to sleep then
	onCPU   bool          // it sleeps until CPU time is used
	asked   sleepingCall
	clock   int32 // then the agent's id of that clock, 0 where it has none
}

// Sleeps remembers the deadlines of sleeping threads from one checkpoint to
// the next: after its first restart in place a sleep shows neither its call
// nor when it began. It belongs to the tracer's thread.
type Sleeps struct {
	of map[int]deadline // by host tid
	// clocks are the moments at which each processor's clock of the scheduler
	// showed zero.
	clocks map[int]time.Time
}

type deadline struct {
	nr    uint64
	at    time.Time     // zero: none
	clock int32         // not 0: due on this CPU clock instead
	due   time.Duration // on clock
}

// NewSleeps returns an empty memory.
func NewSleeps() *Sleeps { return &Sleeps{of: map[int]deadline{}} }

// calibrate compares the clocks of the scheduler, one a processor, with time:
// they leave out interrupts and stolen time, and drift apart (rq_clock_task).
// The calling thread visits each processor, where its own start is fresh.
func (s *Sleeps) calibrate() {
	s.clocks = map[int]time.Time{}
	var own, one unix.CPUSet
	if unix.SchedGetaffinity(0, &own) != nil {
		return
	}
	defer unix.SchedSetaffinity(0, &own)
	for cpu, left := 0, own.Count(); left > 0; cpu++ {
		if !own.IsSet(cpu) {
			continue
		}
		left--
		one.Zero()
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) != nil {
			continue
		}
		if sched, err := procfs.ReadSched(unix.Getpid(), unix.Gettid()); err == nil {
			s.clocks[cpu] = time.Now().Add(-sched.ExecStart)
		}
	}
}

// before notes what is only seen while the thread still sleeps. It returns
// nil for a thread that runs. How long it has slept is 0, which lets a sleep end
// late but never early, where that cannot be told.
func (s *Sleeps) before(pid, tid int) *Sleep {
	w, err := procfs.Wchan(pid, tid)
	if err != nil || w == "" || w == "0" {
		return nil
	}
	sl := &Sleep{wchan: w, asked: askCall(pid, tid)}
	sched, err := procfs.ReadSched(pid, tid)
	if err != nil {
		return sl
	}
	st, err := procfs.ReadTaskStat(pid, tid)
	sl.state = st.State
	if zero, ok := s.clocks[st.Processor]; err == nil && ok {
		sl.elapsed, sl.waits = max(time.Since(zero)-sched.ExecStart, 0), sched.Waits
	}
	return sl
}

// mayEnd says whether a stop may end the call of a sleeping thread with EINTR, signal(7):
// in all but the usual calls that the kernel restarts. A sleep that it has restarted
// before is in no function but the scheduler's, which leaves the entry of all calls.
func (sl *Sleep) mayEnd() bool {
	if sl == nil || sl.state == 'D' { // no signal ends that
		return false
	}
	w := sl.wchan
	restarted := strings.Contains(w, "poll") && !strings.Contains(w, "epoll") && !strings.Contains(w, "ep_poll")
	for _, name := range []string{"futex", "nanosleep", "do_wait", "pipe_", "select", "sigsuspend", "sys_pause", "do_syscall_64", "invoke_syscall"} {
		restarted = restarted || strings.Contains(w, name)
	}
	return !restarted
}

// confirm makes sure that a thread, which has stopped, is in the sleep of before:
// it has waited once more, in its stop. Else it woke up in between, and has
// begun another.
func (sl *Sleep) confirm(pid, tid int) {
	if sl.elapsed == 0 {
		return
	}
	if sched, err := procfs.ReadSched(pid, tid); err != nil || sched.Waits != sl.waits+1 {
		sl.elapsed = 0
	}
}

// note remembers the deadline of a sleep until it ends.
func (s *Sleeps) note(hostTID int, sl *Sleep) {
	d := deadline{nr: sl.Nr}
	switch {
	case sl.onCPU:
		now, ok := cpuTime(sl.clock)
		if !ok || sl.Remaining < 0 {
			delete(s.of, hostTID)
			return
		}
		d.clock, d.due = sl.clock, now+sl.Remaining
	case sl.Remaining >= 0:
		d.at = time.Now().Add(sl.Remaining)
	}
	s.of[hostTID] = d
}

// left returns the sleep of a thread with what remains of it, and what remains of the
// time-out of a call that is made again, when the clocks of the image were read.
func (t *Tree) left(th *Thread) (sl *Sleep, rest time.Duration) {
	if !th.until.IsZero() {
		rest = max(th.until.Sub(t.clocksRead), 0)
	}
	d, ok := t.sleeps.of[th.HostTID]
	if th.sleep == nil || !ok || d.at.IsZero() {
		return th.sleep, rest
	}
	sl = new(*th.sleep)
	sl.Remaining = max(d.at.Sub(t.clocksRead), 0)
	return sl, rest
}

// prune forgets the threads that are not in t, or sleep no more.
func (s *Sleeps) prune(t *Tree) {
	keep := map[int]deadline{}
	for _, p := range t.procs {
		for _, th := range p.threads {
			if d, ok := s.of[th.HostTID]; ok && th.sleep != nil {
				keep[th.HostTID] = d
			}
		}
	}
	s.of = keep
}

// settleCall puts the registers of a thread whose system call was interrupted
// by our stop so that the program does not notice, and finds out what remains
// of a sleep. Where the kernel answers EINTR to a stop without a signal
// (signal(7), "Interruption of system calls by stop signals"), the call is
// run again as issued. masks says whether the thread's signal mask is set on the way, by which
// that of a call ends.
func (t *Tree) settleCall(p *Process, th *Thread, masks bool) error {
	before := th.sleep
	th.sleep, th.masked = nil, false
	nr, in := th.Regs.SyscallNr()
	if !in {
		return nil
	}
	if before == nil {
		before = &Sleep{}
	}
	switch syscall.Errno(-th.Regs.ret()) {
	case errRestartBlock:
		before.confirm(p.host, th.HostTID)
		sleep := t.describeSleep(p, th, nr, before)
		if isFiltered(th.HostTID) {
			th.sleepAgain(sleep)
			return nil
		}
		th.sleep = sleep
		t.sleeps.note(th.HostTID, th.sleep)
	case errRestartNohand:
		th.masked = masks && p.hasOtherMask(th, nr)
		if rest, ok := p.restIn(th, nr); ok {
			th.until = time.Now().Add(rest)
		}
	case unix.EINTR:
		// One that only the mask of the call lets through interrupts it when it is made again.
		th.masked = masks && p.hasOtherMask(th, nr)
		if th.masked || !hasHandledSignal(p.host, th.HostTID) {
			before.confirm(p.host, th.HostTID)
			th.shortenTimeout(nr, before)
			th.Regs.rerun()
		}
	default:
		t.noteShort(p, th, nr)
	}
	return nil
}

// isFiltered says whether a thread has a seccomp filter: it may end a process for restart_syscall(2), of
// which a program knows nothing. OpenSSH's does.
func isFiltered(tid int) bool {
	s, err := procfs.ReadStatus(tid)
	return err == nil && s.Seccomp == seccompModeFilter
}

// sleepAgain has the kernel make the call of a sleep again as the program made it, unless a handler runs
// first, with what remains of the time-out of poll(2), which is in a register. Others begin anew: theirs are
// in the program's memory.
func (th *Thread) sleepAgain(sl *Sleep) {
	th.Regs.setSyscallNr(sl.Nr)
	th.Regs.setRet(-int64(errRestartNohand))
	if sl.Nr == sysPoll && sl.Remaining >= 0 {
		th.Regs.setArg(2, uint64((sl.Remaining+time.Millisecond-1)/time.Millisecond))
	}
}

// hasHandledSignal says whether a signal with a handler waits to be
// delivered to the thread: its EINTR is the program's.
func hasHandledSignal(pid, tid int) bool {
	s, err := procfs.ReadTaskStatus(pid, tid)
	return err == nil && (s.SigPnd|s.ShdPnd)&^s.SigBlk&s.SigCgt != 0
}

// shortenTimeout takes the time that has passed off the time-out of
// epoll_wait(2), given in milliseconds in a register: a loop of checkpoints
// shorter than the time-out would else never let it end.
func (th *Thread) shortenTimeout(nr uint64, before *Sleep) {
	if nr != sysEpollWait && nr != unix.SYS_EPOLL_PWAIT {
		return
	}
	if ms := int32(th.Regs.arg(3)); ms > 0 {
		rest := max(int64(ms)-before.elapsed.Milliseconds(), 0)
		th.Regs.setArg(3, uint64(rest))
		th.until = time.Now().Add(time.Duration(rest) * time.Millisecond)
	}
}

// restAt returns where select(2), pselect(2) and ppoll(2) keep what remains of
// their time-out (fs/select.c, poll_select_finish), and the unit of its second
// word. 0: nowhere.
func restAt(r *Regs, nr uint64) (addr uint64, unit time.Duration) {
	switch nr {
	case sysSelect:
		return r.arg(4), time.Microsecond
	case unix.SYS_PSELECT6:
		return r.arg(4), time.Nanosecond
	case unix.SYS_PPOLL:
		return r.arg(2), time.Nanosecond
	}
	return 0, 0
}

// restIn reads what the kernel has written there at the interruption.
func (p *Process) restIn(th *Thread, nr uint64) (time.Duration, bool) {
	addr, unit := restAt(&th.Regs, nr)
	if addr == 0 {
		return 0, false
	}
	sec, part, ok := p.words(addr)
	return time.Duration(sec)*time.Second + time.Duration(part)*unit, ok && sec < int64(maxRest/time.Second)
}

// maxRest is the longest time-out that is looked at: sums do not overflow.
const maxRest = 100 * 365 * 24 * time.Hour

// catchUp takes the time for which the thread stood still off its time-out:
// the call is run again with what the program, or the kernel, has left there.
func (p *Process) catchUp(th *Thread) error {
	if th.until.IsZero() {
		return nil
	}
	rest := max(time.Until(th.until), 0)
	nr, _ := th.Regs.SyscallNr()
	addr, unit := restAt(&th.Regs, nr)
	if addr == 0 {
		th.Regs.setArg(3, uint64((rest+time.Millisecond-1)/time.Millisecond))
		return nil
	}
	q := p.apart()
	defer q.closeMem()
	sec, part := uint64(rest/time.Second), uint64(rest%time.Second/unit)
	return q.fillMem(addr, le.AppendUint64(le.AppendUint64(nil, sec), part)) // not by /proc/PID/mem: see makeReadable
}

// describeSleep finds the call and the remaining time of a sleep.
func (t *Tree) describeSleep(p *Process, th *Thread, nr uint64, before *Sleep) *Sleep {
	if nr == restartNr {
		if d, ok := t.sleeps.of[th.HostTID]; ok && !d.isOver() {
			return d.sleep()
		}
		nr = guessCall(&th.Regs, before.wchan)
	}
	sl := &Sleep{Nr: nr, Remaining: -1}
	if nr == unix.SYS_CLOCK_NANOSLEEP {
		sl.clock, sl.onCPU = cpuClock(func() []*Process { return t.procs }, p, int32(th.Regs.arg(0)))
	}
	if total, ok := p.timeout(th, nr); ok {
		sl.Remaining = total
		if !sl.onCPU { // how much CPU time it has seen nothing tells: it ends late but never early
			sl.Remaining = max(total-before.elapsed, 0)
		}
	}
	if rest, ok := p.remainder(th, nr); ok {
		sl.Remaining = rest
	}
	return sl
}

// isOver says whether a deadline has long passed: what the thread sleeps in is
// another call, which something else than a checkpoint has interrupted too.
func (d deadline) isOver() bool {
	const slack = 100 * time.Millisecond // until a stop is seen, and its thread asked
	return !d.at.IsZero() && time.Since(d.at) > slack
}

// sleep is what remains of a sleep that was noted.
func (d deadline) sleep() *Sleep {
	sl := &Sleep{Nr: d.nr, Remaining: -1}
	switch {
	case d.clock != 0:
		sl.onCPU, sl.clock = true, d.clock
		now, _ := cpuTime(d.clock) // what has ended used all it could
		sl.Remaining = max(d.due-now, 0)
	case !d.at.IsZero():
		sl.Remaining = max(time.Until(d.at), 0)
	}
	return sl
}

// guessCall names the call of a thread that something else than a checkpoint
// has stopped and continued before: only the place where it waits tells.
func guessCall(r *Regs, wchan string) uint64 {
	switch {
	case strings.Contains(wchan, "cpu_nanosleep"):
		return unix.SYS_CLOCK_NANOSLEEP
	case strings.Contains(wchan, "poll"):
		return sysPoll
	case strings.Contains(wchan, "futex"):
		return unix.SYS_FUTEX
	case r.arg(0) < 16: // a clock, not a pointer
		return unix.SYS_CLOCK_NANOSLEEP
	default:
		return unix.SYS_NANOSLEEP
	}
}

// futexCmdMask hides FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME, futex(2).
const (
	futexCmdMask = ^uint64(128 | 256)
	futexWait    = 0
)

// timeout returns the relative time-out of a call as it was issued, and false
// where it has none or an absolute one.
func (p *Process) timeout(th *Thread, nr uint64) (time.Duration, bool) {
	r := &th.Regs
	switch nr {
	case sysPoll:
		ms := int32(r.arg(2))
		return time.Duration(ms) * time.Millisecond, ms >= 0
	case unix.SYS_NANOSLEEP:
		return p.timespec(r.arg(0))
	case unix.SYS_CLOCK_NANOSLEEP:
		return p.timespec(r.arg(2))
	case unix.SYS_FUTEX:
		if r.arg(1)&futexCmdMask == futexWait && r.arg(3) != 0 {
			return p.timespec(r.arg(3))
		}
	}
	return 0, false
}

// remainder returns what the kernel wrote as the remaining time when it
// interrupted the sleep, nanosleep(2).
func (p *Process) remainder(th *Thread, nr uint64) (time.Duration, bool) {
	var at uint64
	switch nr {
	case unix.SYS_NANOSLEEP:
		at = th.Regs.arg(1)
	case unix.SYS_CLOCK_NANOSLEEP:
		at = th.Regs.arg(3)
	}
	if at == 0 {
		return 0, false
	}
	return p.timespec(at)
}

func (p *Process) timespec(addr uint64) (time.Duration, bool) {
	sec, nsec, ok := p.words(addr)
	return time.Duration(sec)*time.Second + time.Duration(nsec), ok
}

// words reads the two words of a struct timespec or timeval.
func (p *Process) words(addr uint64) (first, second int64, ok bool) {
	var b [16]byte
	if !p.peek(addr, b[:]) {
		return 0, 0, false
	}
	return int64(le.Uint64(b[:])), int64(le.Uint64(b[8:])), true
}

// rearm issues the call of a sleeping thread again with what remains, with an
// interrupt already waiting: it returns at once and leaves a restart block.
// The thread's own registers come back afterwards, so that the kernel
// continues the sleep by restart_syscall(2). If the call ends instead, its
// result is the program's.
func (p *Process) rearm(ctx context.Context, sleeps *Sleeps, th *Thread) error {
	sl := th.sleep
	args, err := p.remainingArgs(th)
	if err != nil {
		return err
	}
	r := th.Regs
	r.atSyscall(p.inj.insn, uintptr(sl.Nr), args)
	if err := errors.Join(setRegs(th.HostTID, r), setSigmask(th.HostTID, allSignals)); err != nil {
		return err
	}
	if err := ptrace(unix.PTRACE_SYSCALL, th.HostTID, 0, 0); err != nil {
		return err
	}
	ws, err := p.tr.wait(ctx, th.HostTID)
	if err != nil {
		return err
	}
	if ws.StopSignal() != unix.SIGTRAP|0x80 {
		return fmt.Errorf("tid %d: re-arm call %d: unexpected stop %#x", th.TID, sl.Nr, uint32(ws))
	}
	if err := p.interrupt(th); err != nil {
		return err
	}
	now, err := getRegs(th.HostTID)
	if err != nil {
		return err
	}
	if !now.isArmed(p.inj.insn) {
		th.Regs.setRet(now.ret())
		th.Regs.setSyscallNr(nrNone)
	}
	sleeps.note(th.HostTID, sl)
	return nil
}

// remainingArgs returns the arguments of the call with the remaining time.
func (p *Process) remainingArgs(th *Thread) (args [6]uint64, err error) {
	sl := th.sleep
	for i := range args {
		args[i] = th.Regs.arg(i)
	}
	if sl.Remaining >= 0 {
		sec, nsec := uint64(sl.Remaining/time.Second), uint64(sl.Remaining%time.Second)
		ts := le.AppendUint64(le.AppendUint64(nil, sec), nsec)
		if err := p.writeMem(p.inj.scratch(), ts); err != nil {
			return args, err
		}
		switch sl.Nr {
		case sysPoll:
			args[2] = uint64((sl.Remaining + time.Millisecond - 1) / time.Millisecond)
		case unix.SYS_NANOSLEEP:
			args[0] = p.inj.scratch()
		case unix.SYS_CLOCK_NANOSLEEP:
			args[2] = p.inj.scratch()
		case unix.SYS_FUTEX:
			args[3] = p.inj.scratch()
		}
	}
	return args, nil
}
