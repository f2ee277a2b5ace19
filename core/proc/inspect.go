package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Open makes every process ready for injection.
func (t *Tree) Open(ctx context.Context) error {
	return t.tr.Do(func() error {
		return t.tr.each(t.Procs(), func(p *Process) error { return p.open(ctx) })
	})
}

// Inspect reads everything of the tree that is the engine's: State without
// Files. The processes must be open.
func (t *Tree) Inspect(ctx context.Context, s Surroundings, claim MapClaim) (state *State, err error) {
	st := &State{Arch: arch, Uid: os.Geteuid(), Gid: os.Getegid(), BootID: bootID(), CPU: thisCPU(), Reaper: s.Reaper, Session: s.Session, Terminal: s.Terminal != 0}
	defer func() {
		if err != nil {
			st.CloseFiles()
		}
	}()
	if err := t.readClocks(st, s); err != nil {
		return nil, err
	}
	ms, uts, places := newMapSaver(t, st, claim, s.Reference), newUTSSaver(s.Reference), newPlaceChecker(s.Reference)
	mapped := make(chan error, 1)
	go func() { mapped <- ms.read(ctx) }() // while the tracer waits for calls of ours
	states, err := t.inspectProcesses(ctx)
	if err = errors.Join(err, <-mapped); err != nil {
		return nil, err
	}
	ms.findWritten()
	var errs []error
	for i, p := range t.procs {
		ps := states[p]
		ps.Space = uint32(i)
		if len(ps.Threads) > 0 && ps.Threads[0].PDeathSig != 0 {
			ps.MadeBy = t.madeBy(p)
		}
		if !p.zombie && p.stat.Session != 0 && ps.SID != s.Session {
			ps.Autogroup = readAutogroup(p.liveTID())
		}
		if !p.zombie {
			if err := errors.Join(uts.save(ctx, st, p, ps), t.saveExe(st, p, ps)); err != nil {
				return nil, fmt.Errorf("pid %d: %w", p.pid, err)
			}
			if ps.Maps, err = ms.maps(ctx, p, ps); err != nil {
				errs = append(errs, err)
			}
			errs = append(errs, p.refuseNames(ps), places.check(p, ps))
		}
		st.Processes = append(st.Processes, *ps)
		if s.Terminal != 0 && uint64(uint32(p.stat.TTYNr)) == s.Terminal {
			st.Front = t.innerGroup(p.stat.TPGID)
		}
	}
	ms.finish()
	if t.remake {
		st.Places = places.places
	}
	for _, inherit := range []bool{true, false} {
		if _, err := st.plan(inherit); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return st, errors.Join(errs...)
}

// madeBy returns the thread of its parent that made p, 0 for the first.
func (t *Tree) madeBy(p *Process) int {
	parent := t.byHost[p.parent]
	if parent == nil {
		return 0
	}
	for _, th := range parent.threads[min(1, len(parent.threads)):] {
		children, err := procfs.ChildrenOf(parent.host, []int{th.HostTID})
		if err == nil && slices.Contains(children, p.host) {
			return th.TID
		}
	}
	return 0
}

// refuseNames refuses paths that the image cannot have: it is JSON, RFC 8259.
func (p *Process) refuseNames(ps *ProcessState) error {
	names := []string{ps.Exe, ps.Cwd, ps.Root}
	for i := range ps.Maps {
		names = append(names, ps.Maps[i].Path)
	}
	for i := range ps.Threads {
		if fs := ps.Threads[i].FS; fs != nil {
			names = append(names, fs.Cwd)
		}
	}
	for _, name := range names {
		if !utf8.ValidString(name) {
			return refuse(p, fmt.Sprintf("path %q", name), "of its program, a mapped file, its working or its root directory: it is not UTF-8")
		}
	}
	return nil
}

// innerGroup returns a process group as the program sees it.
func (t *Tree) innerGroup(host int) int {
	for _, p := range t.procs {
		if p.stat.PGRP == host {
			return p.status.InnerPGID()
		}
	}
	return 0
}

var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// readClocks notes the clocks as the programs see them, time_namespaces(7).
func (t *Tree) readClocks(st *State, s Surroundings) error {
	t.clocksRead = time.Now() // before: sleeps end late but never early
	mono, boot, err := hostClocks()
	if err != nil {
		return err
	}
	m, b, err := procfs.ReadTimensOffsets(s.Reference)
	if err != nil && !os.IsNotExist(err) { // a kernel without time namespaces
		return err
	}
	st.Clocks = Clocks{Monotonic: mono + time.Duration(m), Boottime: boot + time.Duration(b), Offset: time.Duration(m)}
	return nil
}

// hostClocks returns the clocks without the offsets of any time namespace.
func hostClocks() (mono, boot time.Duration, err error) {
	var m, b unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_MONOTONIC, &m), unix.ClockGettime(unix.CLOCK_BOOTTIME, &b)); err != nil {
		return 0, 0, fmt.Errorf("clock_gettime: %w", err)
	}
	om, ob, err := procfs.ReadTimensOffsets(os.Getpid())
	if err != nil && !os.IsNotExist(err) {
		return 0, 0, err
	}
	return time.Duration(m.Nano() - om), time.Duration(b.Nano() - ob), nil
}

