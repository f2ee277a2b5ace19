package proc

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// hasOtherMask says whether a thread waits in a call with a signal mask that is not its
// own: the one is in effect, the other is what a tracer is told (kernel/ptrace.c,
// ptrace_request, PTRACE_GETSIGMASK).
func (p *Process) hasOtherMask(th *Thread, nr uint64) bool {
	mask := uint64(0) // where it is
	switch nr {
	case unix.SYS_RT_SIGSUSPEND:
		mask = th.Regs.arg(0)
	case unix.SYS_PPOLL:
		mask = th.Regs.arg(3)
	case unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2:
		mask = th.Regs.arg(4)
	case unix.SYS_PSELECT6, unix.SYS_IO_PGETEVENTS:
		mask = th.Regs.arg(5)
	}
	if mask == 0 {
		return false
	}
	s, err := procfs.ReadTaskStatus(p.host, th.HostTID)
	return err == nil && s.SigBlk != th.Mask
}

// reenter takes a thread to the entry of the call that it is to make again, from where it
// may be let go. PTRACE_SETSIGMASK has ended the mask of the call (kernel/ptrace.c,
// clear_tsk_restore_sigmask in ptrace_request): a signal that only this one blocks would
// be delivered on the way to the call, and interrupt it. At the entry none is any more,
// and the call looks for signals anew when it changes the mask (kernel/signal.c,
// __set_current_blocked).
func (p *Process) reenter(th *Thread) error {
	defer p.closeMem()
	if p.inj.insn == 0 { // nothing was injected yet
		insn, err := p.findInsn()
		if errors.Is(err, unix.EACCES) { // it is not dumpable: what is pending comes early
			return nil
		}
		if err != nil {
			return err
		}
		p.inj.insn = insn
	}
	r := th.Regs
	r.atSyscall(p.settleIn(th), unix.SYS_GETPID, [6]uint64{th.Regs.arg(0)}) // which the kernel keeps of the call
	err := errors.Join(setRegs(th.HostTID, r), setSigmask(th.HostTID, allSignals))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
		defer cancel()
		err = p.nextCallStop(ctx, th)
	}
	own := *th
	if err == nil {
		own.Regs.enter()
	}
	if err = errors.Join(err, p.own(&own), p.clearNest()); err != nil {
		return fmt.Errorf("tid %d: enter its call again: %w", th.TID, err)
	}
	return nil
}

// lets is the set of pending signals that come as soon as a thread's own mask holds.
func (ps *ProcessState) lets(ts *ThreadState) (set uint64) {
	for _, si := range append(ps.Pending[:len(ps.Pending):len(ps.Pending)], ts.Pending...) {
		set |= sigBit(syscall.Signal(le.Uint32(si)))
	}
	return set &^ ts.Mask
}
