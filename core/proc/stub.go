package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// StubArg is the argument with which the agent executes its own program as
// the first process of a restored tree. It is stopped at execve(2) and
// emptied: none of its code ever runs.
const StubArg = "__stub"

// ErrNoNamespaces says that the host gives an ordinary user no namespaces.
var ErrNoNamespaces = errors.New("this host does not let an ordinary user make user namespaces; " +
	"ask its administrator for sysctl kernel.unprivileged_userns_clone=1 (Debian), " +
	"kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu) or user.max_user_namespaces>0, " +
	"or do it as root")

// InUserNamespace makes a process that is started with attr the first of a
// user namespace in which its user and group have their own ids,
// user_namespaces(7).
func InUserNamespace(attr *syscall.SysProcAttr) {
	uid, gid := os.Geteuid(), os.Getegid()
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
}

// ExplainNamespace adds ErrNoNamespaces to the error of starting a process in
// a user namespace, where that is why.
func ExplainNamespace(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", ErrNoNamespaces, err)
	}
	return err
}

// descriptors of the stub at execve(2), and where they are moved.
const (
	stubSocket = 3
	stubReport = 4
)

// stubAttr describes the process: with namespaces, it is the first of a new
// pid namespace, and for an ordinary user has the capabilities to rebuild
// the tree there, capabilities(7).
func stubAttr(newNamespaces bool, files []uintptr) *syscall.ProcAttr {
	sysattr := &syscall.SysProcAttr{Ptrace: true, Pdeathsig: unix.SIGKILL}
	if newNamespaces {
		sysattr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC
	}
	if newNamespaces && os.Geteuid() != 0 {
		InUserNamespace(sysattr)
		sysattr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_CHECKPOINT_RESTORE, unix.CAP_SYS_PTRACE,
			unix.CAP_SYS_RESOURCE, unix.CAP_SYS_TIME, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT}
	}
	return &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sysattr}
}

// startStub executes the stub and brings it to a PTRACE_EVENT_STOP at which
// it has run nothing. Every child of it is born stopped and traced.
func (r *Restorer) startStub(ctx context.Context, files []uintptr) error {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"hiatus", StubArg}, stubAttr(r.newNamespaces, files))
	if err != nil {
		if r.newNamespaces && os.Geteuid() != 0 {
			err = ExplainNamespace(err)
		}
		return fmt.Errorf("start the first process: %w", err)
	}
	th := &Thread{TID: pid, HostTID: pid, Mask: ^uint64(0), stopped: true}
	if r.newNamespaces {
		th.TID = 1
	}
	r.stub = &Process{pid: th.TID, host: pid, tr: r.tr, dumpable: -1, threads: []*Thread{th}}
	if _, err := r.tr.wait(ctx, pid); err != nil { // the SIGTRAP of execve under PTRACE_TRACEME
		return fmt.Errorf("the first process: %w", err)
	}
	if r.held, err = procfs.ReadStatus(pid); err != nil {
		return err
	}
	if r.stub.inj.insn, err = r.stub.findInsn(); err != nil {
		return err
	}
	r.stub.inj.nest = 0 // it dies with the agent
	if th.Regs, err = getRegs(pid); err != nil {
		return err
	}
	return r.seizeStub(ctx, th)
}

// traceOptions make every child of a tracee stop at birth, and die with the
// agent as long as the tree is not whole.
const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL

// seizeStub changes from PTRACE_TRACEME to PTRACE_SEIZE, while the process
// waits in a call that no signal ends.
func (r *Restorer) seizeStub(ctx context.Context, th *Thread) error {
	th.Regs.atSyscall(r.stub.inj.insn, unix.SYS_PPOLL, [6]uint64{})
	if err := r.stub.own(th); err != nil {
		return err
	}
	if err := detach(th.HostTID); err != nil {
		return fmt.Errorf("the first process: detach: %w", err)
	}
	if err := ptrace(ptraceSeize, th.HostTID, 0, traceOptions); err != nil {
		return fmt.Errorf("the first process: seize: %w", err)
	}
	if err := ptrace(ptraceInterrupt, th.HostTID, 0, 0); err != nil {
		return fmt.Errorf("the first process: interrupt: %w", err)
	}
	_, err := r.tr.stopAt(ctx, th.HostTID)
	return err
}