// inspectProcesses reads what is of each process alone, but for its mappings.
func (t *Tree) inspectProcesses(ctx context.Context) (map[*Process]*ProcessState, error) {
	states := map[*Process]*ProcessState{}
	for _, p := range t.procs {
		ps := t.seen(p)
		states[p] = ps
		if parent := states[t.byHost[p.parent]]; parent != nil && !p.zombie {
			parent.children = append(parent.children, ps)
		}
	}
	return states, t.tr.Do(func() error {
		return t.tr.each(t.Procs(), func(p *Process) error { return t.inspectProcess(ctx, p, states[p]) })
	})
}

// seen returns what the freeze knows of a process.
func (t *Tree) seen(p *Process) *ProcessState {
	ps := &ProcessState{PID: p.pid, PGID: p.status.InnerPGID(), SID: p.status.InnerSID(), Zombie: p.zombie,
		LeaderGone: p.leaderGone(), Stopped: p.stopSignal() != 0, StopSignal: int(p.stopSignal()), Comm: text(p.stat.Comm),
		Umask: p.status.Umask, Cred: credentialsOf(&p.status)}
	if ps.Zombie || ps.LeaderGone || ps.Stopped { // else it is a stop of ours that was not waited for yet
		ps.ExitCode = p.stat.ExitCode
	}
	if parent := t.byHost[p.parent]; parent != nil {
		ps.PPID = parent.pid
		if sig := p.stat.ExitSignal; sig != int(unix.SIGCHLD) {
			ps.ExitSignal = &sig
		}
	}
	return ps
}

func (t *Tree) inspectProcess(ctx context.Context, p *Process, ps *ProcessState) (err error) {
	if err := p.readProc(ps); err != nil {
		return fmt.Errorf("pid %d: %w", p.pid, err)
	}
	if err := p.askProcess(ctx, ps); err != nil {
		return err
	}
	if err := p.askChildren(ctx, ps); err != nil {
		return err
	}
	for i, th := range p.threads {
		ts, err := p.inspectThread(ctx, th)
		if err != nil {
			return err
		}
		ts.Sleep, ts.Rest = t.left(th)
		if i == 0 {
			ps.Cred = *ts.Cred
		}
		if ts.Cred.equal(&ps.Cred) {
			ts.Cred = nil
		}
		if ts.FS, err = p.ownFS(th); err != nil {
			return err
		}
		ts.Files = t.ownFiles(th)
		ps.Threads = append(ps.Threads, ts)
	}
	ps.Pending, err = peekSignals(p.threads[0].HostTID, true)
	return err
}

