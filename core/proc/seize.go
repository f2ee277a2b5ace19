package proc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/plugin"
)

// attachTo attaches to a thread of f's process, unless that is done. It returns nil for one that
// has ended.
func (t *Tree) attachTo(f *freezing, tid int) (*Thread, error) {
	if th, done := f.attached[tid]; done {
		return th, nil
	}
	f.attached[tid] = nil
	delete(t.tr.late, tid)
	stop := t.tr.watch(f.p.host)
	err := attach(f.p.host, tid)
	stop()
	if err != nil {
		return nil, whyNotSeized(f.p.host, tid, err)
	}
	_ = faultpoint.At(faultpoint.ThreadSeized)
	th := &Thread{HostTID: tid, forks: f.forks[tid]}
	f.attached[tid] = th
	f.p.threads = append(f.p.threads, th)
	return th, nil
}

// seize attaches to a thread and asks it to stop, if it has not ended. sleep is what was seen
// of it before.
func (t *Tree) seize(f *freezing, tid int, sleep *Sleep) error {
	th, err := t.attachTo(f, tid)
	if th == nil || err != nil {
		return err
	}
	sleep = sleep.askAgain(f.p.host, tid)
	th.sleep = sleep
	err = th.interrupt()
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("pid %d tid %d: interrupt: %w", f.p.host, tid, err)
	}
	f.fresh = append(f.fresh, th)
	if err != nil || !sleep.mayEnd() || !t.tr.mendAtOnce(th) { // ESRCH: it has ended, or stands in another stop
		t.tr.asked = append(t.tr.asked, th)
	}
	return nil
}

// interrupt asks a thread to stop.
func (th *Thread) interrupt() error {
	th.asked = true
	return ptrace(ptraceInterrupt, th.HostTID, 0, 0)
}

// mendAtOnce has the call of a thread made again that its stop, which was just asked
// for, has ended with EINTR: from the stop to here the program would see it where the
// agent is killed. It looks again and again, as a wait would come later. What it does not
// meet in time, mendNext and awaitStop see to, as to all that is not as urgent.
func (t *Tracer) mendAtOnce(th *Thread) (mended bool) {
	const (
		patience = 2 * time.Millisecond
		busy     = 50 * time.Microsecond // until the thread may be waiting for this processor
	)
	for begin := time.Now(); ; {
		stands, asked := t.mend(th)
		switch waited := time.Since(begin); {
		case stands || waited > patience:
			return asked
		case waited > busy:
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
}

// mend has the call of a thread that was asked to stop made again if the stop has ended it
// with EINTR. It says whether the thread stands still, and whether in the stop it was asked for.
func (t *Tracer) mend(th *Thread) (stands, asked bool) {
	err := ptrace(ptraceGetSiginfo, th.HostTID, 0, uintptr(unsafe.Pointer(&t.siginfo[0])))
	if err != nil || le.Uint32(t.siginfo[siCodeOff:])>>8 != eventStop {
		return err != unix.ESRCH, false // another stop may be of a signal
	}
	th.mendCall()
	return true, true
}

func (th *Thread) mendCall() {
	r, err := getRegs(th.HostTID)
	if err != nil {
		return
	}
	if r.recallResult(th); !r.interrupted() {
		return
	}
	asIs := r
	r.rerun()
	if setRegs(th.HostTID, r) == nil {
		th.ended = &asIs
	}
}

// asEnded returns the registers of a thread as its stop left them, of r, which it has now. What is no more
// as mend put it is not of that stop: a signal's si_code is the sender's word.
func (th *Thread) asEnded(r Regs) Regs {
	if th.ended == nil {
		return r
	}
	again := *th.ended
	if again.rerun(); again == r {
		r = *th.ended
	}
	th.ended = nil
	return r
}

// mendNext is mend for one of the threads that were asked to stop and are not waited for
// yet: they stop in another order, and those that did stand there with their EINTR.
func (t *Tracer) mendNext() {
	for len(t.asked) > 0 {
		th := t.asked[0]
		t.asked = t.asked[1:]
		if th.stopped {
			continue
		}
		if _, asked := t.mend(th); !asked {
			t.asked = append(t.asked, th)
		}
		return
	}
}

// freezeOptions make the children that a tracee forks before it stops tracees
// from birth: a program that forks faster than it can be followed is caught
// so. Not those of vfork(2), for which their parent waits; and not threads,
// which an execve(2) waits for until their tracer buries them.
const freezeOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK

// attach is PTRACE_SEIZE. It succeeds for a thread that is the caller's tracee
// already: one born so, or one that had not stopped when a freeze was given up.
// EPERM also comes for a zombie, and for a thread that dies just now, as a leader
// does whose id a thread in execve(2) takes over: that is worth another try.
func attach(pid, tid int) error {
	const tries = 100
	for i := 1; ; i++ {
		err := ptrace(ptraceSeize, tid, 0, freezeOptions)
		if err != unix.EPERM {
			return err
		}
		s, serr := procfs.ReadTaskStatus(pid, tid)
		if serr == nil && s.TracerPid == unix.Gettid() {
			return nil // also of one that has ended: its tracer must wait for it
		}
		dead := strings.IndexByte("ZX", s.State) >= 0 && s.Threads <= 1
		if serr != nil || s.TracerPid != 0 || dead || i == tries {
			return err
		}
		runtime.Gosched()
	}
}

// whyNotSeized turns the error of PTRACE_SEIZE into nil for a thread that is
// gone, or a refusal that says what stands in the way.
func whyNotSeized(pid, tid int, err error) error {
	s, serr := procfs.ReadTaskStatus(pid, tid)
	if err == unix.ESRCH || procfs.IsGone(serr) || strings.IndexByte("ZX", s.State) >= 0 {
		return nil
	}
	reason := "may not be traced: it is not dumpable, or belongs to another user (ptrace(2), PTRACE_MODE_ATTACH)"
	if os.Geteuid() != 0 && len(s.NSpid) == 1 {
		reason += "; hiatus launch --userns lets it be"
	}
	if s.TracerPid != 0 {
		name, _ := procfs.Comm(s.TracerPid, s.TracerPid)
		reason = fmt.Sprintf("is traced by pid %d (%s), and a thread has one tracer", innerPID(s.TracerPid), name)
	}
	return fmt.Errorf("%w: %w", &plugin.RefusalError{PID: s.InnerTGID(), FD: -1,
		Object: fmt.Sprintf("thread %d (%s)", s.InnerPID(), s.Name), Reason: reason}, err)
}
