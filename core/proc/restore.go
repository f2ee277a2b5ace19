package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// ErrPidTaken says that a process of the image cannot have its id in the
// current pid namespace.
var ErrPidTaken = errors.New("a process id is in use")

// ErrPidForbidden says that the agent may not choose process ids in the current
// namespaces: root of a user namespace that does not own them.
var ErrPidForbidden = errors.New("process ids cannot be chosen here")

// Restorer rebuilds the tree of an image. Its methods are called in the order
// of the sequence in core/restart.go; an error at any step is followed by
// Abort, which leaves nothing behind.
type Restorer struct {
	filling

	tr     *Tracer
	st     *State
	img    *image.Reader
	sleeps *Sleeps
	warn   func(format string, args ...any)

	cpu  CPUState // of this host
	vdso hostVdso

	newNamespaces bool
	timeNamespace bool
	clocksSet     time.Time // zero: they jump

	stub    *Process
	held    procfs.Status // the stub's: which capabilities and groups there are
	reaper  *Process
	byPID   map[int]*Process
	sock    int         // our end of the socket that passes descriptors
	sockFD  int         // its number in the processes
	later   map[int]int // descriptors for tables of threads, by FileState.ID
	report  *os.File
	hushed  bool     // see hush
	remade  []string // see remakeFiles
	folders []string // of them, the innermost first
}

// RestoreOptions are the circumstances of a restart.
type RestoreOptions struct {
	NewNamespaces bool
	Inherit       bool // the tree's outer session becomes the agent's
	Lazy          bool // memory comes while the tree runs: see Arrival
	Sleeps        *Sleeps
	Warn          func(format string, args ...any)
	Debug         func(format string, args ...any) // may be nil
}

// NewRestorer prepares a restart. It has no effect yet.
func (tr *Tracer) NewRestorer(st *State, img *image.Reader, o RestoreOptions) *Restorer {
	return &Restorer{tr: tr, st: st, img: img, cpu: thisCPU(), sleeps: o.Sleeps, warn: o.Warn, newNamespaces: o.NewNamespaces,
		byPID: map[int]*Process{}, sock: -1, filling: filling{debug: o.Debug, lazy: o.Lazy}}
}

// Tree makes the namespaces and all processes, without memory and descriptors.
func (r *Restorer) Tree(ctx context.Context, inherit bool) error {
	steps, err := r.st.plan(inherit)
	if err != nil {
		return err
	}
	if r.vdso, err = readHostVdso(); err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	r.sock = pair[0]
	defer unix.Close(pair[1])
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	r.report = os.NewFile(uintptr(pipe[0]), "reports of the tree")
	defer unix.Close(pipe[1])
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pair[1]), uintptr(pipe[1])}
	return r.tr.Do(func() error {
		r.hushed = true
		hush()
		if err := r.startStub(ctx, files); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.RestartStub); err != nil {
			return err
		}
		if err := r.emptyStub(ctx); err != nil {
			return fmt.Errorf("prepare the first process: %w", err)
		}
		if err := faultpoint.At(faultpoint.RestartEmptied); err != nil {
			return err
		}
		if err := r.setClocks(); err != nil {
			return err
		}
		if err := r.makeReaper(ctx); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.RestartReaper); err != nil {
			return err
		}
		if err := r.runSteps(ctx, steps); err != nil {
			return err
		}
		return r.setLastPID(ctx)
	})
}

// setLastPID makes new processes get ids above those of the image, as they
// would have, and not those that others of the tree had before
// (pid_namespaces(7), /proc/sys/kernel/ns_last_pid).
func (r *Restorer) setLastPID(ctx context.Context) error {
	if !r.newNamespaces {
		return nil
	}
	last := 0
	for i := range r.st.Processes {
		last = max(last, r.st.Processes[i].PID)
		for _, t := range r.st.Processes[i].Threads {
			last = max(last, t.TID)
		}
	}
	b := newArgs(r.stub)
	text := strconv.Itoa(last)
	calls := []call{
		sys(unix.SYS_OPENAT, atFdcwd, b.str("/proc/sys/kernel/ns_last_pid"), unix.O_WRONLY|unix.O_CLOEXEC, 0).keep().as("open ns_last_pid"),
		sys(unix.SYS_WRITE, 0, b.put([]byte(text)), uint64(len(text))).fromKept(0).as("set ns_last_pid to %d", last),
		sys(unix.SYS_CLOSE, 0).fromKept(0).may(),
	}
	if err := b.flush(ctx, r.stub.threads[0], calls); err != nil {
		// EINVAL: above pid_max here. Nothing depends on it.
		r.warn("new processes get low ids: %v", err)
	}
	return nil
}

