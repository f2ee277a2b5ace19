package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// breakOffTimeout bounds the wait for a thread to stop after an injected call
// was interrupted.
const breakOffTimeout = 5 * time.Second

// Thread is a stopped thread.
type Thread struct {
	TID     int // as the program sees it
	HostTID int

	// Regs and Mask are what the thread goes on with. Interrupted system
	// calls are already put right in Regs.
	Regs Regs
	Mask uint64

	vector  []byte           // registers that a call of ours takes from it, beside Regs: see readVector
	compat  bool             // 32-bit code, whose registers are not known
	worker  bool             // the kernel's own within the process: it runs no code of the program
	forks   bool             // it has children, and is not the leader
	asked   bool             // to stop
	stopped bool             // Regs and Mask have been read
	ended   *Regs            // at the stop, where its call has been mended since: see mend
	stopSig syscall.Signal   // of its group stop, 0 where it is not stopped
	aside   []syscall.Signal // came in during an injection
	sleep   *Sleep           // where it sleeps in a call that the kernel restarts by a restart block
	masked  bool             // it is to make a call again that has a signal mask of its own
	status  *procfs.Status   // see statusOf
	until   time.Time        // where it waits in a call that is run again, the end of its time-out; else zero
}

// Process is a stopped process, or a zombie. It implements plugin.Process.
type Process struct {
	pid     int // as the program sees it
	host    int
	parent  int // host pid of its parent
	zombie  bool
	threads []*Thread // the leader first, unless it has exited
	execed  bool      // a thread has called execve(2) during the freeze
	listed  bool      // the children of all its threads are known

	tr       *Tracer
	status   procfs.Status
	stat     procfs.Stat
	inj      injection
	vdso     procfs.VMA // where it was asked for
	actions  [][]byte   // for signals, where they are known
	rseqOff  uint64     // of restartable sequences from the thread pointer, where it was found
	dumpable int64      // the value to put back; -1: untouched
	avoid    uint64     // signals that must not announce the end of a batch

	surveyed []procfs.VMA // what was relied on, until confirm

	late *lateMemory // what it still misses

	nearby    *bool // see isNearby; nil: not known yet
	suspended bool  // seccomp(2) of its threads, as long as they are traced
	copied    bool  // it is a copy, which shares pages with the program
}

var _ plugin.Process = (*Process)(nil)

// PID implements plugin.Process.
func (p *Process) PID() int { return p.pid }

// HostPID implements plugin.Process.
func (p *Process) HostPID() int { return p.host }

// liveTID is the host id of a thread that still has the memory: a leader that
// has exited shows none.
func (p *Process) liveTID() int {
	if len(p.threads) == 0 {
		return p.host
	}
	return p.threads[0].HostTID
}

// leaderGone says whether the thread-group leader has exited before others.
func (p *Process) leaderGone() bool {
	return !p.zombie && len(p.threads) > 0 && p.threads[0].HostTID != p.host
}

// stopSignal returns the signal of the group stop the process is in, or 0.
func (p *Process) stopSignal() syscall.Signal {
	for _, th := range p.threads {
		if th.stopSig != 0 {
			return th.stopSig
		}
	}
	return 0
}

// statusOf returns the status of a thread that stands still, read once: which signals wait
// is not to be taken from it.
func (p *Process) statusOf(th *Thread) (*procfs.Status, error) {
	if th.status == nil {
		s, err := procfs.ReadTaskStatus(p.host, th.HostTID)
		if err != nil {
			return nil, err
		}
		th.status = &s
	}
	return th.status, nil
}

// Threads implements plugin.Process.
func (p *Process) Threads() []plugin.Thread {
	out := make([]plugin.Thread, len(p.threads))
	for i, th := range p.threads {
		out[i] = plugin.Thread{TID: th.TID, HostTID: th.HostTID}
	}
	return out
}

// PendingSignals implements plugin.Process.
func (p *Process) PendingSignals() (all [][]byte, err error) {
	err = p.tr.Do(func() error {
		for i, th := range p.threads {
			if i == 0 {
				if all, err = peekSignals(th.HostTID, true); err != nil {
					return err
				}
			}
			own, err := peekSignals(th.HostTID, false)
			if err != nil {
				return err
			}
			all = append(all, own...)
		}
		return nil
	})
	return all, err
}

