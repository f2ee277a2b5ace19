package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
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
	survey *Survey        // nil: there is none
	relies bool           // on the survey, so that smaps is not read in the pause
	sums   *Sums          // of mapped files; nil: none is known
	carry  bool           // mapped files go into the image
	remake bool           // working directories are made again

	short      []ShortCall
	clocksRead time.Time // when the clocks of the image were

	moving sync.Once // see moves

	// vanished: a process ended while it was to be stopped; what it left
	// behind may be new.
	vanished bool
}

// Prepare finds out what saving a tree has to know of this host, not while the program
// stands still.
func (t *Tracer) Prepare() {
	_, _ = thisCPU(), bootID()
	_, _ = t.guardsMarked() // who needs it is told the error
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
	tr.still.Add(1)
	err := tr.Do(func() error {
		hush()
		sleeps.calibrate()
		err := t.freezeAll(ctx, roots)
		if err != nil {
			err = errors.Join(err, t.release())
		}
		return err
	})
	if err != nil {
		t.moves()
		return nil, err
	}
	return t, nil
}

// moves says that the tree stands still no more.
func (t *Tree) moves() { t.moving.Do(t.tr.letReap) }

// fewRounds is how many a freeze takes where processes come now and then.
const fewRounds = 3

// freezeAll goes round until one has found nothing new: the second at the earliest,
// as a list of threads, and of their children, is cut short where the reader meets
// one that ends (kernel, fs/proc/base.c, next_tid).
func (t *Tree) freezeAll(ctx context.Context, roots func() ([]int, error)) error {
	for round := 1; ; round++ {
		if err := ctx.Err(); err != nil {
			if round > fewRounds {
				err = fmt.Errorf("processes appear faster than they can be stopped: %w", err)
			}
			return err
		}
		pids, err := roots()
		if err != nil {
			return err
		}
		before := len(t.procs)
		t.vanished = false
		if err := t.freezeBelow(ctx, pids); err != nil {
			return err
		}
		if len(t.procs) == before && !t.vanished && round > 1 {
			t.sleeps.prune(t)
			t.tr.forgetDead()
			return nil
		}
	}
}

// freezeBelow freezes pids, brothers and sisters in ascending order, and all
// their descendants: one generation after the other, each beside each other.
func (t *Tree) freezeBelow(ctx context.Context, pids []int) error {
	// The youngest first: in a chain of processes that each fork the next and
	// end, only the last lives.
	for slices.Reverse(pids); len(pids) > 0; {
		if err := t.freezeProcesses(ctx, pids); err != nil {
			return err
		}
		var next []int
		for _, pid := range pids {
			p := t.byHost[pid]
			if p == nil || p.zombie { // the children have another parent
				continue
			}
			children, err := p.children()
			if err != nil {
				return err
			}
			slices.Reverse(children)
			next = append(next, children...)
		}
		pids = next
	}
	return nil
}

// children lists the children of a frozen process: after the first time only
// those that it may have adopted since, which come to the first thread that is
// alive (kernel/exit.c, find_new_reaper): the leader. See lose for the exception.
func (p *Process) children() ([]int, error) {
	threads := p.threads
	if p.listed && !p.leaderGone() {
		threads = threads[:1]
	}
	var all []int
	for _, th := range threads {
		list, err := procfs.ChildrenOf(p.host, []int{th.HostTID})
		if err != nil {
			p.listed = false
			return nil, err
		}
		th.forks = th.HostTID != p.host && len(list) > 0
		all = append(all, list...)
	}
	p.listed = true
	slices.Sort(all)
	return all, nil
}

