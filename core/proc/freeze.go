package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
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
