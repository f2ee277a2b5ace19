package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// A copy is a process with the memory that a process of a frozen tree had, and
// nothing else of it: it has one thread, which runs nothing but calls of ours,
// no descriptors, a session of its own, and is no child of the program's. It
// is traced from birth on and dies with the tracer (PTRACE_O_EXITKILL).
//
// A thread of the program makes a middle process that shares its memory, as
// vfork(2) does and so at no cost. That one forks the copy and ends, by which the
// copy goes to whoever adopts the orphans of the tree; and the thread waits for
// it, so that no zombie is left. All happens while the tree stands still.
type copying struct {
	p      *Process
	th     *Thread
	middle int // host id; 0 where it is not or no more
	parent int // host id of the process that must adopt the copy
	copy   *Process
	pidfd  int
	// running: the thread is on its way through our code.
	running bool
}

// ErrNoCopy says why memory could not be copied: it can be read only while the
// program stands still.
var ErrNoCopy = errors.New("the memory cannot be copied")

const (
	cloneArgsSize  = 88 // CLONE_ARGS_SIZE_VER2
	secondArgs     = 128
	copyResult     = 256
	copyRoom       = copyResult + 8
	copyName       = "hiatus-snapshot" // in /proc/PID/comm
	middleOptions  = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_EXITKILL
	firstToBeEnded = "1000" // OOM_SCORE_ADJ_MAX
)

// options adds what keeps a filter of the program's from calls of ours.
func (p *Process) options(o uintptr) uintptr {
	if p.status.Seccomp != 0 {
		o |= ptraceOSuspendSeccomp
	}
	return o
}

// startCopy has the middle process fork. finish waits for it.
func (p *Process) startCopy(ctx context.Context, parent int) (c *copying, err error) {
	c = &copying{p: p, th: p.threads[0], parent: parent, pidfd: -1}
	if err := faultpoint.At(faultpoint.CopyStarting); err != nil {
		return nil, fmt.Errorf("pid %d: %w: %w", p.pid, ErrNoCopy, err)
	}
	args := make([]byte, copyRoom)
	le.PutUint64(args, unix.CLONE_VM|unix.CLONE_VFORK|unix.CLONE_FILES|unix.CLONE_FS)
	le.PutUint64(args[secondArgs:], unix.CLONE_FILES)
	le.PutUint64(args[secondArgs+32:], uint64(unix.SIGCHLD))
	if err := p.writeMem(p.inj.scratch(), args); err != nil {
		return nil, err
	}
	if err := ptrace(ptraceSetOptions, c.th.HostTID, 0, p.options(freezeOptions|unix.PTRACE_O_TRACEVFORK)); err != nil {
		return nil, fmt.Errorf("pid %d: PTRACE_SETOPTIONS: %w", p.pid, err)
	}
	err = p.arm(c.th, blobCopy, p.inj.scratch(), 0)
	if err == nil {
		err = c.bearMiddle(ctx)
	}
	if err == nil {
		err = c.trustMiddle(ctx)
	}
	if err != nil {
		c.killMiddle()
		err = errors.Join(err, c.back())
		c.endLost()
		return nil, err
	}
	return c, nil
}

// bearMiddle lets the thread run to its vfork.
func (c *copying) bearMiddle(ctx context.Context) error {
	sig := syscall.Signal(0)
	for {
		if err := cont(c.th.HostTID, sig); err != nil {
			return err
		}
		ws, err := c.p.tr.wait(ctx, c.th.HostTID)
		if ctx.Err() != nil && err != nil && !errors.Is(err, errGone) {
			return errors.Join(err, c.p.breakOff(c.th))
		}
		if err != nil {
			return err
		}
		sig = stopOnly(ws)
		switch ev := event(ws); {
		case ev == unix.PTRACE_EVENT_VFORK:
			c.running = true
			if c.middle, err = getEventMsg(c.th.HostTID); err != nil {
				return err
			}
			return faultpoint.At(faultpoint.CopyMiddle)
		case ev != 0 || sig != 0:
		case isFault(ws.StopSignal()):
			return fmt.Errorf("pid %d: unexpected stop %#x", c.p.pid, uint32(ws))
		default:
			end, err := c.p.announced(c.th, ws)
			if err != nil {
				return err
			}
			if end {
				return errors.Join(c.refused(), c.p.interrupt(c.th))
			}
		}
	}
}

// refused returns why there is no middle process.
func (c *copying) refused() error {
	b := make([]byte, 8)
	if err := c.p.readMem(c.p.inj.scratch()+copyResult, b); err != nil {
		return err
	}
	return c.noCopy(syscall.Errno(-int64(le.Uint64(b))))
}