// freezeProcesses stops those of pids that do not stand still yet. All are asked
// before the first is waited for: so they stop beside each other.
func (t *Tree) freezeProcesses(ctx context.Context, pids []int) (err error) {
	var asked []*freezing
	defer func() {
		t.tr.asked = nil
		for _, f := range asked { // where it has failed
			err = errors.Join(err, f.p.release())
		}
	}()
	met := map[int]bool{} // one that was adopted just now may have been listed twice
	for _, pid := range pids {
		if t.byHost[pid] != nil || met[pid] {
			continue
		}
		met[pid] = true
		f := newFreezing(t, pid)
		if _, err := t.ask(f); err != nil {
			if err = t.lose(f.p, err); err != nil {
				return err
			}
			continue
		}
		asked = append(asked, f)
	}
	for range t.tr.asked {
		t.tr.mendNext()
	}
	for len(asked) > 0 {
		f := asked[0]
		asked = asked[1:]
		if err := t.freezeProcess(ctx, f); err != nil {
			if err = t.lose(f.p, err); err != nil {
				return err
			}
			continue
		}
		t.procs = append(t.procs, f.p)
		t.byHost[f.p.host] = f.p
	}
	return nil
}

// lose lets go of a process that could not be frozen. There is no error for one
// that has ended meanwhile: its children are found below whoever adopted them.
func (t *Tree) lose(p *Process, err error) error {
	err = errors.Join(err, p.release())
	if procfs.IsGone(err) {
		t.vanished = true
		for _, p := range t.procs {
			p.listed = false // the process may live on, a child of any thread
		}
		return nil
	}
	return err
}

// freezing is a process on its way to a stop.
type freezing struct {
	p       *Process
	seen    map[int]bool // the threads that were met
	fresh   []*Thread    // of them those that were asked and not waited for yet
	careful []int        // of them those that are to be asked one by one

	attached map[int]*Thread // nil of one that has ended
	sleeps   map[int]*Sleep  // before they were attached to
	forks    map[int]bool    // the threads but the leader that have children
}

func newFreezing(t *Tree, pid int) *freezing {
	return &freezing{p: &Process{host: pid, tr: t.tr, dumpable: -1}, seen: map[int]bool{},
		attached: map[int]*Thread{}, sleeps: map[int]*Sleep{}, forks: map[int]bool{}}
}

// ask attaches to the threads that were not met yet and has them stop. It
// says whether there were any. Those whose call a stop may end are left to stopCareful.
func (t *Tree) ask(f *freezing) (some bool, err error) {
	tids, err := procfs.Tasks(f.p.host)
	if err != nil {
		return false, err
	}
	now, along := f.next(tids)
	all := slices.Concat(now, along)
	for _, tid := range all {
		f.sleeps[tid] = t.sleepOf(f, tid)
	}
	// In one go: what comes meanwhile to one that is attached to is met in its stop.
	for _, tid := range all {
		if _, err := t.attachTo(f, tid); err != nil {
			return false, err
		}
	}
	for _, tid := range now {
		f.seen[tid] = true
		sleep := f.sleeps[tid]
		if sleep.mayEnd() {
			f.careful = append(f.careful, tid)
			continue
		}
		if err := t.seize(f, tid, sleep); err != nil {
			return true, err
		}
	}
	return len(now) > 0, nil
}

// next returns the threads that are to be asked now, and what is to be attached to along with
// them. The leader comes when all others stand still: it is the one that gets signals for the
// process as long as it can take them, and else another one that does not stand still
// (kernel/signal.c, complete_signal). Right before it come those that have children: the signal
// of a child that ends is sent to the thread that made it, and where that is traced it is not
// ignored (sig_ignored): what another thread waits in, to which nobody has attached, would end
// with EINTR.
func (f *freezing) next(tids []int) (now, along []int) {
	first := len(f.seen) == 0
	var leader, parents []int
	for _, tid := range tids {
		switch {
		case f.seen[tid]:
		case tid == f.p.host:
			leader = append(leader, tid)
		case first && f.hasChildren(tid):
			parents = append(parents, tid)
		default:
			now = append(now, tid)
		}
	}
	switch {
	case first && len(now) > 0:
		return now, nil
	case len(now)+len(parents) > 0:
		return append(now, parents...), leader
	}
	return leader, nil
}

