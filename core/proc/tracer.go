package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

var (
	// errGone is what a wait returns for a thread that has ended.
	errGone = errors.New("the thread has ended")
	// errRenamed is errGone where no end was reported: the thread has called
	// execve(2) and goes on under the id of its leader.
	errRenamed = fmt.Errorf("%w under this id", errGone)
)

// Tracer is the one locked thread on which all of ptrace and wait4 happens.
type Tracer struct {
	tid     int // of the thread
	work    chan func()
	child   chan os.Signal
	stopped chan struct{}
	exits   []Exit // of threads that ended while they were traced, and what Reap has not returned

	still atomic.Int32 // trees that are frozen

	// group is the process whose thread is waited for.
	group int
	turn  *turn // what runs now of each; nil: something else does
	// crowded is when others were seen to compute on all processors; see yield.
	crowded time.Time

	// asked are the threads that a freeze has asked to stop and has not met in a stop.
	asked   []*Thread
	siginfo []byte // room for mend
	// late holds threads that were to be let go before they had stopped.
	late map[int]bool
	// held are the threads of frozen trees.
	held map[int]bool

	copies copySet
	ending sync.WaitGroup // of copies
	gate   *gate          // nil: the tree has all its memory
	spare  spare          // of the generation before

	guards sync.Once
	marked bool  // see guardsMarked
	noMark error // the error of finding out
}

// Exit tells that a child of the agent has ended or changed its state.
type Exit struct {
	HostPID int
	Status  unix.WaitStatus
}

// NewTracer starts the thread.
func NewTracer() *Tracer {
	t := &Tracer{work: make(chan func()), child: make(chan os.Signal, 1), stopped: make(chan struct{}), late: map[int]bool{}, held: map[int]bool{},
		siginfo: make([]byte, siginfoSize)}
	signal.Notify(t.child, unix.SIGCHLD)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its tracees' ties
		defer close(t.stopped)
		t.tid = unix.Gettid()
		close(started)
		for f := range t.work {
			f()
		}
	}()
	<-started
	return t
}

// Do runs f on the tracer's thread, which may be the caller's, and waits for it.
func (t *Tracer) Do(f func() error) error {
	if unix.Gettid() == t.tid {
		return f()
	}
	done := make(chan error, 1)
	t.work <- func() { done <- f() }
	return <-done
}

// Close ends the thread; tracees still attached are let go by the kernel.
func (t *Tracer) Close() {
	t.AwaitCopies()
	signal.Stop(t.child)
	close(t.work)
	<-t.stopped
}

// Reap collects the children of the agent that have ended, stopped or
// continued since the last call. more is false when there is no child left. While
// a tree stands still it does nothing, as each injected call is a stop: there is
// time at Release.
func (t *Tracer) Reap() (exits []Exit, more bool) {
	if t.still.Load() > 0 {
		return nil, true
	}
	_ = t.Do(func() error {
		more = t.reap()
		exits, t.exits = t.exits, nil
		return nil
	})
	return exits, more
}

// letReap ends the time in which Reap does nothing.
func (t *Tracer) letReap() {
	t.still.Add(-1)
	_ = t.Do(func() error {
		speak()
		t.reap() // what was not told
		return nil
	})
}

// reap notes what has become of the children, and says whether there are any.
func (t *Tracer) reap() (more bool) {
	var met time.Time // by the gate
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD
			return false
		case pid == 0 && t.gate != nil && time.Since(met) < gateSpin:
			t.yield()
			continue
		case pid == 0:
			return true
		case t.gate != nil && t.gate.threads[pid] != nil:
			t.gate.stop(pid, ws)
			met = time.Now()
			continue
		case t.late[pid] || event(ws) == eventStop && !t.held[pid]:
			// The second is a child that was born traced (PTRACE_O_TRACEFORK)
			// to a tree whose freeze was given up before it was found.
			t.letGo(pid, ws)
			continue
		}
		t.exits = append(t.exits, Exit{pid, ws})
	}
}

// gateSpin is how long the gate looks out for a next stop.
const gateSpin = 50 * time.Microsecond

// wait returns the next stop of tid, or errGone.
func (t *Tracer) wait(ctx context.Context, tid int) (unix.WaitStatus, error) {
	idle, own := t.newIdling(), t.turn
	defer idle.end()
	for {
		ws, found, err := t.lookFor(tid)
		if found {
			own.moves()
			return ws, err
		}
		if idle.spun() && ctx.Err() != nil {
			return 0, fmt.Errorf("tid %d does not stop: %w", tid, ctx.Err())
		}
		t.mendNext()
		if own != nil {
			own.wait(ctx)
		} else {
			idle.pass(ctx)
		}
	}
}

// lookFor returns the next stop of tid or errGone, if there is one yet.
func (t *Tracer) lookFor(tid int) (ws unix.WaitStatus, found bool, err error) {
	got, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR:
		return 0, false, nil
	case err == unix.ECHILD && !t.hasEnded(tid):
		return 0, true, fmt.Errorf("tid %d: %w", tid, errRenamed)
	case err == unix.ECHILD:
		return 0, true, fmt.Errorf("tid %d: %w", tid, errGone)
	case err != nil:
		return 0, true, fmt.Errorf("tid %d: wait4: %w", tid, err)
	case got == tid && (ws.Exited() || ws.Signaled()):
		t.exits = append(t.exits, Exit{tid, ws})
		return ws, true, fmt.Errorf("tid %d: %w", tid, errGone)
	}
	return ws, got == tid, nil
}