// readProc fills in what /proc tells.
func (p *Process) readProc(ps *ProcessState) (err error) {
	live := p.liveTID()
	if ps.Exe, err = procfs.Exe(live); err != nil {
		return err
	}
	if err := p.readPlace(ps); err != nil {
		return err
	}
	if ps.Auxv, err = procfs.Auxv(live); err != nil {
		return err
	}
	st := p.stat
	if p.leaderGone() {
		if st, err = procfs.ReadStat(live); err != nil {
			return err
		}
	}
	ps.MM = MMState{StartCode: st.StartCode, EndCode: st.EndCode, StartData: st.StartData, EndData: st.EndData,
		StartBrk: st.StartBrk, StartStack: st.StartStack, ArgStart: st.ArgStart, ArgEnd: st.ArgEnd,
		EnvStart: st.EnvStart, EnvEnd: st.EnvEnd}
	if ps.OOMScore, err = readOOMScore(live); err != nil {
		return err
	}
	if ps.CoreFilter, err = readCoreFilter(live); err != nil {
		return err
	}
	return nil
}

const (
	rlimNlimits    = 16 // RLIM_NLIMITS
	nsig           = 64 // _NSIG of the kernel
	prGetTidAddr   = 40 // PR_GET_TID_ADDRESS
	sigactionBytes = 32
	rlimitBytes    = 16
	membarrierGet  = 1 << 9 // MEMBARRIER_CMD_GET_REGISTRATIONS
)

// membarrierPrivate are commands of membarrier(2) that are EPERM without the registration,
// which is the next bit.
var membarrierPrivate = []uint64{
	1 << 3, // MEMBARRIER_CMD_PRIVATE_EXPEDITED
	1 << 5, // MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
	1 << 7, // MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ
}

// membarrierGlobal is MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED.
const membarrierGlobal = 1 << 2

// askMembarrier finds the registrations out by what they allow, before Linux 6.3. Whether
// there is the global one, by which others' barriers take in this process, nothing tells:
// it does no harm.
func (p *Process) askMembarrier(ctx context.Context) (uint32, error) {
	var calls []call
	for _, cmd := range membarrierPrivate {
		calls = append(calls, sys(unix.SYS_MEMBARRIER, cmd, 0, 0).may())
	}
	if err := p.run(ctx, p.threads[0], calls); err != nil {
		return 0, err
	}
	registered := uint32(membarrierGlobal)
	for i, c := range calls {
		if !c.failed() {
			registered |= uint32(membarrierPrivate[i] << 1)
		}
	}
	return registered, nil
}

// askProcess fills in what only the process itself is told.
func (p *Process) askProcess(ctx context.Context, ps *ProcessState) error {
	at := p.inj.scratch()
	calls := make([]call, 0, nsig+rlimNlimits+8)
	for i := range uint64(nsig) {
		calls = append(calls, sys(unix.SYS_RT_SIGACTION, i+1, 0, at+i*sigactionBytes, 8).as("rt_sigaction"))
	}
	limits := at + nsig*sigactionBytes
	for i := range uint64(rlimNlimits) { // prlimit(2) from outside wants the same users
		calls = append(calls, sys(unix.SYS_PRLIMIT64, 0, i, 0, limits+i*rlimitBytes).as("prlimit(%d)", i))
	}
	asking := len(calls)
	flag := limits + rlimNlimits*rlimitBytes
	calls = append(calls,
		sys(unix.SYS_BRK, 0),
		sys(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE).as("PR_GET_DUMPABLE"),
		sys(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, flag).as("PR_GET_CHILD_SUBREAPER"),
		sys(unix.SYS_PRCTL, unix.PR_GET_THP_DISABLE, 0, 0, 0, 0).as("PR_GET_THP_DISABLE"),
		sys(unix.SYS_MEMBARRIER, membarrierGet, 0, 0).may(),
		sys(unix.SYS_PRCTL, prGetMDWE, 0, 0, 0, 0).may(),
		sys(unix.SYS_PRCTL, prGetMemoryMerge, 0, 0, 0, 0).may())
	calls = append(calls, askMachine(flag+8)...)
	if err := p.run(ctx, p.threads[0], calls); err != nil {
		return err
	}
	buf := make([]byte, flag-at+24)
	if err := p.readMem(at, buf); err != nil {
		return err
	}
	for i := range nsig {
		ps.Actions = append(ps.Actions, buf[i*sigactionBytes:(i+1)*sigactionBytes])
	}
	p.actions = ps.Actions
	ps.Limits = make([]syscall.Rlimit, rlimNlimits)
	for i := range ps.Limits {
		l := buf[limits-at+uint64(i)*rlimitBytes:]
		ps.Limits[i] = syscall.Rlimit{Cur: le.Uint64(l), Max: le.Uint64(l[8:])}
	}
	ps.Prctl.Subreaper = le.Uint32(buf[flag-at:]) != 0
	asked := calls[asking:]
	machine, words := asked[7:], buf[flag+8-at:]
	if err := p.machineRefusal(machine, words); err != nil {
		return err
	}
	ps.States = permitted(machine, words)
	ps.MM.Brk = uint64(asked[0].ret)
	ps.Prctl.Dumpable = asked[1].ret
	if p.dumpable >= 0 {
		ps.Prctl.Dumpable = p.dumpable
	}
	ps.Prctl.THPDisable = asked[3].ret
	ps.Prctl.MDWE = max(asked[5].ret, 0)             // EINVAL before Linux 6.3
	ps.Prctl.MergeMemory = max(asked[6].ret, 0) != 0 // EINVAL before Linux 6.4
	ps.Membarrier = uint32(max(asked[4].ret, 0))
	if asked[4].ret != -int64(unix.EINVAL) {
		return nil
	}
	var err error
	ps.Membarrier, err = p.askMembarrier(ctx)
	return err
}

