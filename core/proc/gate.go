package proc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// gate stands between a program whose memory still arrives and the kernel.
//
// The kernel's accesses to missing memory fail, where they are not faults that
// the agent may answer. They happen in system calls, when a signal is delivered,
// and when a thread ends or is preempted (clear_child_tid, the robust list,
// rseq). For the last, memory is there from the start: see pin. At its system
// calls and signals each thread stops, and goes on when what they access is
// there: of the usual calls that is known, all others wait until everything is.
// So do those that change what was registered, as fork(2), execve(2), mremap(2),
// and madvise(2) or munmap(2) of such memory: at any moment it is one process
// with the mappings that it had in the image.
//
// Until the gate opens, the program ends with the agent (PTRACE_O_EXITKILL):
// nobody would bring its memory. Threads that wait for a page are not woken with
// zeros by the end of the agent's userfaultfd, as the first process holds it too,
// which is killed last (kernel/ptrace.c, exit_ptrace: the first tracee is the
// last of the list).
type gate struct {
	tr      *Tracer
	tree    *Tree          // of settleCall
	threads map[int]*gated // by host tid
	pending sync.WaitGroup // of threads whose memory is being brought
	opened  bool
}

// gated is a thread at the gate.
type gated struct {
	p  *Process
	th *Thread
	m  *lateMemory // nil: its process has all its memory

	brk      uint64 // of the image
	altStack linux.PageRange
	standing bool           // in a stop, until it is let go on
	sig      syscall.Signal // to be delivered then
	entered  time.Time      // its last system call
}

const (
	ptraceListen         = 0x4208
	ptraceGetSyscallInfo = 0x420e
	callEntry            = 1 // PTRACE_SYSCALL_INFO_ENTRY
)

// syscallInfo is struct ptrace_syscall_info as far as an entry goes.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64
	args [6]uint64
}

func getSyscallInfo(tid int) (syscallInfo, error) {
	s := new(syscallInfo)
	err := ptrace(ptraceGetSyscallInfo, tid, unsafe.Sizeof(*s), uintptr(unsafe.Pointer(s)))
	return *s, err
}

// coreSignals end a program with a core file, signal(7), which is to have all
// its memory.
const coreSignals = 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGILL-1) | 1<<(unix.SIGTRAP-1) | 1<<(unix.SIGABRT-1) | 1<<(unix.SIGBUS-1) |
	1<<(unix.SIGFPE-1) | 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGXCPU-1) | 1<<(unix.SIGXFSZ-1) | 1<<(unix.SIGSYS-1)

// signalRoom is more than a signal frame takes (AT_MINSIGSTKSZ of getauxval(3)).
const signalRoom = 64 << 10

// span is memory that a system call accesses.
type span struct{ addr, len uint64 }

// start lets a thread run up to the gate.
func (g *gate) start(x *gated) error {
	tid := x.th.HostTID
	// No more than is needed: who is born when it has opened is not traced.
	if err := ptrace(ptraceSetOptions, tid, 0, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("tid %d: %w", x.th.TID, err)
	}
	g.threads[tid] = x
	return ptrace(unix.PTRACE_SYSCALL, tid, 0, 0)
}

// goOn lets a thread go on to its next stop.
func (g *gate) goOn(x *gated) {
	sig := x.sig
	x.standing, x.sig = false, 0
	_ = ptrace(unix.PTRACE_SYSCALL, x.th.HostTID, 0, uintptr(sig)) // ESRCH: it was killed
}

// stop handles a stop, or the end, of one of the threads.
func (g *gate) stop(tid int, ws unix.WaitStatus) {
	x := g.threads[tid]
	if !ws.Stopped() {
		g.end(x)
		return
	}
	x.standing = true
	switch sig := ws.StopSignal(); {
	case event(ws) == eventStop && sig != unix.SIGTRAP: // a group stop, which SIGCONT ends
		x.standing = false
		_ = ptrace(ptraceListen, tid, 0, 0)
	case event(ws) != 0:
		g.goOn(x)
	case sig == unix.SIGTRAP|0x80:
		g.call(x)
	default:
		g.signal(x, sig)
	}
}

// end forgets a thread that has ended, and the memory with the last of them.
func (g *gate) end(x *gated) {
	delete(g.threads, x.th.HostTID)
	if x.m == nil {
		return
	}
	for _, y := range g.threads {
		if y.m == x.m {
			return
		}
	}
	x.m.gone.Store(true)
}

// call lets a thread begin a system call when the memory is there that it
// accesses. One that is not known stands until the gate opens.
func (g *gate) call(x *gated) {
	info, err := getSyscallInfo(x.th.HostTID)
	if err != nil { // ESRCH: it was killed
		return
	}
	if info.op != callEntry {
		g.goOn(x)
		return
	}
	x.entered = time.Now()
	if need, ok := x.needs(&info); ok {
		g.bring(x, need)
	}
}

// signal lets a thread take a signal when there is memory for its frame.
func (g *gate) signal(x *gated, sig syscall.Signal) {
	x.sig = sig
	if coreSignals&(1<<(uint(sig)-1)) != 0 {
		return
	}
	r, err := getRegs(x.th.HostTID)
	if err != nil { // killed, or 32-bit code
		return
	}
	sp := stackPointer(&r)
	need := needed{spans: []span{{sp - signalRoom, signalRoom}}}
	if a := x.altStack; a.Start < a.End {
		top := max(a.Start, a.End-min(a.End, signalRoom))
		need.spans = append(need.spans, span{top, a.End - top})
	}
	g.bring(x, need)
}