// makeReaper makes the process that stands where the agent stood: the parent
// of the tree's roots and of its orphans, with the agent's old pid.
func (r *Restorer) makeReaper(ctx context.Context) error {
	r.reaper = r.stub
	if !r.newNamespaces || r.st.Reaper != r.stub.pid {
		p, err := r.fork(ctx, r.stub, r.st.Reaper)
		if errors.Is(err, unix.EEXIST) && !r.newNamespaces {
			p, err = r.fork(ctx, r.stub, 0)
		}
		if err != nil {
			return fmt.Errorf("make the reaper: %w", err)
		}
		r.reaper = p
	}
	r.byPID[r.st.Reaper] = r.reaper
	b := newArgs(r.reaper)
	return b.flush(ctx, r.reaper.threads[0], []call{
		sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1).as("PR_SET_CHILD_SUBREAPER"),
		sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str("hiatus-reaper")).as("PR_SET_NAME"),
	})
}

// fork makes a child of parent with the given pid, 0 for any.
func (r *Restorer) fork(ctx context.Context, parent *Process, pid int) (*Process, error) {
	return r.forkWith(ctx, parent, pid, int(unix.SIGCHLD))
}

// forkWith is fork of a child whose parent gets another signal when it ends.
func (r *Restorer) forkWith(ctx context.Context, parent *Process, pid, exitSignal int) (*Process, error) {
	host, got, err := r.clone(ctx, parent, parent.threads[0], 0, uint64(exitSignal), pid)
	if err != nil {
		return nil, err
	}
	th := &Thread{TID: got, HostTID: host, Mask: ^uint64(0), stopped: true, Regs: parent.threads[0].Regs}
	p := &Process{pid: got, host: host, tr: r.tr, dumpable: -1, threads: []*Thread{th}}
	p.inj = injection{base: parent.inj.base, insn: parent.inj.insn}
	r.byPID[got] = p
	if err := p.own(th); err != nil {
		return nil, err
	}
	return p, p.openMem()
}

// clone injects clone3(2) with set_tid into a thread and returns the child's host id, in a
// PTRACE_EVENT_STOP, and its id in the tree.
func (r *Restorer) clone(ctx context.Context, p *Process, by *Thread, flags, exitSignal uint64, id int) (host, got int, err error) {
	const (
		argsSize = 88 // CLONE_ARGS_SIZE_VER2
		tidOff   = 96
	)
	a := make([]byte, tidOff+8)
	le.PutUint64(a[0:], flags)
	le.PutUint64(a[32:], exitSignal)
	if id != 0 {
		le.PutUint64(a[64:], p.inj.scratch()+tidOff)
		le.PutUint64(a[72:], 1)
		le.PutUint32(a[tidOff:], uint32(id))
	}
	if err := p.writeMem(p.inj.scratch(), a); err != nil {
		return 0, 0, err
	}
	p.inj.birth = func(child int) { host = child }
	defer func() { p.inj.birth = nil }()
	calls := []call{sys(unix.SYS_CLONE3, p.inj.scratch(), argsSize).as("clone3 for id %d", id)}
	if err := p.run(ctx, by, calls); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("%w: %d: %w", ErrPidTaken, id, err)
		}
		if most := pidLimit(); id >= most && errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: this kernel gives no id of kernel.pid_max, %d, and above", err, most)
		}
		if id != 0 && errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: %w", ErrPidForbidden, err)
		}
		return 0, 0, err
	}
	if host == 0 {
		return 0, 0, fmt.Errorf("clone3 for id %d: no child was announced", id)
	}
	_, err = r.tr.stopAt(ctx, host)
	return host, int(calls[0].ret), err
}

// runSteps carries out the plan of the tree.
func (r *Restorer) runSteps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := r.runStep(ctx, s); err != nil {
			return fmt.Errorf("process tree: pid %d: %w", s.pid, err)
		}
		if err := faultpoint.At(faultpoint.RestartForked); err != nil {
			return err
		}
	}
	return nil
}

func (r *Restorer) runStep(ctx context.Context, s step) error {
	p := r.byPID[s.pid]
	one := func(p *Process, c call) error { return p.run(ctx, p.threads[0], []call{c}) }
	switch s.kind {
	case stepFork:
		if s.any && !r.newNamespaces { // ids are few there: pid_max
			p, err := r.fork(ctx, r.byPID[s.by], 0)
			if err == nil {
				delete(r.byPID, p.pid)
				r.byPID[s.pid] = p
			}
			return err
		}
		_, err := r.forkWith(ctx, r.byPID[s.by], s.pid, r.st.exitSignal(s.pid, s.by))
		return err
	case stepSetsid:
		return one(p, sys(unix.SYS_SETSID).as("setsid"))
	case stepSetpgid:
		return one(p, sys(unix.SYS_SETPGID, 0, uint64(s.pgid)).as("setpgid(0, %d)", s.pgid))
	case stepSubreaper:
		return one(p, sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1).as("PR_SET_CHILD_SUBREAPER"))
	case stepExit:
		delete(r.byPID, s.pid)
		if err := r.exit(ctx, p, 0); err != nil {
			return err
		}
		return one(r.byPID[s.by], sys(unix.SYS_WAIT4, uint64(p.pid), 0, unix.WALL, 0).as("wait4(%d)", p.pid))
	}
	return fmt.Errorf("unknown step %d", s.kind)
}

