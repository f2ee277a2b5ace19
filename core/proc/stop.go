package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// awaitStops waits until fresh stand still and reads their registers. Threads
// that end meanwhile are taken out of p.
func (t *Tree) awaitStops(ctx context.Context, p *Process, fresh []*Thread) error {
	t.tr.group = p.host
	defer func() { t.tr.group = 0 }()
	for _, th := range fresh {
		err := t.awaitStop(ctx, p, th)
		p.execed = p.execed || errors.Is(err, errRenamed)
		if errors.Is(err, errGone) || errors.Is(err, unix.ESRCH) {
			delete(t.tr.held, th.HostTID)
			p.threads = slices.DeleteFunc(p.threads, func(x *Thread) bool { return x == th })
			continue
		}
		if err != nil {
			return explainStuck(p.host, th.HostTID, err)
		}
	}
	return nil
}

func (t *Tree) awaitStop(ctx context.Context, p *Process, th *Thread) error {
	for round := 0; ; round++ {
		if err := t.readStopped(ctx, p, th); err != nil || th.alone() {
			return err
		}
		again, err := p.leavesVdso(th, round)
		if err != nil {
			return err
		}
		if !again {
			break
		}
		th.stopped = false
		delete(t.tr.held, th.HostTID)
	}
	if _, in := th.Regs.SyscallNr(); !in { // there are no calls in them, rseq(2)
		if err := p.leaveCriticalSection(th); err != nil {
			return err
		}
	}
	if err := t.settleCall(p, th, true); err != nil {
		return err
	}
	return setRegs(th.HostTID, th.Regs)
}

// readStopped waits until th stands still and reads its registers and mask.
func (t *Tree) readStopped(ctx context.Context, p *Process, th *Thread) error {
	sig, err := t.stopOf(ctx, p.host, th.HostTID)
	if err != nil {
		return err
	}
	th.stopSig = sig
	t.tr.held[th.HostTID] = true
	_ = faultpoint.At(faultpoint.ThreadStopped)
	if th.Mask, err = getSigmask(th.HostTID); err != nil {
		return err
	}
	th.Regs, err = getRegs(th.HostTID)
	if th.compat = errors.Is(err, errCompat); th.compat {
		th.stopped = true
		return nil
	}
	if err == nil {
		err = th.readVector()
	}
	if err == nil {
		th.Regs = th.asEnded(th.Regs)
		th.worker, err = isWorker(p.host, th)
	}
	if err == nil && !th.worker {
		th.Regs.recall(p, th)
	}
	th.stopped = err == nil
	return err
}

// alone says whether th is only stopped and let go again, and refused.
func (th *Thread) alone() bool { return th.compat || th.worker }

// isWorker says whether th is a thread that the kernel has made within the process,
// as io_uring(7) and vhost do. It begins with a program counter of 0 (copy_thread), and
// never gets to a stop that an injected call ends with.
func isWorker(pid int, th *Thread) (bool, error) {
	const userWorker = 0x4000 // PF_USER_WORKER
	if th.Regs.PC() != 0 {
		return false, nil
	}
	st, err := procfs.ReadTaskStat(pid, th.HostTID)
	return st.Flags&userWorker != 0, err
}

// stopOf waits until tid stands still. A thread that goes through execve(2)
// meanwhile may take another's place, with or without the request to stop and
// the stop itself: it is asked again.
func (t *Tree) stopOf(ctx context.Context, pid, tid int) (syscall.Signal, error) {
	const patience = 100 * time.Millisecond
	for begin := time.Now(); ; {
		short, cancel := context.WithTimeout(ctx, patience)
		sig, err := t.tr.stopAt(short, tid)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return sig, err
		}
		if _, err := getRegs(tid); err == nil || errors.Is(err, errCompat) {
			return 0, nil // it has stopped before
		}
		if err := waitsForVfork(pid, tid, time.Since(begin)); err != nil {
			return 0, err
		}
		if s, err := procfs.ReadTaskStatus(pid, tid); err == nil && s.State == 'Z' && s.TracerPid == unix.Gettid() {
			return 0, fmt.Errorf("tid %d: %w", tid, errGone) // a leader, of which no wait tells before the others have ended
		}
		err = ptrace(ptraceInterrupt, tid, 0, 0)
		if err == unix.ESRCH && !isTracee(tid) {
			return 0, fmt.Errorf("tid %d: %w", tid, errRenamed)
		}
		if err != nil && err != unix.ESRCH {
			return 0, fmt.Errorf("tid %d: interrupt: %w", tid, err)
		}
	}
}