func (t *Tracer) hasEnded(tid int) bool {
	return slices.ContainsFunc(t.exits, func(e Exit) bool { return e.HostPID == tid })
}

// bury takes note of the threads of the group that have ended.
func (t *Tracer) bury() {
	if t.group != 0 {
		t.exits = append(t.exits, bury(t.group)...)
	}
}

// bury waits for those threads of pid that have ended. A thread that calls
// execve(2), and the leader of threads that were killed, go on only when their
// traced siblings have been waited for: also those that a freeze has dropped as
// dead. wait4 would take the stops of others too: a tracee's are seen whatever
// is asked for (kernel/exit.c, wait_consider_task).
func bury(pid int) (exits []Exit) {
	tids, _ := procfs.Tasks(pid) // an error: there is none left
	for _, tid := range tids {
		var si unix.Siginfo
		err := unix.Waitid(unix.P_PID, tid, &si, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		if err != nil || si.Code < cldExited || si.Code > cldDumped {
			continue // gone, alive, or in a stop
		}
		var ws unix.WaitStatus
		if got, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOHANG, nil); err == nil && got == tid {
			exits = append(exits, Exit{tid, ws})
		}
	}
	return exits
}

// watch buries threads of pid from another thread while the tracer's own is in
// PTRACE_SEIZE, until stop is called: a thread in execve(2) holds what SEIZE
// takes (cred_guard_mutex) until its siblings are buried, which only their
// tracer can do.
func (t *Tracer) watch(pid int) (stop func()) {
	const patience = 20 * time.Millisecond
	done, buried := make(chan struct{}), make(chan []Exit, 1)
	timer := time.AfterFunc(patience, func() {
		var exits []Exit
		for {
			exits = append(exits, bury(pid)...)
			select {
			case <-done:
				buried <- exits
				return
			case <-time.After(patience):
			}
		}
	})
	return func() {
		close(done)
		if !timer.Stop() {
			t.exits = append(t.exits, <-buried...)
		}
	}
}

const (
	cldExited = 1 // CLD_EXITED
	cldDumped = 3 // CLD_DUMPED
)

// stopAt continues tid until it stands in a PTRACE_EVENT_STOP, delivering the
// signals it meets on the way, and returns the signal of its group stop: 0
// where it is not stopped by one.
func (t *Tracer) stopAt(ctx context.Context, tid int) (syscall.Signal, error) {
	for {
		ws, err := t.wait(ctx, tid)
		if err != nil {
			return 0, err
		}
		if event(ws) == eventStop {
			if s := ws.StopSignal(); s != unix.SIGTRAP {
				return s, nil
			}
			return 0, nil
		}
		sig := ws.StopSignal()
		if event(ws) != 0 || sig == unix.SIGTRAP|0x80 {
			sig = 0
		}
		if err := cont(tid, sig); err != nil && err != unix.ESRCH {
			return 0, fmt.Errorf("tid %d: continue: %w", tid, err)
		}
	}
}

// letGoLate detaches from a thread as soon as it stops: at once, or when Reap
// meets the stop.
func (t *Tracer) letGoLate(tid int) {
	var ws unix.WaitStatus
	got, err := unix.Wait4(tid, &ws, unix.WALL|unix.WNOHANG, nil)
	if err == unix.ECHILD {
		delete(t.late, tid)
		return
	}
	t.late[tid] = true
	if err == nil && got == tid {
		t.letGo(tid, ws)
	}
}

// goOn has the call of a thread that was stopped for nothing go on, where the kernel would not see to that,
// and says whether it has changed the registers.
func (r *Regs) goOn(tid int) bool {
	nr, in := r.SyscallNr()
	switch {
	case r.interrupted():
		r.rerun()
		return true
	case in && nr != restartNr && r.ret() == -int64(errRestartBlock) && isFiltered(tid):
		r.setRet(-int64(errRestartNohand))
		return true
	}
	return false
}

func (t *Tracer) letGo(tid int, ws unix.WaitStatus) {
	if !ws.Stopped() {
		delete(t.late, tid)
		t.exits = append(t.exits, Exit{tid, ws})
		return
	}
	if event(ws) == eventStop {
		delete(t.late, tid)
		if r, err := getRegs(tid); err == nil && r.goOn(tid) {
			_ = setRegs(tid, r)
		}
		_ = detach(tid) // ESRCH: it was killed meanwhile
		return
	}
	sig := ws.StopSignal()
	if event(ws) != 0 || sig == unix.SIGTRAP|0x80 {
		sig = 0
	}
	_ = cont(tid, sig)
}

// forgetDead takes those off the list of late ones that have ended.
func (t *Tracer) forgetDead() {
	for tid := range t.late {
		t.letGoLate(tid)
	}
}