func (c *copying) noCopy(e syscall.Errno) error {
	why := ""
	switch e {
	case unix.EAGAIN:
		why = " (RLIMIT_NPROC, or the pids limit of its control group)"
	case unix.ENOMEM:
		why = " (vm.overcommit_memory, or memory is short)"
	}
	return fmt.Errorf("pid %d: %w: clone3: %w%s", c.p.pid, ErrNoCopy, e, why)
}

// trustMiddle lets the middle process go on: from now on it, and what it forks,
// is killed when the tracer dies. Without this it would only end.
func (c *copying) trustMiddle(ctx context.Context) error {
	tr := c.p.tr
	if _, err := tr.stopAt(ctx, c.middle); err != nil {
		return err
	}
	if err := ptrace(ptraceSetOptions, c.middle, 0, c.p.options(middleOptions)); err != nil {
		return fmt.Errorf("pid %d: PTRACE_SETOPTIONS: %w", c.middle, err)
	}
	r, err := getRegs(c.middle)
	if err != nil {
		return err
	}
	r.setKept(1)
	if err := setRegs(c.middle, r); err != nil {
		return err
	}
	if err := cont(c.middle, 0); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.CopyTrusted)
}

// finish waits until the copy is there and the thread is as it was.
func (c *copying) finish(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			c.killMiddle()
		}
		err = errors.Join(err, c.back())
		if err == nil {
			err = faultpoint.At(faultpoint.CopyBack)
		}
		if err == nil {
			err = c.settle(ctx)
		}
		if err == nil {
			err = faultpoint.At(faultpoint.CopyMade)
		}
		if err != nil && c.copy == nil {
			c.endLost()
		}
		if err != nil {
			c.p.tr.endCopy(c)
		}
	}()
	tr := c.p.tr
	if err := c.awaitFork(ctx); err != nil {
		return err
	}
	host, err := getEventMsg(c.middle)
	if err != nil {
		return err
	}
	c.copy = &Process{pid: host, host: host, tr: tr, dumpable: -1, threads: []*Thread{{TID: host, HostTID: host}}}
	tr.held[host] = true
	if c.pidfd, err = tr.copies.add(host); err != nil {
		return err
	}
	if _, err := tr.stopAt(ctx, host); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.CopyForked); err != nil {
		return err
	}
	if err := cont(c.middle, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// awaitFork waits until the middle process has made the copy. Signals to the
// program's group do not end it.
func (c *copying) awaitFork(ctx context.Context) error {
	for {
		ws, err := c.p.tr.wait(ctx, c.middle)
		if errors.Is(err, errGone) {
			c.p.tr.forgetExit(c.middle)
			c.middle = 0
			if e := syscall.Errno(ws.ExitStatus()); ws.Exited() && e != 0 {
				return c.noCopy(e)
			}
			return fmt.Errorf("pid %d: the process that was to copy it ended, status %#x", c.p.pid, uint32(ws))
		}
		if err != nil {
			return err
		}
		if event(ws) == unix.PTRACE_EVENT_FORK {
			return nil
		}
		if err := cont(c.middle, 0); err != nil && err != unix.ESRCH {
			return err
		}
	}
}

// endLost ends a copy of which the middle process could not tell any more, as it
// was ended: what else is traced and not of the tree. The middle process is gone.
func (c *copying) endLost() {
	tr := c.p.tr
	children, _ := procfs.Children(c.parent)
	for _, pid := range children {
		if s, err := procfs.ReadStatus(pid); err != nil || s.TracerPid != unix.Gettid() || tr.held[pid] {
			continue
		}
		_ = unix.Kill(pid, unix.SIGKILL) // ESRCH: it is gone
		tr.awaitEnd(pid)
	}
}

// awaitEnd waits for the end of a tracee that is not the program's.
func (t *Tracer) awaitEnd(host int) {
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	for {
		if _, err := t.wait(ctx, host); err != nil {
			break // it is gone, or Reap meets its end
		}
	}
	t.forgetExit(host)
}

// back waits for the end of the middle process and brings the thread back to
// where it stood.
func (c *copying) back() error {
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	p, th := c.p, c.th
	var err error
	if c.middle != 0 {
		err = c.endMiddle(ctx)
	}
	if c.running {
		err = errors.Join(err, p.batch(ctx, th))
		c.running = false
	}
	err = errors.Join(err, p.own(th))
	if oerr := ptrace(ptraceSetOptions, th.HostTID, 0, p.options(freezeOptions)); err == nil && oerr != nil {
		err = fmt.Errorf("pid %d: PTRACE_SETOPTIONS: %w", p.pid, oerr)
	}
	return err
}

// killMiddle ends the middle process where it may stand still, and would not end by itself.
func (c *copying) killMiddle() {
	if c.middle != 0 {
		_ = unix.Kill(c.middle, unix.SIGKILL) // ESRCH: it has ended
	}
}

// endMiddle waits for the end of the middle process.
func (c *copying) endMiddle(ctx context.Context) error {
	for {
		_, err := c.p.tr.wait(ctx, c.middle)
		if errors.Is(err, errGone) {
			c.p.tr.forgetExit(c.middle)
			c.middle = 0
			return nil
		}
		if err != nil {
			return err
		}
		if err := cont(c.middle, 0); err != nil && err != unix.ESRCH {
			return err
		}
	}
}

// settle takes from the copy what it has in common with the program.
func (c *copying) settle(ctx context.Context) error {
	status, err := procfs.ReadStatus(c.copy.host)
	if err != nil {
		return err
	}
	if status.PPid != c.parent {
		return fmt.Errorf("pid %d: %w: process %d would be its parent", c.p.pid, ErrNoCopy, innerPID(status.PPid))
	}
	q, th := c.copy, c.copy.threads[0]
	q.pid, th.TID = status.InnerTGID(), status.InnerPID()
	q.inj = injection{base: c.p.inj.base, insn: c.p.inj.insn}
	if err := q.openMem(); err != nil {
		return err
	}
	q.copied = true
	if th.Regs, err = getRegs(th.HostTID); err != nil {
		return err
	}
	th.Regs.park(q.inj.base + blobPark)
	th.Mask, th.stopped = allSignals, true
	b := newArgs(q)
	err = b.flush(ctx, th, []call{
		// The descriptors are shared until here: nothing is closed (close_range(2)).
		sys(unix.SYS_CLOSE_RANGE, 0, lastFD, unix.CLOSE_RANGE_UNSHARE).as("close_range"),
		// Signals to the program's group are not for it.
		sys(unix.SYS_SETSID).as("setsid"),
		sys(unix.SYS_PRCTL, unix.PR_SET_NAME, b.str(copyName)).as("PR_SET_NAME"),
	})
	if err != nil {
		return err
	}
	// Where memory gets short, it must be the copy that ends.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", q.host), []byte(firstToBeEnded), 0)
	return nil
}

// endCopy ends a copy. It must not be called on any thread but the tracer's.
func (t *Tracer) endCopy(c *copying) {
	if c.copy == nil {
		return
	}
	host := c.copy.host
	c.copy.closeMem()
	if c.pidfd < 0 { // born this moment, and no child of ours yet that could have been waited for
		_ = unix.Kill(host, unix.SIGKILL)
	} else {
		c.kill()
		unix.Close(c.pidfd)
	}
	t.awaitEnd(host)
	delete(t.held, host)
	c.copy = nil
}

// kill ends the copy; its memory takes a while.
func (c *copying) kill() {
	_ = unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0) // ESRCH: somebody else has
}

