package shm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// undoList is a process that has undo counts.
type undoList struct{ tid, pid int }

// kcmpSysvsem is KCMP_SYSVSEM, kcmp(2).
const kcmpSysvsem = 6

// sameUndo compares the lists of undo counts of two threads. Those that have
// none are the same.
func sameUndo(a, b int) (bool, error) {
	r, err := linux.Kcmp(a, b, kcmpSysvsem, 0, 0)
	return r == 0, err
}

// hasUndo says whether a thread has a list of undo counts, which it also gets by
// making a thread (kernel, ipc/sem.c, copy_semundo): so no thread of ours is without
// one, but that which has just given up its own.
func hasUndo(tid int) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Unshare(unix.CLONE_SYSVSEM) != nil {
		return true, nil // a seccomp filter, as a container's, forbids it: in doubt it has one
	}
	same, err := sameUndo(unix.Gettid(), tid)
	return !same, err
}

// saveUndo saves the undo counts of proc.
func (p *Plugin) saveUndo(ctx context.Context, proc plugin.Process) error {
	if len(p.state.Semaphores) == 0 {
		return nil
	}
	threads := proc.Threads()
	leader := plugin.LiveTID(proc)
	for _, th := range threads[min(1, len(threads)):] {
		if same, err := sameUndo(leader, th.HostTID); err != nil || !same {
			return errors.Join(err, plugin.RefuseProcess(proc, fmt.Sprintf("thread %d", th.TID),
				"it does not share the undo counts of semaphores with the others (CLONE_SYSVSEM)"))
		}
	}
	some, err := hasUndo(leader)
	if err != nil || !some {
		return err
	}
	for _, other := range p.saving.undo {
		if same, err := sameUndo(other.tid, leader); err != nil || same {
			return errors.Join(err, plugin.RefuseProcess(proc, "semaphores",
				"it shares the undo counts of semaphores with process %d (CLONE_SYSVSEM)", other.pid))
		}
	}
	p.saving.undo = append(p.saving.undo, undoList{leader, proc.PID()})
	for i := range p.state.Semaphores {
		if err := p.saveUndoOf(ctx, proc, &p.state.Semaphores[i]); err != nil {
			return fmt.Errorf("pid %d: semaphore set %d: undo counts: %w", proc.PID(), p.state.Semaphores[i].ID, err)
		}
	}
	return nil
}

// saveUndoOf leaves a set alone of which there can be no counts: a look makes an
// entry for the process, at whose end the kernel sets sem_otime.
func (p *Plugin) saveUndoOf(ctx context.Context, proc plugin.Process, set *semSet) error {
	if set.Unused {
		return nil
	}
	first := make([]probe, 0, 2*len(set.Values))
	for num, v := range set.Values {
		first = append(first, probe{num, int(v), 1}, probe{num, int(v), -1})
	}
	reached, err := probeAll(ctx, proc, set.ID, first)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EIDRM) || errors.Is(err, unix.EINVAL) {
		return nil // it cannot have changed it
	}
	if err != nil {
		return err
	}
	if slices.Contains(reached, true) && (set.Doubtful || set.Unproven) {
		// Somebody else's, in use just now, must not be probed any further.
		if still, err := valuesStand(ctx, proc, set); err != nil || !still {
			return err
		}
	}
	for i, yes := range reached {
		if !yes {
			continue
		}
		count, err := first[i].search(ctx, proc, set.ID)
		if errors.Is(err, unix.EIDRM) || errors.Is(err, unix.EINVAL) {
			return nil // somebody outside has removed it meanwhile
		}
		if err != nil {
			return err
		}
		p.state.Undo = append(p.state.Undo, undo{PID: proc.PID(), ID: set.ID, Num: first[i].num, Count: count})
		set.Doubtful, set.Unproven = false, false
	}
	return nil
}

// valuesStand says whether a set is as it was saved.
func valuesStand(ctx context.Context, proc plugin.Process, set *semSet) (bool, error) {
	now := object{perm: set.perm, ds: make([]byte, dsSize)}
	native.PutUint64(now.ds[semCountAt:], uint64(len(set.Values)))
	found := map[int]setContent{}
	_, err := readSomeSets(ctx, proc, []object{now}, found)
	return slices.Equal(found[set.ID].values, set.Values), err
}

