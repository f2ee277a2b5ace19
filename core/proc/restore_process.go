package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Files installs the open file descriptions, of which the agent has the
// descriptors fds by FileState.ID, in every process.
func (r *Restorer) Files(ctx context.Context, fds map[int]int) error {
	byProcess := map[int][]installed{}
	for _, f := range r.st.Files {
		for _, ref := range f.Refs {
			byProcess[ref.PID] = append(byProcess[ref.PID], installed{ref.FD, fds[f.ID], ref.Cloexec})
		}
	}
	if err := r.keepForThreads(fds); err != nil {
		return err
	}
	return r.tr.Do(func() error {
		for i := range r.st.Processes {
			ps := &r.st.Processes[i]
			if ps.Zombie {
				continue
			}
			p := r.byPID[ps.PID]
			err := r.install(ctx, p, p.threads[0], byProcess[ps.PID])
			if err == nil && !ps.hasTables() {
				err = p.run(ctx, p.threads[0], r.closeOurs())
			}
			if err != nil {
				return err
			}
			if err := r.setProcess(ctx, r.byPID[ps.PID], ps); err != nil {
				return err
			}
		}
		return nil
	})
}

// installed is a descriptor to be of a process, and the agent's for it.
type installed struct {
	fd, from int
	cloexec  bool
}

// install passes the descriptors, which arrive as 0, 1, ..., and moves each to
// its number, the highest first: none is in the way of another then.
func (r *Restorer) install(ctx context.Context, p *Process, th *Thread, list []installed) error {
	slices.SortFunc(list, func(a, b installed) int { return a.fd - b.fd })
	from := make([]int, len(list))
	for i, f := range list {
		from[i] = f.from
	}
	if err := r.passTo(ctx, p, th, from); err != nil {
		return err
	}
	var calls []call
	for i, f := range slices.Backward(list) {
		cloexec := uint64(0)
		if f.cloexec {
			cloexec = unix.O_CLOEXEC
		}
		switch {
		case f.fd != i:
			calls = append(calls, sys(unix.SYS_DUP3, uint64(i), uint64(f.fd), cloexec).as("dup3 to fd %d", f.fd),
				sys(unix.SYS_CLOSE, uint64(i)))
		case f.cloexec:
			calls = append(calls, sys(unix.SYS_FCNTL, uint64(i), unix.F_SETFD, unix.FD_CLOEXEC).as("F_SETFD fd %d", f.fd))
		}
	}
	err := p.run(ctx, th, calls)
	if errors.Is(err, unix.EBADF) {
		err = fmt.Errorf("%w (a descriptor as high as the limit of this host or shell: RLIMIT_NOFILE, ulimit -n)", err)
	}
	return err
}

// setProcess sets what all threads of a process share, but for the action of
// SIGCHLD: one that ignores it would have no zombies, sigaction(2).
func (r *Restorer) setProcess(ctx context.Context, p *Process, ps *ProcessState) error {
	if err := r.setPlace(ctx, p, ps); err != nil {
		return err
	}
	p.actions = ps.Actions
	b := newArgs(p)
	calls := []call{sys(unix.SYS_UMASK, uint64(ps.Umask))}
	for i, a := range ps.Actions {
		if sig := i + 1; sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) && sig != int(unix.SIGCHLD) {
			calls = append(calls, sys(unix.SYS_RT_SIGACTION, uint64(sig), b.put(a), 0, 8).as("rt_sigaction %d", sig))
		}
	}
	flag := map[bool]uint64{true: 1}
	calls = append(calls,
		sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, flag[ps.Prctl.Subreaper]).as("PR_SET_CHILD_SUBREAPER"),
		// As PR_GET_THP_DISABLE has it: 1, and flags from bit 1 on.
		sys(unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, uint64(ps.Prctl.THPDisable&1), uint64(ps.Prctl.THPDisable&^1), 0, 0).as("PR_SET_THP_DISABLE"))
	calls = append(calls, permit(ps.States)...)
	if ps.Prctl.MergeMemory {
		calls = append(calls, sys(unix.SYS_PRCTL, prSetMemoryMerge, 1, 0, 0, 0).as("PR_SET_MEMORY_MERGE"))
	}
	for bit := range 32 {
		if cmd := uint32(1) << bit; ps.Membarrier&cmd != 0 {
			calls = append(calls, sys(unix.SYS_MEMBARRIER, uint64(cmd), 0, 0).as("membarrier %#x", cmd))
		}
	}
	return b.flush(ctx, p.threads[0], calls)
}

