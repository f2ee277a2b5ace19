package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// earlyMemory is how much memory comes before the program runs in any case: the
// smallest mappings, as stacks and the memory of threads, of which most system
// calls need some. It takes some milliseconds.
const earlyMemory = 16 << 20

// lateProblem says why memory cannot come late, "" where it can.
func (r *Restorer) lateProblem() string {
	if !gateHere {
		return "it is not known of this machine which memory a system call accesses"
	}
	for i := range r.st.Processes {
		ps := &r.st.Processes[i]
		switch {
		case ps.Stopped:
			return fmt.Sprintf("pid %d is stopped by a signal", ps.PID)
		case ps.LockFuture != 0:
			return fmt.Sprintf("pid %d has its memory locked, mlockall(2)", ps.PID)
		case slices.ContainsFunc(ps.Threads, func(t ThreadState) bool { return t.Masked && ps.lets(&t) != 0 }):
			return fmt.Sprintf("pid %d has a signal pending that only a system call blocks", ps.PID)
		case slices.ContainsFunc(ps.Threads, func(t ThreadState) bool { return t.Seccomp != nil }):
			return fmt.Sprintf("pid %d has system calls filtered, seccomp(2)", ps.PID)
		}
	}
	return ""
}

// mayComeLate says whether nothing but content is to be put into a mapping.
func (m *MapState) mayComeLate() bool {
	return m.Kind == MapAnon && !m.Shared && m.Huge == 0 && len(m.Guards) == 0 &&
		!slices.ContainsFunc(m.Flags, func(f string) bool { return slices.Contains([]string{"lo", "lf", "gd", "dp", "sl"}, f) })
}