// ReadAt implements plugin.Process.
func (p *Process) ReadAt(b []byte, addr int64) (int, error) {
	if err := p.readMem(uint64(addr), b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteAt implements plugin.Process.
func (p *Process) WriteAt(b []byte, addr int64) (int, error) {
	if err := p.writeMem(uint64(addr), b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Scratch implements plugin.Process.
func (p *Process) Scratch() (addr uint64, size int) { return p.inj.scratch(), blobScratch }

// Syscall implements plugin.Process.
func (p *Process) Syscall(ctx context.Context, nr uintptr, args ...uintptr) (uintptr, error) {
	c := plugin.Call{Nr: nr}
	copy(c.Args[:], args)
	calls := []plugin.Call{c}
	err := p.Batch(ctx, calls)
	if calls[0].Err != 0 {
		return calls[0].Ret, calls[0].Err
	}
	return calls[0].Ret, err
}

// Batch implements plugin.Process.
func (p *Process) Batch(ctx context.Context, calls []plugin.Call) error {
	if p.inj.base == 0 {
		return fmt.Errorf("pid %d: the process is not open for injection", p.pid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b, err := p.newBatch(calls)
	if err != nil {
		return err
	}
	if err := p.writeMem(p.inj.base+blobRecordsOff+uint64(len(b.run)*recordSize), b.iovecs); err != nil {
		return err
	}
	err = p.tr.Do(func() error { return p.run(ctx, p.threads[0], b.run) })
	for i, at := range b.place {
		c := b.run[at]
		calls[i].Ret, calls[i].Err = uintptr(c.ret), 0
		if c.ret == recordPending {
			calls[i].Ret = 0
		} else if c.failed() {
			calls[i].Err = syscall.Errno(-c.ret)
		}
	}
	return err
}

// open makes the process ready for injection.
func (p *Process) open(ctx context.Context) error {
	insn, err := p.findInsn()
	if err != nil {
		return err
	}
	p.inj.insn = insn
	if err := p.makeReadable(ctx); err != nil {
		return err
	}
	return p.mapBlob(ctx, 0)
}

// makeReadable makes /proc/PID/mem of a process that is not dumpable open to
// us: its files in /proc belong to root (ptrace(2), proc(5)).
func (p *Process) makeReadable(ctx context.Context) error {
	err := p.openMem()
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	old, err := p.single(ctx, p.threads[0], sys(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE).as("PR_GET_DUMPABLE"))
	if err != nil {
		return err
	}
	if _, err := p.single(ctx, p.threads[0], sys(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1).as("PR_SET_DUMPABLE")); err != nil {
		return err
	}
	p.dumpable = old
	return p.openMem()
}

// setDumpable puts a value of PR_GET_DUMPABLE back. 2, which a change of
// credentials leaves where fs.suid_dumpable says so, cannot be set: 0 keeps
// the process as closed (prctl(2)).
func setDumpable(value int64) call {
	if value > 1 {
		value = 0
	}
	return sys(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, uint64(value)).as("PR_SET_DUMPABLE")
}

// close undoes open.
func (p *Process) close(ctx context.Context) error {
	err := p.unmapBlob(ctx)
	if p.dumpable >= 0 {
		_, err2 := p.single(ctx, p.threads[0], setDumpable(p.dumpable))
		err = errors.Join(err, err2)
		p.dumpable = -1
	}
	if p.inj.mem != nil {
		p.inj.mem.Close()
		p.inj.mem = nil
	}
	return err
}

// letLeader detaches from the leader of several threads. await waits until it has taken the
// signals for the process that came while it stood still: else other threads would,
// when they are let go, and also those that come before the leader has run
// (kernel/signal.c, complete_signal). What it blocks may be theirs.
func (p *Process) letLeader() (await func(), err error) {
	const most = 200 * time.Millisecond // of a machine with much to do
	before := procfs.Timeslices(p.host, p.host)
	if err := detach(p.host); err != nil {
		return nil, err
	}
	waiting, _ := procfs.ReadTaskStatus(p.host, p.host)
	await = func() {
		for begin := time.Now(); time.Since(begin) < most; p.tr.yield() {
			s, err := procfs.ReadTaskStatus(p.host, p.host)
			if err != nil || s.State == 'T' {
				break
			}
			if s.ShdPnd&^s.SigBlk == 0 && (s.State != 'R' || before == "" || procfs.Timeslices(p.host, p.host) != before) {
				break
			}
		}
	}
	if waiting.ShdPnd&^waiting.SigBlk&waiting.SigCgt != 0 { // its handlers run in it
		await()
		await = nil
	}
	return await, nil
}

// letGo detaches from a thread. await is not nil where it is to be called before threads that
// have no children are let go.
func (p *Process) letGo(th *Thread) (await func(), err error) {
	if err = p.interruptCall(th); err == nil && th.masked {
		err = p.reenter(th)
	}
	if th.HostTID == p.host && len(p.threads) > 1 {
		await, err2 := p.letLeader()
		return await, errors.Join(err, err2)
	}
	return nil, errors.Join(err, detach(th.HostTID))
}

// release lets every thread run on with its own registers and mask: the leader first, then those
// with children, see freezing.next.
func (p *Process) release() error {
	order := slices.Clone(p.threads)
	slices.SortStableFunc(order, func(a, b *Thread) int { return cmp.Compare(p.turn(a), p.turn(b)) })
	var errs []error
	var await func()
	for _, th := range order {
		if await != nil && p.turn(th) == lastTurn {
			await()
			await = nil
		}
		of, err := p.releaseThread(th)
		if of != nil {
			await = of
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pid %d tid %d: release: %w", p.pid, th.TID, err))
		}
	}
	if await != nil {
		await()
	}
	return errors.Join(errs...)
}

const lastTurn = 2

// turn is when a thread is let go.
func (p *Process) turn(th *Thread) int {
	switch {
	case th.HostTID == p.host:
		return 0
	case th.forks:
		return 1
	}
	return lastTurn
}

// releaseThread lets a thread run on. See letGo.
func (p *Process) releaseThread(th *Thread) (await func(), err error) {
	delete(p.tr.held, th.HostTID)
	if !th.stopped {
		if !th.asked {
			_ = th.interrupt() // it has ended
		}
		p.tr.letGoLate(th.HostTID)
		return nil, nil
	}
	err = errors.Join(p.catchUp(th), p.own(th))
	for _, sig := range th.aside {
		_ = unix.Tgkill(p.host, th.HostTID, sig) // ESRCH: it was killed meanwhile
	}
	await, err2 := p.letGo(th)
	if err == nil {
		err = err2
	}
	if isKilled(err) { // only its tracer may bury it
		p.tr.letGoLate(th.HostTID)
		err = nil
	}
	return await, err
}
