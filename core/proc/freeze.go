package proc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// Tree is a frozen process tree.
type Tree struct {
	tr     *Tracer
	procs  []*Process // parents first
	byHost map[int]*Process
	exes   exeSaver
	sleeps *Sleeps
	files  *fileCollector // nil until OpenFiles
	dirty  *Dirty         // nil where nothing is tracked
	survey *Survey        // nil: smaps is read in the pause
	sums   *Sums          // of mapped files; nil: none is known
	carry  bool           // mapped files go into the image

	// vanished: a process ended while it was to be stopped; what it left
	// behind may be new.
	vanished bool
}

// Freeze stops all processes below those that roots lists, until a whole pass
// finds no new one. On error everything runs on.
//
// Parents are stopped before their children: the parent of vfork(2) sits in
// an uninterruptible wait until its child has called execve(2) or has exited,
// so that a frozen child would hold it for ever (kernel/fork.c,
// wait_for_vfork_done).
func (tr *Tracer) Freeze(ctx context.Context, sleeps *Sleeps, roots func() ([]int, error)) (*Tree, error) {
	t := &Tree{tr: tr, byHost: map[int]*Process{}, sleeps: sleeps}
	err := tr.Do(func() error {
		sleeps.calibrate()
		err := t.freezeAll(ctx, roots)
		if err != nil {
			err = errors.Join(err, t.release())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tree) freezeAll(ctx context.Context, roots func() ([]int, error)) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("processes appear faster than they can be stopped: %w", err)
		}
		pids, err := roots()
		if err != nil {
			return err
		}
		before := len(t.procs)
		t.vanished = false
		for _, pid := range slices.Backward(pids) {
			if err := t.freezeBelow(ctx, pid); err != nil {
				return err
			}
		}
		if len(t.procs) == before && !t.vanished {
			t.sleeps.prune(t)
			t.tr.forgetDead()
			return nil
		}
	}
}

