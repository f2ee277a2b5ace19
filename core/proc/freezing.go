package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

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