// chooseLate says of which mappings the content comes late.
func (r *Restorer) chooseLate(content map[uint32][]image.Range) map[mapKey]bool {
	type candidate struct {
		key  mapKey
		size uint64
	}
	var list []candidate
	for i := range r.st.Processes {
		ps := &r.st.Processes[i]
		for j := range ps.Maps {
			if m := &ps.Maps[j]; !ps.Zombie && m.mayComeLate() {
				if n := within(content[ps.Space], m.Start, m.End); n > 0 {
					list = append(list, candidate{mapKey{ps.PID, m.Start}, n})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.size, b.size) })
	late := map[mapKey]bool{}
	early := uint64(0)
	for _, c := range list {
		if early += c.size; early > earlyMemory {
			late[c.key] = true
		}
	}
	return late
}

// prepareLate opens the way for memory that comes late; where that is not
// possible all comes at once, and the user hears why.
func (r *Restorer) prepareLate(fillers map[uint32]*filler) *Arrival {
	a := newArrival(r.img)
	for space, f := range fillers {
		m := &lateMemory{a: a, p: f.p, uffd: f.uffd}
		for _, area := range f.areas {
			switch {
			case !area.late:
			case !area.missing:
				r.warn("--lazy: all memory comes before the program runs: pid %d: %v", f.p.pid, cmp.Or(r.noUserfault, errNotRegistered))
				return nil
			default:
				m.areas = append(m.areas, linux.PageRange{Start: area.start, End: area.end})
			}
		}
		if len(m.areas) > 0 {
			a.memory[space] = m
		}
	}
	switch n := len(a.memory); {
	case n == 0:
		return nil
	case n >= r.sockFD: // see holdLate
		r.warn("--lazy: all memory comes before the program runs: %d processes are more than a limit of %d descriptors allows", n, r.sockFD)
		return nil
	}
	return a
}

var errNotRegistered = errors.New("its memory cannot be registered with userfaultfd(2)")

// holdLate leaves the processes as they are to run: what has come is plain
// memory, the rest is missing.
func (r *Restorer) holdLate(ctx context.Context, fillers map[uint32]*filler) error {
	var fds []int
	for space, m := range r.late.memory {
		f := fillers[space]
		for _, area := range f.areas {
			if area.missing && !area.late {
				if err := linux.UserfaultUnregister(f.uffd, area.start, area.end); err != nil {
					return fmt.Errorf("pid %d: %w", f.p.pid, err)
				}
			}
		}
		f.uffd = -1 // it is the Arrival's
		f.p.late = m
		fds = append(fds, m.uffd)
	}
	// See gate: the first process holds them until the end.
	if err := r.tr.Do(func() error { return r.pass(ctx, r.stub, fds) }); err != nil {
		return err
	}
	for i := range r.st.Processes {
		if m := r.late.memory[r.st.Processes[i].Space]; m != nil && !r.st.Processes[i].Zombie {
			for j := range r.st.Processes[i].Threads {
				if err := m.pin(&r.st.Processes[i].Threads[j]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pin brings what the kernel accesses on behalf of a thread while it runs or
// when it ends, and what the call that it waits in accesses.
func (m *lateMemory) pin(ts *ThreadState) error {
	spans := []span{{ts.TIDAddr, 4}, {ts.Rseq.Addr, max(uint64(ts.Rseq.Size), 32)}}
	if ts.Sleep != nil {
		var args [6]uint64
		for i := range args {
			args[i] = ts.Regs.arg(i)
		}
		spans = append(spans, accessed(ts.Sleep.Nr, args)...)
	}
	if err := m.bringAll(spans); err != nil {
		return err
	}
	return m.pinRobust(ts.Robust[0])
}

// pinRobust brings the locks that a thread holds: the kernel walks their list
// when it ends, set_robust_list(2).
func (m *lateMemory) pinRobust(head uint64) error {
	const limit = 2048 // ROBUST_LIST_LIMIT
	word := func(addr uint64) (uint64, bool) {
		var b [8]byte
		err := m.p.readMem(addr, b[:])
		return le.Uint64(b[:]), err == nil
	}
	if head == 0 {
		return nil
	}
	offset, ok := word(head + 8)
	if !ok {
		return m.a.Err()
	}
	pending, _ := word(head + 16)
	next, _ := word(head)
	for n := 0; n < limit && next&^1 != head && next&^1 != 0; n++ {
		word(next&^1 + offset)
		if next, ok = word(next &^ 1); !ok {
			break
		}
	}
	if pending &^= 1; pending != 0 {
		word(pending + offset)
	}
	return m.a.Err()
}

// close gives up: the processes have been killed. What holdLate has not come to is the
// fillers' still.
func (a *Arrival) close() {
	for _, m := range a.memory {
		if m.p.late == m {
			unix.Close(m.uffd)
		}
	}
}

// runLate lets the tree run up to the gate, and has its memory come.
func (r *Restorer) runLate(ctx context.Context) error {
	g := &gate{tr: r.tr, threads: map[int]*gated{}, tree: &Tree{tr: r.tr, sleeps: r.sleeps, procs: r.Procs()}}
	err := r.tr.Do(func() error {
		for i := range slices.Backward(r.st.Processes) {
			ps := &r.st.Processes[i]
			if ps.Zombie {
				continue
			}
			p := r.byPID[ps.PID]
			p.closeMem()
			for _, th := range p.threads {
				x := &gated{p: p, th: th, m: p.late, brk: ps.MM.Brk, altStack: altStackOf(ps, th.TID)}
				if err := errors.Join(r.shorten(p, th), g.start(x)); err != nil {
					return err
				}
			}
		}
		r.tr.gate = g
		r.speak()
		return nil
	})
	if err == nil {
		go r.arrive(context.WithoutCancel(ctx), g)
	}
	return err
}

// altStackOf is the stack for signals of a thread, sigaltstack(2).
func altStackOf(ps *ProcessState, tid int) linux.PageRange {
	i := slices.IndexFunc(ps.Threads, func(t ThreadState) bool { return t.TID == tid })
	if i < 0 {
		return linux.PageRange{}
	}
	return stackOf(ps.Threads[i].AltStack)
}

// stackOf reads a stack_t.
func stackOf(b []byte) linux.PageRange {
	if len(b) < 24 { // ss_sp, ss_flags, ss_size
		return linux.PageRange{}
	}
	start := le.Uint64(b)
	return linux.PageRange{Start: start, End: start + le.Uint64(b[16:])}
}

// arrive brings all memory, and opens the gate.
func (r *Restorer) arrive(ctx context.Context, g *gate) {
	a := r.late
	var faults []*os.File
	for _, m := range a.memory {
		f := os.NewFile(uintptr(m.uffd), "userfaultfd")
		faults = append(faults, f)
		go m.serve(f)
	}
	a.work()
	_ = r.tr.Do(func() error {
		short, cancel := context.WithTimeout(ctx, breakOffTimeout)
		defer cancel()
		if a.failed.Load() {
			for _, x := range g.threads { // whose ids are theirs as long as they are traced
				_ = unix.Kill(x.p.host, unix.SIGKILL) // ESRCH: it has ended
			}
		}
		for _, m := range a.memory {
			m.unregister()
		}
		err := errors.Join(g.open(short), r.releaseReapers(ctx))
		if err != nil {
			r.warn("after all memory has come: %v", err)
		}
		return nil
	})
	g.pending.Wait()
	for _, f := range faults {
		f.Close()
	}
	close(a.over)
}

// Arrival is the memory that comes while the tree runs; nil where it has all.
func (r *Restorer) Arrival() *Arrival { return r.late }