func (p *Process) inspectThread(ctx context.Context, th *Thread) (ts ThreadState, err error) {
	ts = ThreadState{TID: th.TID, Regs: th.Regs, Mask: th.Mask, Masked: th.masked}
	status, err := p.statusOf(th)
	if err != nil {
		return ts, err
	}
	ts.Comm = text(status.Name)
	if ts.Extra, err = readRegsets(th.HostTID); err != nil {
		return ts, err
	}
	if err := p.checkLive(th, ts.Extra); err != nil {
		return ts, err
	}
	if err := readScheduling(th.HostTID, &ts); err != nil {
		return ts, err
	}
	if ts.Rseq, err = p.rseqOf(ctx, th); err != nil {
		return ts, err
	}
	if ts.Robust[0], ts.Robust[1], err = robustList(th.HostTID); err != nil {
		return ts, err
	}
	if ts.Pending, err = peekSignals(th.HostTID, false); err != nil {
		return ts, err
	}
	const altSize = 24 // sizeof(stack_t)
	b := newArgs(p)
	at, attributes, hidden := b.put(make([]byte, altSize+12)), askAttributes(b), askHidden(b, p, th, status)
	calls := slices.Concat([]call{
		sys(unix.SYS_SIGALTSTACK, 0, at).as("sigaltstack"),
		sys(unix.SYS_PRCTL, prGetTidAddr, at+altSize).as("PR_GET_TID_ADDRESS"),
		sys(unix.SYS_PRCTL, unix.PR_GET_PDEATHSIG, at+altSize+8).as("PR_GET_PDEATHSIG"),
		sys(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK).as("PR_GET_TIMERSLACK"),
		sys(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS).as("PR_GET_SECUREBITS"),
	}, attributes.calls, hidden.calls)
	if err := b.flush(ctx, th, calls); err != nil {
		return ts, err
	}
	if err := hidden.refusal(calls[5+len(attributes.calls):]); err != nil {
		return ts, err
	}
	buf := make([]byte, altSize+12)
	if err := p.readMem(at, buf); err != nil {
		return ts, err
	}
	ts.TimerSlack = uint64(calls[3].ret)
	ts.AltStack = buf[:altSize:altSize]
	ts.TIDAddr = le.Uint64(buf[altSize:])
	ts.PDeathSig = int(le.Uint32(buf[altSize+8:]))
	if err := p.readAttributes(th, attributes, calls[5:], &ts.Attr); err != nil {
		return ts, err
	}
	if ts.Seccomp, err = readSeccomp(th.HostTID, status.Seccomp); err != nil {
		return ts, err
	}
	cred := credentialsOf(status)
	cred.Securebits = uint32(calls[4].ret)
	ts.Cred = &cred
	return ts, nil
}