// emptyStub prepares the namespaces and takes away all memory of the stub but
// the kernel's own and the blob.
func (r *Restorer) emptyStub(ctx context.Context) error {
	p := r.stub
	if err := raiseLimits(p.host); err != nil {
		return err
	}
	maps, err := procfs.ReadMaps(p.host)
	if err != nil {
		return err
	}
	base, err := r.freeAddress(maps)
	if err != nil {
		return err
	}
	if err := p.mapBlob(ctx, base); err != nil {
		return err
	}
	p.threads[0].Regs.park(base + blobPark)
	if err := p.own(p.threads[0]); err != nil {
		return err
	}
	if err := r.chooseDescriptors(); err != nil {
		return err
	}
	b := newArgs(p)
	var calls []call
	if r.newNamespaces {
		calls = append(calls, r.mounts(b)...)
	}
	calls = append(calls, sys(unix.SYS_UNSHARE, unix.CLONE_NEWTIME).may(),
		sys(unix.SYS_DUP3, stubSocket, uint64(r.sockFD), 0).as("dup3"),
		sys(unix.SYS_DUP3, stubReport, uint64(r.sockFD)+1, 0).as("dup3"),
		sys(unix.SYS_CLOSE_RANGE, 0, uint64(r.sockFD)-1, 0).as("close_range"),
		sys(unix.SYS_CLOSE_RANGE, uint64(r.sockFD)+2, lastFD, 0).as("close_range"),
		sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str("hiatus-init")).as("PR_SET_NAME"))
	unshare := len(calls) - 6
	for _, v := range maps {
		if !isVdso(v.Path) && v.Path != "[vsyscall]" {
			calls = append(calls, sys(unix.SYS_MUNMAP, v.Start, v.Len()).as("munmap"))
		}
	}
	if err := b.flush(ctx, p.threads[0], calls); err != nil {
		return err
	}
	r.timeNamespace = !calls[unshare].failed()
	return nil
}

// lastFD is the last descriptor, as close_range(2) takes it.
const lastFD = uint64(^uint32(0))

// mqueueMagic is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const mqueueMagic = 0x19800202

// mounts makes the mount namespace's own /proc, /dev/mqueue where the host has
// one (mq_overview(7): it shows the queues of an IPC namespace), and /dev/pts
// where the tree has pseudoterminals of its own. Mounts made later on the host
// still come in.
func (r *Restorer) mounts(b *args) []call {
	const hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	calls := []call{
		sys(unix.SYS_MOUNT, 0, b.str("/"), 0, unix.MS_REC|unix.MS_SLAVE, 0).as("mount / as slave"),
		sys(unix.SYS_MOUNT, b.str("proc"), b.str("/proc"), b.str("proc"), hardened, 0).as("mount /proc"),
	}
	var fs unix.Statfs_t
	if unix.Statfs("/dev/mqueue", &fs) == nil && fs.Type == mqueueMagic {
		calls = append(calls,
			sys(unix.SYS_MOUNT, b.str("mqueue"), b.str("/dev/mqueue"), b.str("mqueue"), hardened, 0).as("mount /dev/mqueue"))
	}
	if r.st.OwnPtys {
		// Never gid=5: it does not exist in the user namespace.
		calls = append(calls,
			sys(unix.SYS_MOUNT, b.str("devpts"), b.str("/dev/pts"), b.str("devpts"), unix.MS_NOSUID|unix.MS_NOEXEC,
				b.str("newinstance,ptmxmode=0666,mode=620")).as("mount /dev/pts"),
			sys(unix.SYS_MOUNT, b.str("/dev/pts/ptmx"), b.str("/dev/ptmx"), 0, unix.MS_BIND, 0).as("mount /dev/ptmx"))
	}
	return calls
}

// freeAddress finds room for the blob and for moving the vdso that is free in
// the stub and in every process of the image.
func (r *Restorer) freeAddress(stub []procfs.VMA) (uint64, error) {
	const first, step, last = 1 << 32, 1 << 30, 1 << 46
	for base := uint64(first); base < last; base += step {
		end := base + r.roomSize()
		free := true
		for _, v := range stub {
			free = free && (v.End <= base || v.Start >= end)
		}
		for i := range r.st.Processes {
			for _, m := range r.st.Processes[i].Maps {
				free = free && (m.End <= base || m.Start >= end)
			}
		}
		if free {
			return base, nil
		}
	}
	return 0, errors.New("no address is free in every process")
}

// roomSize is the blob and as much for the vdso's passage.
func (r *Restorer) roomSize() uint64 { return 2*blobSize + 1<<20 }