// vforkPatience is how long a child of vfork(2) may take to call execve(2) while
// its parent is to be stopped.
const vforkPatience = 2 * time.Second

// brotherPatience is the same for a child that may have been stopped already, which then waits for us.
const brotherPatience = vforkPatience / 8

// waitsForVfork refuses a thread that has waited for too long for its child of vfork(2), which has
// its memory: no signal and no tracer ends that wait.
func waitsForVfork(pid, tid int, waited time.Duration) error {
	s, err := procfs.ReadTaskStatus(pid, tid)
	if err != nil || s.State != 'D' || waited < brotherPatience {
		return nil
	}
	children, err := procfs.Children(pid)
	if err != nil {
		return nil
	}
	for _, c := range children {
		if r, err := linux.Kcmp(tid, c, linux.KCMP_VM, 0, 0); err == nil && r == 0 {
			if waited < vforkPatience {
				return nil
			}
			return &plugin.RefusalError{PID: s.InnerTGID(), FD: -1, Object: fmt.Sprintf("thread %d (%s)", s.InnerPID(), s.Name),
				Reason: fmt.Sprintf("it waits for its child %d of vfork(2), which has not called execve(2) for %v", innerPID(c), vforkPatience)}
		}
	}
	if wchan, _ := procfs.Wchan(pid, tid); slices.Contains(vforkWaits, wchan) {
		return &plugin.RefusalError{PID: s.InnerTGID(), FD: -1, Object: fmt.Sprintf("thread %d (%s)", s.InnerPID(), s.Name), Passing: true,
			Reason: fmt.Sprintf("it has waited for %v for a child of clone(2) with CLONE_VFORK, which may be one that was stopped before it: a brother, by CLONE_PARENT", brotherPatience)}
	}
	return nil
}

// vforkWaits are where the wait for a child of vfork(2) is, kernel/fork.c: by name in several
// versions, with and without inlining.
var vforkWaits = []string{"kernel_clone", "wait_for_vfork_done", "_do_fork"}

// innerPID returns the id of a process as it sees it.
func innerPID(host int) int {
	s, err := procfs.ReadStatus(host)
	if err != nil {
		return host
	}
	return s.InnerTGID()
}

// isTracee says whether the calling thread traces tid. The child that it
// waits for may be another thread that has taken over the id, untraced.
func isTracee(tid int) bool {
	s, err := procfs.ReadStatus(tid)
	return err == nil && s.TracerPid == unix.Gettid()
}

func explainStuck(pid, tid int, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	state := byte('?')
	if s, serr := procfs.ReadTaskStatus(pid, tid); serr == nil {
		state = s.State
	}
	wchan, _ := procfs.Wchan(pid, tid)
	return fmt.Errorf("pid %d tid %d: state %c, waits in %s: %w", pid, tid, state, wchan, err)
}

// leaveCriticalSection moves a thread out of a restartable sequence, rseq(2):
// the kernel would abort it at the next return to its code, but drops the
// section when it returns to code of ours. The thread goes on at the abort
// handler, as after a preemption.
func (p *Process) leaveCriticalSection(th *Thread) error {
	q := &Process{pid: p.pid, host: p.host, tr: p.tr, threads: []*Thread{th}}
	defer q.closeMem()
	ptr, abort := q.criticalSection(th)
	if abort == 0 {
		return nil
	}
	if err := q.writeMem(ptr, make([]byte, 8)); err != nil {
		return err
	}
	th.Regs.setPC(abort)
	return nil
}