// probe asks whether the undo count of a semaphore has reached bound: is at
// least that where it is positive, at most where it is negative.
type probe struct {
	num, value int
	bound      int
}

// search finds the count, which has reached the bound 1 or -1.
func (p probe) search(ctx context.Context, proc plugin.Process, id int) (int, error) {
	sign := p.bound
	low, high := 1, semMax
	if sign < 0 {
		high = semMax + 1
	}
	for low < high {
		mid := (low + high + 1) / 2
		p.bound = sign * mid
		reached, err := probeAll(ctx, proc, id, []probe{p})
		if err != nil {
			return 0, err
		}
		if reached[0] {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return sign * low, nil
}

// ops are operations that always fail: with ERANGE where the count has reached
// the bound, else with EAGAIN. The value is first brought to where the
// operation with SEM_UNDO is possible; the last could only wait.
func (p probe) ops() (ops []semop) {
	const undo = ipcNowait | semUndo
	add := func(op, flags int) {
		ops = append(ops, semop{p.num, op, flags})
	}
	move := func(op int) {
		if op != 0 {
			add(op, ipcNowait)
		}
	}
	if a := p.bound; a > 0 {
		// count + 32768 - a > 32767
		take := semMax + 1 - a
		move(semMax - p.value)
		add(-take, undo)
		if take == semMax { // the value is 0
			add(-1, ipcNowait)
		} else {
			add(0, ipcNowait)
		}
		return ops
	}
	// count - (32769 - a) < -32768, in two steps where that is out of range
	a := -p.bound
	move(-p.value)
	give := semMax + 2 - a
	if give > semMax {
		add(semMax, undo)
		add(-semMax, ipcNowait)
		give -= semMax
	}
	add(give, undo)
	add(0, ipcNowait)
	return ops
}

const maxOps = 5 // of a probe

// probeAll tells which probes have reached their bounds.
func probeAll(ctx context.Context, proc plugin.Process, id int, probes []probe) ([]bool, error) {
	const opsSize = 6 * maxOps
	addr, size := proc.Scratch()
	reached := make([]bool, 0, len(probes))
	for len(probes) > 0 {
		n := min(len(probes), size/opsSize)
		calls := make([]plugin.Call, n)
		buf := make([]byte, n*opsSize)
		for i, p := range probes[:n] {
			ops := p.ops()
			copy(buf[i*opsSize:], encodeOps(ops))
			calls[i] = plugin.Call{Nr: unix.SYS_SEMOP, MayFail: true,
				Args: [6]uintptr{uintptr(id), uintptr(addr) + uintptr(i*opsSize), uintptr(len(ops))}}
		}
		if err := write(proc, buf, addr); err != nil {
			return nil, err
		}
		if err := proc.Batch(ctx, calls); err != nil {
			return nil, err
		}
		for _, c := range calls {
			switch c.Err {
			case unix.ERANGE:
				reached = append(reached, true)
			case unix.EAGAIN:
				reached = append(reached, false)
			case 0:
				return nil, errors.New("a semop that had to fail has succeeded: another process changes the semaphores")
			default:
				return nil, fmt.Errorf("semop: %w", c.Err)
			}
		}
		probes = probes[n:]
	}
	return reached, nil
}

// restoreUndo gives proc its undo counts: each operation with SEM_UNDO is
// taken back by one without.
func (p *Plugin) restoreUndo(ctx context.Context, proc plugin.Process) error {
	for _, u := range p.state.Undo {
		if u.PID != proc.PID() || p.making.left(semKind, u.ID) {
			continue
		}
		value := p.valueOf(u)
		for left := u.Count; left != 0; {
			step := clamp(left, max(value, semMax-value))
			undo, back := semop{u.Num, -step, semUndo}, semop{u.Num, step, 0}
			first, second := undo, back
			if v := value + undo.op; v < 0 || v > semMax {
				first, second = back, undo
			}
			if err := first.with(ctx, proc, u.ID, second); err != nil {
				return fmt.Errorf("pid %d: semaphore %d of set %d: undo count %d: semop: %w", u.PID, u.Num, u.ID, u.Count, err)
			}
			left -= step
		}
	}
	return nil
}

func (p *Plugin) valueOf(u undo) int {
	for _, s := range p.state.Semaphores {
		if s.ID == u.ID {
			return int(s.Values[u.Num])
		}
	}
	return 0
}

func clamp(v, most int) int { return max(-most, min(v, most)) }