// threadFlags make a thread of its process, pthread_create(3).
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM

// Threads makes all threads, which stand still.
func (r *Restorer) Threads(ctx context.Context) error {
	return r.tr.Do(func() error {
		for i := range r.st.Processes {
			ps := &r.st.Processes[i]
			if ps.Zombie {
				continue
			}
			p := r.byPID[ps.PID]
			for i := range ps.Threads {
				ts := &ps.Threads[i]
				if ts.TID == p.pid {
					continue
				}
				parent, flags := parentOf(p, ts)
				host, got, err := r.clone(ctx, p, parent, flags, 0, ts.TID)
				if err != nil {
					return fmt.Errorf("pid %d: thread %d: %w", p.pid, ts.TID, err)
				}
				th := &Thread{TID: got, HostTID: host, Mask: ^uint64(0), stopped: true, Regs: p.threads[0].Regs}
				p.threads = append(p.threads, th)
				if err := p.own(th); err != nil {
					return err
				}
			}
			if err := r.installTables(ctx, p, ps); err != nil {
				return err
			}
		}
		r.closeFiles()
		return nil
	})
}

// Finish gives threads and processes the rest of their state, until nothing
// is left but to let them run.
func (r *Restorer) Finish(ctx context.Context) error {
	return r.tr.Do(func() error {
		if err := r.endZombies(ctx); err != nil {
			return err
		}
		if err := r.setStops(ctx); err != nil {
			return err
		}
		for i := range r.st.Processes {
			ps := &r.st.Processes[i]
			if ps.Zombie {
				continue
			}
			if err := r.finishProcess(ctx, r.byPID[ps.PID], ps); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Restorer) endZombies(ctx context.Context) error {
	for i := range r.st.Processes {
		if ps := &r.st.Processes[i]; ps.Zombie {
			b := newArgs(r.byPID[ps.PID])
			p := r.byPID[ps.PID]
			calls := append([]call{sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str(string(ps.Comm)))}, r.credCalls(b, &ps.Cred)...)
			if err := b.flush(ctx, p.threads[0], calls); err != nil {
				return err
			}
			if err := r.exit(ctx, p, ps.ExitCode); err != nil {
				return fmt.Errorf("zombie %d: %w", ps.PID, err)
			}
		}
	}
	return nil
}

func (r *Restorer) finishProcess(ctx context.Context, p *Process, ps *ProcessState) error {
	p.avoid = ps.pendingSignals()
	if err := r.queueShared(ctx, p, ps); err != nil {
		return err
	}
	// Before RLIMIT_SIGPENDING, which may be less than is pending.
	if err := p.eachThread(ps, func(th *Thread, ts *ThreadState) error { return r.queueOwn(ctx, p, th, ts) }); err != nil {
		return err
	}
	if err := r.setRoot(ctx, p, ps); err != nil {
		return err
	}
	// Before credentials go: only a privileged agent may set those of others.
	if err := p.setLimits(ps, r.warn); err != nil {
		return err
	}
	r.warnCredentials(ps)
	if ps.MadeBy != 0 {
		r.warn("pid %d: its signal for the end of its parent (PR_SET_PDEATHSIG) comes when process %d ends, not thread %d, which made it", ps.PID, ps.PPID, ps.MadeBy)
	}
	if err := writeCoreFilter(p.host, ps.CoreFilter); err != nil {
		r.warn("pid %d: %v", p.pid, err)
	}
	if err := writeAutogroup(p.host, ps.Autogroup); err != nil {
		r.warn("pid %d: %v", p.pid, err)
	}
	if err := r.restrict(ctx, p, ps); err != nil {
		return err
	}
	if err := p.eachThread(ps, func(th *Thread, ts *ThreadState) error { return r.setThread(ctx, p, th, ps, ts) }); err != nil {
		return err
	}
	if err := writeOOMScore(p.host, ps.OOMScore); err != nil {
		r.warn("pid %d: %v", p.pid, err)
	}
	if err := r.sealMemory(ctx, p, ps); err != nil {
		return err
	}
	if err := p.eachThread(ps, func(th *Thread, ts *ThreadState) error { return r.wakeUp(ctx, p, th, ts) }); err != nil {
		return err
	}
	if ps.LeaderGone {
		return r.endLeader(ctx, p, ps)
	}
	return p.leaveBlob(ctx, ps)
}

// eachThread calls f for the threads that the image has of a process.
func (p *Process) eachThread(ps *ProcessState, f func(th *Thread, ts *ThreadState) error) error {
	byTID := map[int]*ThreadState{}
	for i := range ps.Threads {
		byTID[ps.Threads[i].TID] = &ps.Threads[i]
	}
	for _, th := range p.threads {
		if ts := byTID[th.TID]; ts != nil { // else a leader that is to end
			if err := f(th, ts); err != nil {
				return err
			}
		}
	}
	return nil
}

// setThread sets what a thread has of its own but registers and mask.
func (r *Restorer) setThread(ctx context.Context, p *Process, th *Thread, ps *ProcessState, ts *ThreadState) error {
	if err := r.setAttributes(ctx, p, th, &ts.Attr); err != nil {
		return err
	}
	b := newArgs(p)
	calls := []call{
		sys(unix.SYS_SET_TID_ADDRESS, ts.TIDAddr),
		sys(unix.SYS_SIGALTSTACK, b.put(ts.AltStack), 0).as("sigaltstack"),
		sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str(string(ts.Comm))).as("PR_SET_NAME"),
		sys(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, ts.TimerSlack).as("PR_SET_TIMERSLACK"),
	}
	if ts.Robust[0] != 0 {
		calls = append(calls, sys(unix.SYS_SET_ROBUST_LIST, ts.Robust[0], ts.Robust[1]).as("set_robust_list"))
	}
	if ts.Rseq.Addr != 0 {
		calls = append(calls, sys(unix.SYS_RSEQ, ts.Rseq.Addr, uint64(ts.Rseq.Size), 0, uint64(ts.Rseq.Sig)).as("rseq"))
	}
	calls = append(calls, fsCalls(b, ts)...)
	cred := ps.credOf(ts)
	calls = append(calls, r.credCalls(b, cred)...)
	calls = append(calls,
		sys(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(ts.PDeathSig)).as("PR_SET_PDEATHSIG"))
	if cred.NoNewPrivs {
		calls = append(calls, sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).as("PR_SET_NO_NEW_PRIVS"))
	}
	calls = append(calls, setDumpable(ps.Prctl.Dumpable)) // last: a change of credentials resets it
	return b.flush(ctx, th, calls)
}