// buryCopies waits until copies that were killed have given back their memory, some
// 50 ms for a GiB, for which the tracer's thread is not needed.
func (t *Tracer) buryCopies(dying []*copying) {
	for _, c := range dying {
		pidfdEnds(c.pidfd, breakOffTimeout)
	}
	_ = t.Do(func() error {
		for _, c := range dying {
			t.endCopy(c)
		}
		return nil
	})
	_ = faultpoint.At(faultpoint.CopiesEnded)
}

// AwaitCopies waits for the end of all copies that were killed.
func (t *Tracer) AwaitCopies() { t.ending.Wait() }

// forgetExit takes the end of what was no child of the program's off the list.
func (t *Tracer) forgetExit(pid int) {
	for i, e := range t.exits {
		if e.HostPID == pid {
			t.exits = append(t.exits[:i], t.exits[i+1:]...)
			return
		}
	}
}

// copySet is the copies that there are, by host id with a pidfd.
type copySet struct {
	mu    sync.Mutex
	pidfd map[int]int
}

// add enters a copy and returns another pidfd of it.
func (s *copySet) add(pid int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd == nil {
		s.pidfd = map[int]int{}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	s.pidfd[pid] = fd
	if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("dup of a pidfd: %w", err)
	}
	return fd, nil
}

// sweep forgets the copies that have ended.
func (s *copySet) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid := range s.pidfd {
		s.look(pid)
	}
}

// look says whether pid is a copy. One that ended is one until its parent has
// waited for it; then the id is free for others, and the pidfd tells no more.
func (s *copySet) look(pid int) bool {
	fd, ok := s.pidfd[pid]
	if !ok {
		return false
	}
	if errors.Is(unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH) {
		unix.Close(fd)
		delete(s.pidfd, pid)
		return false
	}
	return true
}

// IsCopy says whether a process is a copy that a checkpoint writes from: it
// is not of the program.
func (t *Tracer) IsCopy(pid int) bool {
	t.copies.mu.Lock()
	defer t.copies.mu.Unlock()
	return t.copies.look(pid)
}