// needed is the memory that a system call accesses: more is behind pointers that
// lie in memory themselves.
type needed struct {
	spans []span
	more  func(p *Process) []span // nil: there is none
}

// bring lets a thread go on when the memory is there, at once where it is.
func (g *gate) bring(x *gated, need needed) {
	if x.m == nil || need.more == nil && !x.m.missesAny(need.spans) {
		g.goOn(x)
		return
	}
	g.pending.Go(func() {
		err := x.m.bringAll(need.spans)
		if err == nil && need.more != nil {
			q := x.p.apart()
			err = x.m.bringAll(need.more(q))
			q.closeMem()
		}
		if err != nil {
			return // all are going to be killed
		}
		_ = g.tr.Do(func() error {
			if !g.opened && g.threads[x.th.HostTID] == x && x.standing {
				g.goOn(x)
			}
			return nil
		})
	})
}

func (m *lateMemory) missesAny(spans []span) bool {
	for _, s := range spans {
		if m.missing(s.addr, s.end()) {
			return true
		}
	}
	return false
}

func (m *lateMemory) bringAll(spans []span) error {
	for _, s := range spans {
		if err := m.bring(s.addr, s.end()); err != nil {
			return err
		}
	}
	return nil
}

func (s span) end() uint64 {
	if end := s.addr + s.len; end >= s.addr {
		return end
	}
	return ^uint64(0)
}

// open lets all threads run on without a tracer.
func (g *gate) open(ctx context.Context) error {
	g.opened = true
	g.tr.gate = nil
	var running []*gated
	for tid, x := range g.threads {
		if !x.standing {
			g.look(x)
		}
		switch {
		case g.threads[tid] == nil:
		case x.standing: // it was not interrupted: a call that begins, begins as ever
			g.letGo(x)
		default:
			running = append(running, x)
		}
	}
	var errs []error
	for _, x := range running { // one by one, as in Tree.stopCareful
		tid := x.th.HostTID
		err := ptrace(ptraceInterrupt, tid, 0, 0)
		if err == nil {
			err = g.catch(ctx, x)
		}
		if err != nil {
			g.tr.letGoLate(tid)
		}
		if err != nil && !errors.Is(err, errGone) && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("pid %d tid %d: %w", x.p.pid, x.th.TID, err))
		}
	}
	return errors.Join(errs...)
}

// look takes note of a stop that nobody has heard of yet.
func (g *gate) look(x *gated) {
	var ws unix.WaitStatus
	got, err := unix.Wait4(x.th.HostTID, &ws, unix.WALL|unix.WNOHANG, nil)
	switch {
	case err != nil || got != x.th.HostTID:
	case !ws.Stopped():
		g.end(x)
	default:
		x.standing = true
		if event(ws) == 0 && ws.StopSignal() != unix.SIGTRAP|0x80 {
			x.sig = ws.StopSignal()
		}
	}
}

func (g *gate) letGo(x *gated) {
	if err := ptrace(unix.PTRACE_DETACH, x.th.HostTID, 0, uintptr(x.sig)); err != nil { // killed: only its tracer may bury it
		g.tr.letGoLate(x.th.HostTID)
	}
}

// catch waits for the stop of a thread that was interrupted, and lets it go as
// if it had not been.
func (g *gate) catch(ctx context.Context, x *gated) error {
	var begun *Regs
	tid := x.th.HostTID
	for {
		ws, err := g.tr.wait(ctx, tid)
		if err != nil {
			return err
		}
		if event(ws) == eventStop {
			break
		}
		sig := ws.StopSignal()
		if event(ws) != 0 || sig == unix.SIGTRAP|0x80 {
			sig = 0
		}
		if sig == 0 && event(ws) == 0 {
			if begun, err = putOff(tid); err != nil {
				return err
			}
		}
		// Any stop takes the request for another away (kernel/signal.c, ptrace_stop).
		if err := errors.Join(ptrace(ptraceInterrupt, tid, 0, 0), cont(tid, sig)); err != nil {
			return err
		}
	}
	if err := g.settle(x, begun); err != nil {
		return err
	}
	return detach(tid)
}

// putOff has the kernel leave out the system call that a thread begins: it would
// be interrupted. It returns the registers to begin it again with, nil where the
// thread is at the end of its call.
func putOff(tid int) (*Regs, error) {
	info, err := getSyscallInfo(tid)
	if err != nil || info.op != callEntry {
		return nil, err
	}
	r, err := getRegs(tid)
	if err != nil {
		return nil, err
	}
	none := r
	none.setSyscallNr(nrNone)
	r.rerun()
	return &r, setRegs(tid, none)
}

// settle gives a thread in its EVENT_STOP the registers to go on with.
func (g *gate) settle(x *gated, begun *Regs) (err error) {
	tid := x.th.HostTID
	if begun != nil {
		return setRegs(tid, *begun)
	}
	x.th.Regs, err = getRegs(tid)
	if errors.Is(err, errCompat) {
		return nil
	}
	if err != nil {
		return err
	}
	if sched, err := procfs.ReadSched(x.p.host, tid); err == nil { // it is the call that was seen to begin
		x.th.sleep = &Sleep{elapsed: time.Since(x.entered), waits: sched.Waits - 1}
	}
	if err := g.tree.settleCall(x.p, x.th, false); err != nil {
		return err
	}
	if err := x.p.catchUp(x.th); err != nil {
		return err
	}
	return setRegs(tid, x.th.Regs)
}