// limitNames are the limits by their number (include/uapi/asm-generic/resource.h).
var limitNames = [rlimNlimits]string{"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
	"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"}

// setLimits sets the limits of resources as far as those here allow.
func (p *Process) setLimits(ps *ProcessState, warn func(string, ...any)) error {
	for i, want := range ps.Limits {
		var cur unix.Rlimit
		if err := unix.Prlimit(p.host, i, nil, &cur); err != nil {
			return fmt.Errorf("pid %d: prlimit(%d): %w", p.pid, i, err)
		}
		l := unix.Rlimit{Cur: want.Cur, Max: want.Max}
		err := unix.Prlimit(p.host, i, &l, nil)
		if errors.Is(err, unix.EPERM) && want.Max > cur.Max {
			warn("pid %d: %s (getrlimit(2)) was %d and can only be %d here", p.pid, limitNames[i], want.Max, cur.Max)
			l = unix.Rlimit{Cur: min(want.Cur, cur.Max), Max: cur.Max}
			err = unix.Prlimit(p.host, i, &l, nil)
		}
		if err != nil {
			return fmt.Errorf("pid %d: set %s: %w", p.pid, limitNames[i], err)
		}
	}
	return nil
}

// wakeUp gives a thread its registers and mask, and arms its sleep.
func (r *Restorer) wakeUp(ctx context.Context, p *Process, th *Thread, ts *ThreadState) error {
	for _, err := range setScheduling(th.HostTID, ts) {
		r.warn("pid %d tid %d: %v", p.pid, th.TID, err)
	}
	th.Regs, th.Mask, th.masked = ts.Regs, ts.Mask, ts.Masked
	if ts.Sleep != nil {
		sl := *ts.Sleep
		th.sleep = &sl
		if sl.Nr == unix.SYS_CLOCK_NANOSLEEP {
			sl.clock, sl.onCPU = cpuClock(r.Procs, p, int32(ts.Regs.arg(0)))
		}
		if sl.Remaining >= 0 && !sl.onCPU { // what the restart took counts
			sl.Remaining = max(sl.Remaining-r.passed(), 0)
		}
		if err := p.rearm(ctx, r.sleeps, th); err != nil {
			return fmt.Errorf("pid %d: %w", p.pid, err)
		}
	}
	if ts.Rest > 0 {
		th.until = time.Now().Add(ts.Rest - r.passed())
	}
	for _, x := range ts.Extra {
		if err := r.setExtra(th.HostTID, x); err != nil {
			return fmt.Errorf("pid %d tid %d: register set %#x: %w (made on a processor with other features?)", p.pid, th.TID, x.Note, err)
		}
	}
	if err := errors.Join(settleRegsets(th.HostTID, ts.Extra), th.readVector()); err != nil {
		return fmt.Errorf("pid %d tid %d: %w", p.pid, th.TID, err)
	}
	return p.own(th)
}