// raiseLimits raises the limits under which a tree is rebuilt: they were the
// program's own to raise, getrlimit(2). Each process gets its own when it is done.
func raiseLimits(pid int) error {
	for _, resource := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_FSIZE, unix.RLIMIT_MEMLOCK,
		unix.RLIMIT_MSGQUEUE, unix.RLIMIT_NOFILE, unix.RLIMIT_NPROC, unix.RLIMIT_SIGPENDING} {
		var l unix.Rlimit
		err := unix.Prlimit(pid, resource, nil, &l)
		if l.Cur = l.Max; err == nil {
			err = unix.Prlimit(pid, resource, &l, nil)
		}
		if err != nil {
			return fmt.Errorf("prlimit(%d) of process %d: %w", resource, pid, err)
		}
	}
	return nil
}

// chooseDescriptors chooses three descriptors in a row for us: above all of the
// tree if that is allowed, else in a gap. Those that are passed arrive below it.
func (r *Restorer) chooseDescriptors() error {
	var l unix.Rlimit
	if err := unix.Prlimit(r.stub.host, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	used, count, top := map[int]bool{}, map[int]int{}, stubReport // where ours are now
	for _, f := range r.st.Files {
		for _, ref := range f.Refs {
			used[ref.FD] = true
			count[ref.PID]++
			top = max(top, ref.FD, count[ref.PID])
		}
	}
	for i := range r.st.Processes {
		for _, t := range r.st.Processes[i].Threads {
			if t.Files == nil {
				continue
			}
			for _, f := range t.Files.Files {
				used[f.FD] = true
				top = max(top, f.FD, len(t.Files.Files))
			}
		}
	}
	most := 0
	for _, n := range count {
		most = max(most, n)
	}
	first := min(top+1, int(min(l.Max, maxFD))-ownFDs)
	for fd := first; fd >= max(most, stubReport+1); fd-- {
		if !used[fd] && !used[fd+1] && !used[fd+2] {
			r.sockFD = fd
			return nil
		}
	}
	return fmt.Errorf("the program has descriptors up to %d open, but the limit of open files here is %d (ulimit -Hn)", top, l.Max)
}

// ownFDs is how many descriptors of ours a process has while it is rebuilt:
// the socket, the reports, and one to work with.
const ownFDs = 3

// setClocks makes CLOCK_MONOTONIC and CLOCK_BOOTTIME go on where they stood,
// time_namespaces(7). It must happen before the first child.
func (r *Restorer) setClocks() error {
	if !r.timeNamespace {
		r.warn("this kernel or host gives no time namespace: CLOCK_MONOTONIC jumps to the host's")
		return nil
	}
	mono, boot, err := hostClocks()
	if err != nil {
		return err
	}
	line := func(clock string, d int64) string {
		s, ns := d/1e9, d%1e9
		if ns < 0 {
			s, ns = s-1, ns+1e9
		}
		return fmt.Sprintf("%s %d %d\n", clock, s, ns)
	}
	var b strings.Builder
	b.WriteString(line("monotonic", int64(r.st.Clocks.Monotonic-mono)))
	b.WriteString(line("boottime", int64(r.st.Clocks.Boottime-boot)))
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", r.stub.host), []byte(b.String()), 0); err != nil {
		return fmt.Errorf("set the clocks: %w", err)
	}
	r.clocksSet = time.Now()
	return nil
}

// passed is how far the tree's clocks have gone since the checkpoint.
func (r *Restorer) passed() time.Duration {
	if r.clocksSet.IsZero() {
		return 0
	}
	return time.Since(r.clocksSet)
}

// args collects the arguments of a batch in the scratch area of a process.
type args struct {
	p   *Process
	buf []byte
}

func newArgs(p *Process) *args { return &args{p: p} }

// put adds data and returns its address.
func (a *args) put(data []byte) uint64 {
	at := a.p.inj.scratch() + uint64(len(a.buf))
	a.buf = append(a.buf, data...)
	for len(a.buf)%16 != 0 {
		a.buf = append(a.buf, 0)
	}
	return at
}

func (a *args) str(s string) uint64 { return a.put(append([]byte(s), 0)) }

// full says whether another n bytes might not fit.
func (a *args) full(n int) bool { return len(a.buf)+n+16 > blobScratch }

// flush writes the arguments and runs the calls that use them.
func (a *args) flush(ctx context.Context, th *Thread, calls []call) error {
	if len(a.buf) > blobScratch {
		return fmt.Errorf("pid %d: arguments of %d bytes do not fit", a.p.pid, len(a.buf))
	}
	if err := a.p.writeMem(a.p.inj.scratch(), a.buf); err != nil {
		return err
	}
	a.buf = a.buf[:0]
	return a.p.run(ctx, th, calls)
}