// freezeBelow freezes pid and all its descendants.
func (t *Tree) freezeBelow(ctx context.Context, pid int) error {
	if t.byHost[pid] == nil {
		p, err := t.freezeProcess(ctx, pid)
		if err != nil || p == nil {
			t.vanished = true
			return err
		}
		t.procs = append(t.procs, p)
		t.byHost[pid] = p
	}
	if t.byHost[pid].zombie {
		return nil // its children have another parent
	}
	children, err := procfs.Children(pid)
	if err != nil && !procfs.IsGone(err) {
		return err
	}
	// The youngest first: in a chain of processes that each fork the next and
	// end, only the last lives.
	for _, c := range slices.Backward(children) {
		if err := t.freezeBelow(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// freezeProcess stops all threads of pid. It returns nil for a process that
// has ended meanwhile: its children are found below whoever adopted them.
func (t *Tree) freezeProcess(ctx context.Context, pid int) (*Process, error) {
	p := &Process{host: pid, tr: t.tr, dumpable: -1}
	err := t.freezeThreads(ctx, p)
	if err == nil {
		err = p.readStatus()
	}
	if err == nil {
		err = faultpoint.At(faultpoint.ProcessFrozen)
	}
	if err != nil {
		err = errors.Join(err, p.release())
		if procfs.IsGone(err) {
			return nil, nil
		}
		return nil, err
	}
	return p, nil
}

func (p *Process) readStatus() error {
	st, err := procfs.ReadStat(p.host)
	if err != nil {
		return err
	}
	status, err := procfs.ReadStatus(p.host)
	if err != nil {
		return err
	}
	if len(p.threads) == 0 {
		// A zombie with other threads is a leader whose id execve(2) takes over;
		// one with none has just been replaced so.
		if status.State != 'Z' || status.Threads != 1 {
			return fmt.Errorf("pid %d: has no thread to stop: %w", p.host, unix.ESRCH)
		}
		p.zombie = true
	}
	if p.leaderGone() { // it shows neither credentials nor a file mode mask
		if status, err = procfs.ReadTaskStatus(p.host, p.liveTID()); err != nil {
			return err
		}
	}
	p.stat, p.status = st, status
	p.pid, p.parent = status.InnerTGID(), st.PPID
	nested := len(status.NSpid) > 1
	for _, th := range p.threads {
		th.TID = th.HostTID
		if !nested {
			continue
		}
		s, err := procfs.ReadTaskStatus(p.host, th.HostTID)
		if err != nil {
			return err
		}
		th.TID = s.InnerPID()
	}
	return nil
}

// freezeThreads attaches to and stops all threads of p, again and again until
// no new one has appeared.
func (t *Tree) freezeThreads(ctx context.Context, p *Process) error {
	seen := map[int]bool{}
	for {
		tids, err := procfs.Tasks(p.host)
		if err != nil {
			return err
		}
		tids = slices.DeleteFunc(tids, func(tid int) bool { return seen[tid] })
		if len(tids) == 0 && (p.replaced() || p.killed()) {
			startOver(p, seen)
			continue
		}
		if len(tids) == 0 {
			break
		}
		var fresh []*Thread
		for _, tid := range tids {
			seen[tid] = true
			th, err := t.seize(p, tid)
			if err != nil {
				return err
			}
			if th != nil {
				fresh = append(fresh, th)
				p.threads = append(p.threads, th)
			}
		}
		if err := t.awaitStops(ctx, p, fresh); err != nil {
			return err
		}
		if p.execed {
			startOver(p, seen)
		}
	}
	slices.SortFunc(p.threads, func(a, b *Thread) int {
		if (a.HostTID == p.host) != (b.HostTID == p.host) {
			if a.HostTID == p.host {
				return -1
			}
			return 1
		}
		return a.HostTID - b.HostTID
	})
	return nil
}

// replaced says whether a thread that was not yet traced has taken over the id
// of the leader, which had stopped.
func (p *Process) replaced() bool {
	if len(p.threads) == 0 || !slices.Contains(p.hostTIDs(), p.host) {
		return false
	}
	_, err := getRegs(p.host)
	return errors.Is(err, unix.ESRCH) && !isTracee(p.host)
}

// killed says whether the threads that have stopped are on their way out: one
// that had not yet stopped has called exit_group(2), or execve(2).
func (p *Process) killed() bool {
	if len(p.threads) == 0 {
		return false
	}
	_, err := getRegs(p.threads[0].HostTID)
	return errors.Is(err, unix.ESRCH)
}

// startOver takes up a process in which a thread other than the leader has
// called execve(2) meanwhile: it goes on alone, under the leader's id, traced
// as it was. Or that has ended: nothing is found of it then.
func startOver(p *Process, seen map[int]bool) {
	for _, th := range p.threads {
		delete(p.tr.held, th.HostTID)
	}
	p.execed, p.threads = false, nil
	clear(seen)
}

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
		if err := t.readStopped(ctx, p, th); err != nil || th.compat {
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
	if err := p.leaveCriticalSection(th); err != nil {
		return err
	}
	if err := t.settleCall(p, th); err != nil {
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
		th.stopped = true // it is left alone, and refused
		return nil
	}
	th.stopped = err == nil
	return err
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
		if err := waitsForVfork(pid, tid); err != nil && time.Since(begin) > vforkPatience {
			return 0, err
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

// waitsForVfork refuses a thread that waits for its child of vfork(2), which has
// its memory: no signal and no tracer ends that wait.
func waitsForVfork(pid, tid int) error {
	s, err := procfs.ReadTaskStatus(pid, tid)
	if err != nil || s.State != 'D' {
		return nil
	}
	children, err := procfs.Children(pid)
	if err != nil {
		return nil
	}
	for _, c := range children {
		if r, err := linux.Kcmp(tid, c, linux.KCMP_VM, 0, 0); err == nil && r == 0 {
			return &plugin.RefusalError{PID: s.InnerTGID(), FD: -1, Object: fmt.Sprintf("thread %d (%s)", s.InnerPID(), s.Name),
				Reason: fmt.Sprintf("it waits for its child %d of vfork(2), which has not called execve(2) for %v", innerPID(c), vforkPatience)}
		}
	}
	return nil
}

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

// awaitStopped waits for a process that goes back into its group stop, for a
// moment at most: its parent, let go next, would see it run.
func (p *Process) awaitStopped() {
	const most = 10 * time.Millisecond
	for begin := time.Now(); time.Since(begin) < most; runtime.Gosched() {
		if st, err := procfs.ReadStat(p.host); err != nil || st.State == 'T' {
			return
		}
	}
}

func (p *Process) hostTIDs() []int {
	tids := make([]int, len(p.threads))
	for i, th := range p.threads {
		tids[i] = th.HostTID
	}
	return tids
}

// Release lets the whole tree run on.
func (t *Tree) Release(ctx context.Context) error {
	t.exes.close()
	return t.tr.Do(func() error {
		var errs []error
		for _, p := range t.procs {
			if p.zombie {
				continue
			}
			if err := p.close(ctx); err != nil && !isKilled(err) {
				errs = append(errs, err)
			}
			_ = faultpoint.At(faultpoint.Closed)
		}
		return errors.Join(append(errs, t.release())...)
	})
}

// isKilled says whether err is that a process was killed while it was stopped.
func isKilled(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, errGone) }

// release lets go of children before their parents, which may watch them.
func (t *Tree) release() error {
	var errs []error
	for _, p := range slices.Backward(t.procs) {
		_ = faultpoint.At(faultpoint.Releasing)
		errs = append(errs, p.release())
		if p.stopSignal() != 0 {
			p.awaitStopped()
		}
	}
	return errors.Join(errs...)
}

// Kill ends all processes of the tree while they are stopped.
func (t *Tree) Kill() error {
	t.exes.close()
	return t.tr.Do(func() error {
		var errs []error
		for _, p := range t.procs {
			p.closeMem()
			if p.zombie {
				continue
			}
			if err := unix.Kill(p.host, unix.SIGKILL); err != nil && err != unix.ESRCH {
				errs = append(errs, fmt.Errorf("pid %d: kill: %w", p.pid, err))
			}
		}
		for _, p := range t.procs {
			for _, th := range p.threads {
				delete(t.tr.held, th.HostTID)
				_ = detach(th.HostTID) // ESRCH: it is already gone
			}
		}
		return errors.Join(errs...)
	})
}

// Procs returns the processes that are not zombies, parents first.
func (t *Tree) Procs() []*Process {
	return slices.DeleteFunc(slices.Clone(t.procs), func(p *Process) bool { return p.zombie })
}