func (f *freezing) hasChildren(tid int) bool {
	children, err := procfs.ChildrenOf(f.p.host, []int{tid})
	f.forks[tid] = err == nil && len(children) > 0
	return f.forks[tid]
}

// sleepOf notes what is only seen while a thread sleeps. Of one that was attached to, and stands in
// the stop of a signal, that is what was seen before.
func (t *Tree) sleepOf(f *freezing, tid int) *Sleep {
	now := t.sleeps.before(f.p.host, tid)
	if then, known := f.sleeps[tid]; known && now != nil && (now.state == 't' || strings.Contains(now.wchan, "ptrace_stop")) {
		return then
	}
	return now
}

// stopCareful stops one by one the threads that are in a call that the stop may end
// with EINTR: where the agent is killed before the registers are mended, the program
// sees that. So the moment is a short one, in which nothing else is done.
func (t *Tree) stopCareful(ctx context.Context, f *freezing) error {
	for len(f.careful) > 0 && !f.p.execed {
		tid := f.careful[0]
		f.careful = f.careful[1:]
		err := t.seize(f, tid, t.sleepOf(f, tid))
		if err == nil {
			err = t.awaitFresh(ctx, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitFresh waits for the threads that were asked.
func (t *Tree) awaitFresh(ctx context.Context, f *freezing) error {
	fresh := f.fresh
	f.fresh = nil
	return t.awaitStops(ctx, f.p, fresh)
}

// freezeProcess waits until all threads of a process stand still that was asked.
func (t *Tree) freezeProcess(ctx context.Context, f *freezing) error {
	err := t.freezeThreads(ctx, f)
	if err == nil {
		err = f.p.readStatus()
	}
	if err == nil {
		err = faultpoint.At(faultpoint.ProcessFrozen)
	}
	return err
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
		s, err := p.statusOf(th)
		if err != nil {
			return err
		}
		th.TID = s.InnerPID()
	}
	return nil
}

// freezeThreads waits for the threads that were asked, and asks and waits
// again until no new one has appeared.
func (t *Tree) freezeThreads(ctx context.Context, f *freezing) error {
	p := f.p
	for {
		if err := t.awaitFresh(ctx, f); err != nil {
			return err
		}
		if err := t.stopCareful(ctx, f); err != nil {
			return err
		}
		if p.execed {
			f.startOver()
		}
		some, err := t.ask(f)
		if err != nil {
			return err
		}
		if some {
			continue
		}
		if !p.replaced() && !p.killed() {
			break
		}
		f.startOver()
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
func (f *freezing) startOver() {
	p := f.p
	for _, th := range p.threads {
		delete(p.tr.held, th.HostTID)
	}
	p.tr.asked = slices.DeleteFunc(p.tr.asked, func(th *Thread) bool { return slices.Contains(p.threads, th) })
	p.execed, p.threads, f.careful = false, nil, nil
	clear(f.seen)
	clear(f.attached)
	clear(f.sleeps)
	clear(f.forks)
}

// awaitStopped waits for a process that goes back into its group stop, for a
// moment at most: its parent, let go next, would see it run.
func (p *Process) awaitStopped() {
	const most = 200 * time.Millisecond // of a machine with much to do; it comes at once, but where it was continued just now
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
	defer t.moves()
	return t.tr.Do(func() error {
		err := t.tr.each(t.Procs(), func(p *Process) error {
			err := p.close(ctx)
			_ = faultpoint.At(faultpoint.Closed)
			if isKilled(err) {
				return nil
			}
			return err
		})
		return errors.Join(err, t.release())
	})
}

// isKilled says whether err is that a process was killed while it was stopped. Its memory
// has an end then, proc_pid_mem(5).
func isKilled(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, errGone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

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
	defer t.moves()
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
