package proc

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Before a stop for a tracer the kernel puts an interrupted call back that is to
// be made again: pc is at its instruction, and x0 its first argument (arch/arm64/
// kernel/signal.c, do_signal). How it would go on, the kernel knows until the next
// stop only: here that is told by the call itself.

// recall finds the system call that a stop has interrupted in a thread which was
// seen asleep in it before.
func (r *Regs) recall(p *Process, th *Thread) {
	if r.recallResult(th); r.InCall || !th.sleepsIn(r.X[8]) {
		return
	}
	if behind := th.sleep.asked.behind; behind == r.Pc+uint64(len(syscallInsn)) {
		r.InCall, r.First = true, r.X[0]
		r.Pc = behind
		r.setRet(-int64(th.restartOf(p, r)))
	}
}

// recallResult is recall where the call has returned.
func (r *Regs) recallResult(th *Thread) {
	if th.sleepsIn(r.X[8]) && th.sleep.asked.behind == r.Pc {
		r.InCall, r.First = true, th.sleep.asked.first
	}
}

// sleepsIn says whether a thread was asleep in a call when it was asked to stop.
func (th *Thread) sleepsIn(nr uint64) bool {
	return th.sleep != nil && th.sleep.asked.known && th.sleep.asked.nr == nr
}

// restartOf tells how the kernel restarts the call of a thread. There is a restart
// block only if the thread was asleep in it until the stop.
func (th *Thread) restartOf(p *Process, r *Regs) syscall.Errno {
	const absolute = 1 // TIMER_ABSTIME
	switch nr := r.X[8]; {
	case nr == restartNr:
		return errRestartBlock
	case nr == unix.SYS_NANOSLEEP, nr == unix.SYS_CLOCK_NANOSLEEP && r.arg(1)&absolute == 0,
		nr == unix.SYS_FUTEX && r.arg(1)&futexCmdMask == futexWait && r.arg(3) != 0:
		if th.sleep.confirm(p.host, th.HostTID); th.sleep.elapsed > 0 {
			return errRestartBlock
		}
		return errRestartNohand
	case nr == unix.SYS_CLOCK_NANOSLEEP, nr == unix.SYS_PPOLL, nr == unix.SYS_PSELECT6, nr == unix.SYS_RT_SIGSUSPEND,
		nr == unix.SYS_MSGRCV, nr == unix.SYS_MSGSND:
		return errRestartNohand
	}
	return errRestartSys
}

// sleepingCall is the call in which a thread sleeps.
type sleepingCall struct {
	known  bool
	nr     uint64
	first  uint64 // argument, which the result overwrites
	behind uint64 // address of the next instruction
}

func askCall(pid, tid int) (c sleepingCall) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	f := strings.Fields(string(line)) // proc(5): number, six arguments, stack pointer, program counter
	if err != nil || len(f) != 9 {
		return c // it may not be asked, or runs
	}
	nr, err1 := strconv.ParseInt(f[0], 10, 64)
	first, err2 := strconv.ParseUint(f[1], 0, 64)
	behind, err3 := strconv.ParseUint(f[8], 0, 64)
	return sleepingCall{err1 == nil && err2 == nil && err3 == nil && nr >= 0, uint64(nr), first, behind}
}

// askAgain is what was seen of a thread, which may have gone to sleep since, as it
// has to be when it is asked to stop.
func (sl *Sleep) askAgain(pid, tid int) *Sleep {
	asked := askCall(pid, tid)
	if !asked.known {
		return sl
	}
	now := Sleep{} // how long it has slept is not known
	if sl != nil {
		now = *sl
	}
	now.asked = asked
	return &now
}

// asRestarted are the registers with which the kernel makes a call again.
func (r Regs) asRestarted() Regs {
	if !r.InCall {
		return r
	}
	switch syscall.Errno(-r.ret()) {
	case errRestartBlock:
		r.rerun()
		r.X[8] = restartNr
	case errRestartSys, errRestartNointr, errRestartNohand:
		r.rerun()
	}
	return r
}

// setCall tells the kernel of the call that a thread is to enter.
func (r *Regs) setCall(tid int) error {
	if !r.entering {
		return nil
	}
	return setRegset(tid, ntArmCall, le.AppendUint32(nil, uint32(r.X[8])))
}

// interruptCall ends the call of a thread with EINTR where a signal with a handler
// waits for it: the kernel would make it again behind the handler.
func (p *Process) interruptCall(th *Thread) error {
	if !th.Regs.InCall || th.masked {
		return nil
	}
	s, err := procfs.ReadTaskStatus(p.host, th.HostTID)
	if err != nil {
		return nil // it was killed
	}
	waiting := s.SigPnd
	if waiting &= s.SigCgt &^ s.SigBlk; waiting == 0 {
		waiting = p.sharedFor(th, s.ShdPnd&s.SigCgt&^s.SigBlk)
	}
	if waiting == 0 || !p.endsCall(th, bits.TrailingZeros64(waiting)) {
		return nil
	}
	th.Regs.setRet(-int64(unix.EINTR))
	th.Regs.setSyscallNr(nrNone)
	return setRegs(th.HostTID, th.Regs)
}

// sharedFor is what a thread takes of the signals for its process: nothing that one
// before it takes, which is let go first.
func (p *Process) sharedFor(th *Thread, set uint64) uint64 {
	for _, before := range p.threads {
		if before == th {
			break
		}
		set &= before.Mask
	}
	return set
}

// endsCall says whether the handler of a signal, counted from 0, ends the call of a
// thread: signal(7).
func (p *Process) endsCall(th *Thread, sig int) bool {
	const restarts, flagsOff = 0x10000000, 8 // SA_RESTART; in struct sigaction of the kernel
	switch syscall.Errno(-th.Regs.ret()) {
	case errRestartNohand, errRestartBlock:
		return true
	case errRestartSys:
		return sig < len(p.actions) && le.Uint64(p.actions[sig][flagsOff:])&restarts == 0
	}
	return false
}

// isArmed says whether a call that was made at insn will go on in a restart block.
func (r *Regs) isArmed(insn uint64) bool { return r.Pc == insn }