// setExtra sets a register set, in the size that the kernel here has for it.
func (r *Restorer) setExtra(tid int, x RegSet) error {
	if slices.Equal(r.st.CPU.XSave, r.cpu.XSave) {
		return setRegset(tid, x.Note, x.Data)
	}
	n, err := getRegset(tid, x.Note, make([]byte, extraNotes[0].room))
	if err != nil {
		return err
	}
	if x, err = fitRegset(x, &r.st.CPU, &r.cpu, n); err != nil {
		return err
	}
	return setRegset(tid, x.Note, x.Data)
}

// endLeader lets a thread-group leader exit before its threads, as it had.
func (r *Restorer) endLeader(ctx context.Context, p *Process, ps *ProcessState) error {
	leader := p.threads[0]
	b := newArgs(p)
	calls := []call{sys(unix.SYS_SET_TID_ADDRESS, 0), sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str(string(ps.Comm))).as("PR_SET_NAME")}
	if err := b.flush(ctx, leader, append(calls, r.credCalls(b, &ps.Cred)...)); err != nil {
		return err
	}
	if err := p.leaveBlob(ctx, ps); err != nil {
		return err
	}
	p.threads = p.threads[1:]
	regs := leader.Regs
	status := unix.WaitStatus(ps.ExitCode)
	if ps.Stopped { // the kernel does not tell it
		status = 0
	}
	regs.atSyscall(p.inj.insn, unix.SYS_EXIT, [6]uint64{uint64(status.ExitStatus())})
	if err := setRegs(leader.HostTID, regs); err != nil {
		return err
	}
	options := uintptr(traceOptions | unix.PTRACE_O_TRACEEXIT)
	if p.suspended {
		options |= ptraceOSuspendSeccomp
	}
	if err := ptrace(ptraceSetOptions, leader.HostTID, 0, options); err != nil {
		return err
	}
	if err := cont(leader.HostTID, 0); err != nil {
		return err
	}
	// The exit of a leader is reported with its last thread's only, but its
	// PTRACE_EVENT_EXIT stop at once.
	ws, err := r.tr.wait(ctx, leader.HostTID)
	if err != nil {
		return err
	}
	if event(ws) != unix.PTRACE_EVENT_EXIT {
		return fmt.Errorf("pid %d: its leader does not exit: stop %#x", p.pid, uint32(ws))
	}
	return detach(leader.HostTID)
}
