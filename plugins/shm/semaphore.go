package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// saveSemaphores saves the semaphore sets, but for the undo counts.
func (p *Plugin) saveSemaphores(ctx context.Context, t *tree) error {
	sets := t.found[semKind.name]
	if len(sets) == 0 {
		return nil
	}
	if err := t.learnUsers(ctx); err != nil {
		return err
	}
	waiting := t.waiting()[unix.SYS_SEMCTL]
	contents, err := t.readSets(ctx, sets)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range sets {
		set, err := p.saveSet(t, o, contents[o.ID], waiting[o.ID])
		switch {
		case err == nil:
			p.state.Semaphores = append(p.state.Semaphores, set)
		case !errors.Is(err, errOther):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *Plugin) saveSet(t *tree, o object, c setContent, waiting bool) (semSet, error) {
	set := semSet{perm: o.perm, Values: c.values, PIDs: c.pids, Unused: o.u64(semOtimeAt) == 0}
	switch {
	case errors.Is(c.err, unix.EACCES) && waiting:
		return set, t.refuse(semKind, &o, "its permissions do not let the computation read it")
	case errors.Is(c.err, unix.EACCES), errors.Is(c.err, unix.EINVAL), errors.Is(c.err, unix.EIDRM):
		return set, errOther // the latter two: somebody outside has removed it meanwhile
	case c.err != nil:
		return set, fmt.Errorf("semaphore set %d: %w", o.ID, c.err)
	}
	u := t.users(o.last, set.PIDs...)
	u.inside = u.inside || waiting
	err := p.judge(t, semKind, &o, u)
	set.perm = o.perm
	return set, err
}

// reader returns a process that may read o, or EACCES.
func (t *tree) reader(ctx context.Context, k kind, o object) (plugin.Process, error) {
	for _, proc := range t.procs {
		addr, _ := proc.Scratch()
		c := k.control(o.ID, ipcStat, uintptr(addr))
		_, err := proc.Syscall(ctx, c.Nr, c.Args[:]...)
		switch {
		case err == nil:
			return proc, nil
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM):
			return nil, errOther // it was removed meanwhile
		case !errors.Is(err, unix.EACCES):
			return nil, fmt.Errorf("pid %d: %s %d: %w", proc.PID(), k.what, o.ID, err)
		}
	}
	return nil, unix.EACCES
}

// setContent is what a set holds, or why nobody can tell.
type setContent struct {
	values []uint16
	pids   []int // sempid of each
	err    error
}

// readSets reads all sets by id, each by the first process that may.
func (t *tree) readSets(ctx context.Context, sets []object) (map[int]setContent, error) {
	found := map[int]setContent{}
	for _, proc := range t.procs {
		for left := sets; len(left) > 0; {
			n, err := readSomeSets(ctx, proc, left, found)
			if err != nil {
				return nil, fmt.Errorf("pid %d: semaphore sets: %w", proc.PID(), err)
			}
			left = left[n:]
		}
		sets = slices.DeleteFunc(slices.Clone(sets), func(o object) bool { return !errors.Is(found[o.ID].err, unix.EACCES) })
	}
	return found, nil
}

// readSomeSets reads as many sets as one batch can, and returns their number.
func readSomeSets(ctx context.Context, proc plugin.Process, sets []object, found map[int]setContent) (n int, err error) {
	const most = 1024 // calls, where it is more than one set
	addr, size := proc.Scratch()
	var calls []plugin.Call
	used := 0
	for ; n < len(sets); n++ {
		id, count := sets[n].ID, int(sets[n].u64(semCountAt))
		if n > 0 && (used+2*count > size || len(calls)+count > most) {
			break
		}
		if 2*count > size {
			found[id] = setContent{err: fmt.Errorf("%d semaphores are too many", count)}
			return 1, nil
		}
		calls = append(calls, semKind.control(id, semGetAll, uintptr(addr)+uintptr(used)))
		for i := range count {
			calls = append(calls, plugin.Call{Nr: unix.SYS_SEMCTL, Args: [6]uintptr{uintptr(id), uintptr(i), semGetPID}})
		}
		used += 2 * count
	}
	for i := range calls {
		calls[i].MayFail = true // it may be another's, and removed meanwhile
	}
	if err := proc.Batch(ctx, calls); err != nil {
		return 0, err
	}
	values := make([]byte, used)
	if err := read(proc, values, addr); err != nil {
		return 0, err
	}
	for _, o := range sets[:n] {
		count := int(o.u64(semCountAt))
		found[o.ID] = newSetContent(calls[:count+1], values[:2*count])
		calls, values = calls[count+1:], values[2*count:]
	}
	return n, nil
}

// newSetContent makes a content of GETALL, whose answer is values, and a GETPID
// for each semaphore.
func newSetContent(calls []plugin.Call, values []byte) (c setContent) {
	for _, call := range calls {
		if call.Err != 0 {
			return setContent{err: call.Err}
		}
	}
	for i, call := range calls[1:] {
		c.values = append(c.values, native.Uint16(values[2*i:]))
		c.pids = append(c.pids, int(int32(call.Ret)))
	}
	return c
}

// makeSemaphores makes the sets with their values.
func (p *Plugin) makeSemaphores(ctx context.Context, t *tree) error {
	return p.makeEach(ctx, t, semKind, len(p.state.Semaphores), func(m *maker, i int) error {
		s := p.state.Semaphores[i]
		get := plugin.Call{Nr: unix.SYS_SEMGET, Args: [6]uintptr{uintptr(uint32(s.Key)), uintptr(len(s.Values)), ipcCreat | ipcExcl | s.writable()}}
		if err := m.make(ctx, m.proc, s.perm, get); err != nil {
			return err
		}
		if s.untouched() {
			return nil
		}
		addr, size := m.proc.Scratch()
		var buf []byte
		for _, v := range s.Values {
			buf = native.AppendUint16(buf, v)
		}
		if len(buf) > size {
			return fmt.Errorf("semaphore set %d: %d semaphores are too many", s.ID, len(s.Values))
		}
		if err := write(m.proc, buf, addr); err != nil {
			return err
		}
		if _, err := m.proc.Syscall(ctx, unix.SYS_SEMCTL, uintptr(s.ID), 0, semSetAll, uintptr(addr)); err != nil {
			return fmt.Errorf("semaphore set %d: SETALL: %w", s.ID, err)
		}
		return nil
	}, func(i int) perm { return p.state.Semaphores[i].perm })
}

// makeEach makes n objects of a kind. In the current namespaces, what is
// doubtful stays as it is.
func (p *Plugin) makeEach(ctx context.Context, t *tree, k kind, n int, one func(m *maker, i int) error, at func(i int) perm) (err error) {
	if n == 0 {
		return nil
	}
	m, err := k.maker(ctx, t.procs[0], &p.made)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	for _, i := range inTurn(n, at) {
		o := at(i)
		if o.Doubtful && !t.own { // it is there: FreeHere
			p.making.leave(k, o.ID)
			continue
		}
		err := one(m, i)
		if errors.Is(err, errUnreachable) && (o.Unproven || o.Doubtful) {
			p.host.Log().Warn().Err(err).Msg("not restored: nothing shows that the program uses it")
			p.making.leave(k, o.ID)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finishSemaphores makes the last process that changed a semaphore the one
// that did so before, where it lives, and sets owner and permissions.
func (p *Plugin) finishSemaphores(ctx context.Context, t *tree) error {
	for _, s := range p.state.Semaphores {
		if p.making.left(semKind, s.ID) {
			continue
		}
		for num, pid := range s.PIDs {
			if proc := t.byPID[pid]; proc != nil {
				if err := s.changeBy(ctx, proc, num); err != nil {
					return fmt.Errorf("pid %d: semaphore %d of set %d: %w", pid, num, s.ID, err)
				}
			}
		}
		if err := p.finishObject(ctx, semKind, t.procs[0], s.perm, 0); err != nil {
			return err
		}
	}
	return nil
}

// changeBy has proc change the semaphore, to what it is.
func (s semSet) changeBy(ctx context.Context, proc plugin.Process, num int) error {
	if s.Unused {
		c := semKind.control(s.ID, semSetVal, uintptr(s.Values[num]))
		c.Args[1] = uintptr(num)
		_, err := proc.Syscall(ctx, c.Nr, c.Args[:]...)
		return os.NewSyscallError("semctl SETVAL", err)
	}
	up, down := semop{num, 1, 0}, semop{num, -1, 0}
	if s.Values[num] == semMax {
		up, down = down, up
	}
	return os.NewSyscallError("semop", up.with(ctx, proc, s.ID, down))
}

// untouched says that the set is as semget(2) has made it.
func (s semSet) untouched() bool {
	return s.Unused && !slices.ContainsFunc(s.PIDs, func(pid int) bool { return pid != 0 }) &&
		!slices.ContainsFunc(s.Values, func(v uint16) bool { return v != 0 })
}

// semop is struct sembuf.
type semop struct {
	num, op int
	flags   int
}

// with makes s and more in one semop(2).
func (s semop) with(ctx context.Context, proc plugin.Process, id int, more ...semop) error {
	addr, _ := proc.Scratch()
	ops := append([]semop{s}, more...)
	if err := write(proc, encodeOps(ops), addr); err != nil {
		return err
	}
	_, err := proc.Syscall(ctx, unix.SYS_SEMOP, uintptr(id), uintptr(addr), uintptr(len(ops)))
	return err
}

func encodeOps(ops []semop) (b []byte) {
	for _, o := range ops {
		b = native.AppendUint16(b, uint16(o.num))
		b = native.AppendUint16(b, uint16(int16(o.op)))
		b = native.AppendUint16(b, uint16(o.flags))
	}
	return b
}