// exitSignal returns what a process gets when its child pid ends. One that is to have
// another parent gets SIGCHLD for it from the kernel.
func (st *State) exitSignal(pid, parent int) int {
	for i := range st.Processes {
		if ps := &st.Processes[i]; ps.PID == pid && ps.PPID == parent && ps.ExitSignal != nil {
			return *ps.ExitSignal
		}
	}
	return int(unix.SIGCHLD)
}

// exit ends p with a wait status, and waits until it is a zombie of its parent.
func (r *Restorer) exit(ctx context.Context, p *Process, status int) error {
	th := p.threads[0]
	p.closeMem()
	ws := unix.WaitStatus(status)
	if ws.Signaled() {
		none := unix.Rlimit{}
		_ = unix.Prlimit(p.host, unix.RLIMIT_CORE, &none, nil)
		if err := setSigmask(th.HostTID, 0); err != nil {
			return err
		}
		if err := unix.Kill(p.host, ws.Signal()); err != nil {
			return err
		}
	} else {
		regs := th.Regs
		regs.atSyscall(p.inj.insn, unix.SYS_EXIT_GROUP, [6]uint64{uint64(ws.ExitStatus())})
		if err := setRegs(th.HostTID, regs); err != nil {
			return err
		}
	}
	sig := syscall.Signal(0)
	for {
		if err := cont(th.HostTID, sig); err != nil && err != unix.ESRCH {
			return err
		}
		stop, err := r.tr.wait(ctx, th.HostTID)
		if errors.Is(err, errGone) {
			return nil
		}
		if err != nil {
			return err
		}
		sig = 0
		if event(stop) == 0 {
			sig = stop.StopSignal()
		}
	}
}

// MakeEnded makes a process that ends with a wait status and is waited for.
// use is called with its host id while it lives.
func (r *Restorer) MakeEnded(ctx context.Context, status int, use func(hostPID int) error) error {
	if !isEnd(status) {
		return fmt.Errorf("no process ends with the wait status %#x", status)
	}
	return r.tr.Do(func() error {
		p, err := r.fork(ctx, r.reaper, 0)
		if err != nil {
			return err
		}
		if err := use(p.host); err != nil {
			return err
		}
		if err := r.exit(ctx, p, status); err != nil {
			return fmt.Errorf("end pid %d: %w", p.pid, err)
		}
		wait := sys(unix.SYS_WAIT4, uint64(p.pid), 0, unix.WALL, 0).as("wait4(%d)", p.pid)
		delete(r.byPID, p.pid)
		return r.reaper.run(ctx, r.reaper.threads[0], []call{wait})
	})
}

// Procs returns the processes of the tree that are no zombies, parents first.
func (r *Restorer) Procs() []*Process {
	var out []*Process
	for i := range r.st.Processes {
		if ps := &r.st.Processes[i]; !ps.Zombie {
			out = append(out, r.byPID[ps.PID])
		}
	}
	return out
}

// PluginProcs is Procs as plugins see it.
func (r *Restorer) PluginProcs() []plugin.Process {
	var out []plugin.Process
	for _, p := range r.Procs() {
		out = append(out, p)
	}
	return out
}

// Root is the path under which the agent sees the tree's root directory.
func (r *Restorer) Root() string {
	if !r.newNamespaces {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", r.stub.host)
}

// Abort ends all that was made.
func (r *Restorer) Abort() {
	for _, name := range r.remade { // found by way of a process that still lives
		_ = os.Remove(name)
	}
	missing.Remove(r.folders)
	missing.Forget()
	_ = r.tr.Do(func() error {
		r.speak()
		for _, p := range r.byPID {
			p.closeMem()
			_ = unix.Kill(p.host, unix.SIGKILL)
		}
		if r.stub != nil {
			r.stub.closeMem()
			_ = unix.Kill(r.stub.host, unix.SIGKILL)
			r.buryAll()
		}
		return nil
	})
	if r.late != nil {
		r.late.close()
	}
	r.closeFiles()
	if r.report != nil {
		r.report.Close()
	}
}

// speak ends the hush of a restart.
func (r *Restorer) speak() {
	if r.hushed {
		r.hushed = false
		speak()
	}
}

// buryAll waits for all that were killed, among them threads that were born
// but are known to nobody yet, until the first process is gone: it goes last
// of its pid namespace, and in another the reaper's children come to us.
func (r *Restorer) buryAll() {
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD
			return
		case got > 0 && ws.Stopped():
			_ = cont(got, 0)
		case got > 0:
			r.tr.exits = append(r.tr.exits, Exit{got, ws})
		case r.allGone():
			return
		default:
			select {
			case <-r.tr.child:
			case <-ctx.Done():
				return
			}
		}
	}
}

// allGone says whether no process of the restart is left.
func (r *Restorer) allGone() bool {
	for _, p := range r.byPID {
		if unix.Kill(p.host, 0) == nil {
			return false
		}
	}
	return unix.Kill(r.stub.host, 0) == unix.ESRCH
}

func (r *Restorer) closeFiles() {
	for _, fd := range r.later {
		unix.Close(fd)
	}
	r.later = nil
	if r.sock >= 0 {
		unix.Close(r.sock)
		r.sock = -1
	}
}
