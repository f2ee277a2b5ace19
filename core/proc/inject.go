package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// call is one system call to inject.
type call struct {
	nr    uintptr
	args  [6]uint64
	flags uint64
	what  string // names the call in errors; optional

	ret int64
}

const (
	callStop = 1 // stop the batch if it fails
	callKeep = 2 // keep the result for arguments of later calls
	callSift = 4 // no system call: plugin.SiftRing
)

// sys returns a call that ends its batch if it fails.
func sys(nr uintptr, args ...uint64) call {
	c := call{nr: nr, flags: callStop}
	copy(c.args[:], args)
	return c
}

// may lets the batch go on when the call fails.
func (c call) may() call { c.flags &^= callStop; return c }

// keep makes the result available to fromKept.
func (c call) keep() call { c.flags |= callKeep; return c }

// fromKept takes argument i from the last kept result.
func (c call) fromKept(i int) call { c.flags |= uint64(i+1) << 8; return c }

// as names the call in errors.
func (c call) as(format string, a ...any) call {
	if c.what = format; len(a) > 0 {
		c.what = fmt.Sprintf(format, a...)
	}
	return c
}

// failed says whether the result is an error, and stopped whether the batch has ended for it.
func (c *call) failed() bool  { return c.ret < 0 && c.ret >= -4095 }
func (c *call) stopped() bool { return c.failed() && c.flags&callStop != 0 }

// err returns the error of the call.
func (c *call) err() error {
	if !c.failed() {
		return nil
	}
	what := c.what
	if what == "" {
		what = fmt.Sprintf("system call %d", c.nr)
	}
	return fmt.Errorf("%s: %w", what, syscall.Errno(-c.ret))
}

// record is a call as the blob reads it.
type record struct {
	nr    uint64
	args  [6]uint64
	ret   int64
	flags uint64
}

const (
	recordSize    = int(unsafe.Sizeof(record{}))
	recordPending = -1 << 40 // ret of a call that was not reached
)

func recordBytes(r []record) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r))), len(r)*recordSize)
}

// allSignals is the mask that blocks whatever can be blocked.
const allSignals = ^uint64(0)

func sigBit(sig syscall.Signal) uint64 { return 1 << (uint(sig) - 1) }

// announcers are the signals by which a thread may announce the end of a
// batch. A tracer sees them even where they are ignored, and their default
// action is to ignore them: a thread whose tracer dies with one under way goes
// on to its escape. SIGTRAP, which would end it, is the last resort.
var announcers = []syscall.Signal{unix.SIGWINCH, unix.SIGURG, unix.SIGCHLD, unix.SIGTRAP}

// announcer chooses a signal that is not pending, as a second one of its kind
// would be lost.
func (p *Process) announcer(th *Thread) (syscall.Signal, error) {
	taken := p.avoid
	for _, shared := range []bool{false, true} {
		pending, err := peekSignals(th.HostTID, shared)
		if err != nil {
			return 0, err
		}
		for _, si := range pending {
			taken |= sigBit(syscall.Signal(le.Uint32(si)))
		}
	}
	// One that the program has no handler for, if there is any: a tracer that
	// dies between the announcement and its stop leaves it to the program.
	harmless := announcers[:len(announcers)-1]
	for _, s := range harmless {
		if (taken|p.status.SigCgt)&sigBit(s) == 0 {
			return s, nil
		}
	}
	for _, s := range announcers {
		if taken&sigBit(s) == 0 {
			return s, nil
		}
	}
	return 0, fmt.Errorf("tid %d: no signal is free to announce the end of a batch", th.TID)
}

// injection is the state of one process that runs our system calls.
type injection struct {
	base  uint64   // of the blob; 0 where it is not mapped
	insn  uint64   // address of an instruction that enters the kernel
	nest  uint64   // room for a call with an escape, while the blob is not mapped; 0: none
	mem   *os.File // /proc/PID/mem
	birth func(child int)
}

func (in *injection) scratch() uint64 { return in.base + blobScratchOff }

// findInsn looks for a system call instruction: in the vdso, else in any
// executable mapping.
func (p *Process) findInsn() (uint64, error) {
	if v, ok := p.vdsoMapping(); ok { // without reading all of maps
		if a, ok := p.scanVdso(v); ok {
			return a, nil
		}
	}
	maps, err := procfs.ReadMaps(p.liveTID())
	if err != nil {
		return 0, fmt.Errorf("pid %d: %w", p.pid, err)
	}
	var other []procfs.VMA
	for _, v := range maps {
		switch {
		case v.Path == "[vdso]":
			if a, ok := p.scanVdso(v); ok {
				return a, nil
			}
		case v.Exec && v.Path != "[vsyscall]":
			other = append(other, v)
		}
	}
	for _, v := range other {
		if a, ok := p.scanInsn(v); ok {
			return a, nil
		}
	}
	return 0, fmt.Errorf("pid %d: no system call instruction in its memory", p.pid)
}

// vdsoMapping returns the vdso's mapping, if it is where execve(2) has put it and
// the kernel tells (PROCMAP_QUERY).
func (p *Process) vdsoMapping() (v procfs.VMA, ok bool) {
	const sysinfoEhdr = 33 // AT_SYSINFO_EHDR, getauxval(3)
	auxv, err := procfs.Auxv(p.liveTID())
	for ; err == nil && len(auxv) >= 16; auxv = auxv[16:] {
		if le.Uint64(auxv) == sysinfoEhdr {
			v, err = procfs.MappingAt(p.liveTID(), le.Uint64(auxv[8:]))
			return v, err == nil && v.Path == "[vdso]"
		}
	}
	return v, false
}

// scanVdso is scanInsn of the vdso, which has room for the nest too.
func (p *Process) scanVdso(v procfs.VMA) (uint64, bool) {
	p.findNest(v)
	return p.scanInsn(v)
}

func (p *Process) scanInsn(v procfs.VMA) (uint64, bool) {
	buf := make([]byte, min(v.Len(), 1<<20))
	if err := p.readMem(v.Start, buf); err != nil {
		return 0, false
	}
	for off := 0; ; {
		i := bytes.Index(buf[off:], syscallInsn)
		if i < 0 {
			return 0, false
		}
		if a := v.Start + uint64(off+i); a%uint64(insnAlign) == 0 {
			return a, true
		}
		off += i + 1
	}
}

// stopOnly returns SIGSTOP for a stop by it, which is the program's and cannot
// be blocked: passed on, it takes effect when the thread is let go.
func stopOnly(ws unix.WaitStatus) syscall.Signal {
	if event(ws) == 0 && ws.StopSignal() == unix.SIGSTOP {
		return unix.SIGSTOP
	}
	return 0
}

// interrupt brings th from any stop to a PTRACE_EVENT_STOP without running
// its code.
func (p *Process) interrupt(th *Thread) error {
	if err := ptrace(ptraceInterrupt, th.HostTID, 0, 0); err != nil {
		return err
	}
	if err := cont(th.HostTID, 0); err != nil {
		return err
	}
	return p.settle(th)
}

// settle continues th, which has a PTRACE_INTERRUPT to come, to its
// PTRACE_EVENT_STOP. A stop of another kind that comes first takes the request
// with it (kernel/signal.c, ptrace_stop: any trap clears a pending STOP trap).
func (p *Process) settle(th *Thread) error {
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	for {
		ws, err := p.tr.wait(ctx, th.HostTID)
		if err != nil {
			return err
		}
		if event(ws) == eventStop {
			return nil
		}
		err = p.setAside(th, ws, false)
		if err == nil {
			err = ptrace(ptraceInterrupt, th.HostTID, 0, 0)
		}
		if err == nil {
			err = cont(th.HostTID, stopOnly(ws))
		}
		if err != nil {
			return err
		}
	}
}

// setAside keeps a signal that came in while th ran our code, and is not our own, until
// the thread is let go. At the end of a batch one that says nothing of its sender is the
// announcement, for which there was no siginfo_t: RLIMIT_SIGPENDING is used up
// (kernel/signal.c, collect_signal).
func (p *Process) setAside(th *Thread, ws unix.WaitStatus, end bool) error {
	sig := ws.StopSignal()
	if event(ws) != 0 || sig == unix.SIGSTOP || sig&0x80 != 0 {
		return nil
	}
	si, err := getSiginfo(th.HostTID)
	if err != nil {
		return err
	}
	code, sender := int32(le.Uint32(si[siCodeOff:])), int(le.Uint32(si[siPidOff:]))
	if code == siTkill && sender == p.pid || end && code == siUser && sender == 0 {
		return nil
	}
	th.aside = append(th.aside, sig)
	return nil
}

// own gives th its own mask and registers, in this order: a tracer that dies
// between the two leaves a thread that still goes to its escape.
func (p *Process) own(th *Thread) error {
	if th.alone() {
		return nil
	}
	err := setSigmask(th.HostTID, th.Mask)
	_ = faultpoint.At(faultpoint.MaskOwn)
	return errors.Join(err, setRegs(th.HostTID, th.Regs), th.ownVector())
}

// remote is an address that is far from a program's mappings: between those by the
// heap and those by the stack, of which the vdso is one. A blob whose agent died must
// not be in the way of a mapping that grows: the kernel's own choice would be right
// under the guard gap of one with MAP_GROWSDOWN, mmap(2).
func (p *Process) remote() uint64 { return p.inj.insn / 4 * 3 &^ uint64(os.Getpagesize()-1) }

// mapBlob maps the blob at address at, or if that is 0 where it is in nobody's way.
func (p *Process) mapBlob(ctx context.Context, at uint64) error {
	flags := uint64(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)
	if at != 0 {
		flags |= unix.MAP_FIXED_NOREPLACE
	} else {
		at = p.remote()
	}
	prot := uint64(unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC)
	one := func(at, size, prot, flags uint64) (uint64, error) {
		base, err := p.single(ctx, p.threads[0], sys(unix.SYS_MMAP, at, size, prot, flags, ^uint64(0), 0).as("mmap"))
		return uint64(base), err
	}
	base, err := one(at, blobSize, prot, flags)
	if errors.Is(err, unix.EACCES) { // PR_SET_MDWE(2const): nothing is writable and executable
		base, err = one(at, blobSize, unix.PROT_READ|unix.PROT_WRITE, flags)
		for _, code := range []uint64{0, blobEscapeOff} {
			if err == nil {
				p.inj.base = base // to be unmapped
				_, err = one(base+code, blobCodeSize, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
			}
		}
	}
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) {
		return refuse(p, "address space", "its limits (getrlimit(2), RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK), or vm.max_map_count, "+
			"leave no room for the %d KiB that a checkpoint maps for a moment", blobSize>>10)
	}
	if err != nil {
		return err
	}
	p.inj.base = base
	if err := p.openMem(); err != nil {
		return err
	}
	return p.writeMem(p.inj.base, blobCode())
}

// unmapBlob takes the blob away. The process needs no more of us then.
func (p *Process) unmapBlob(ctx context.Context) error {
	if p.inj.base == 0 {
		return nil
	}
	_, err := p.single(ctx, p.threads[0], sys(unix.SYS_MUNMAP, p.inj.base, blobSize).as("munmap"))
	if err == nil {
		p.inj.base = 0
	}
	return err
}

// run executes calls in th, in as few stops as their number allows, and
// returns the error of the first that fails and may not.
func (p *Process) run(ctx context.Context, th *Thread, calls []call) error {
	for len(calls) > 0 {
		n := min(len(calls), maxRecords)
		if err := p.runChunk(ctx, th, calls[:n]); err != nil {
			return fmt.Errorf("pid %d tid %d: inject: %w", p.pid, th.TID, err)
		}
		for i := range calls[:n] {
			c := &calls[i]
			if c.stopped() {
				return fmt.Errorf("pid %d tid %d: %w", p.pid, th.TID, c.err())
			}
		}
		calls = calls[n:]
	}
	return nil
}

func (p *Process) runChunk(ctx context.Context, th *Thread, calls []call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	recs := make([]record, len(calls))
	for i, c := range calls {
		recs[i] = record{nr: uint64(c.nr), args: c.args, flags: c.flags, ret: recordPending}
	}
	at := p.inj.base + blobRecordsOff
	if err := p.writeMem(at, recordBytes(recs)); err != nil {
		return err
	}
	err := p.arm(th, blobBatch, at, len(recs))
	if err == nil {
		_ = faultpoint.At(faultpoint.BatchMasked)
		err = p.batch(ctx, th)
	}
	_ = faultpoint.At(faultpoint.BatchEnded)
	if err = errors.Join(err, p.own(th)); err != nil {
		return err
	}
	if err := p.readMem(at, recordBytes(recs)); err != nil {
		return err
	}
	for i := range recs {
		calls[i].ret = recs[i].ret
	}
	return reachedEnd(calls)
}

// arm sets th to run the blob from entry as soon as it is continued. The
// caller calls own in the end, on error too.
func (p *Process) arm(th *Thread, entry, args uint64, n int) error {
	escape := p.inj.base + blobEscapeOff
	if err := p.writeMem(escape, escapeCode(escape, th.Regs, th.Mask)); err != nil {
		return err
	}
	announce, err := p.announcer(th)
	if err != nil {
		return err
	}
	_ = faultpoint.At(faultpoint.BatchPrepared)
	r := th.Regs
	r.atBatch(p.inj.base+entry, args, n, p.pid, th.TID, announce, escape)
	if err := setRegs(th.HostTID, r); err != nil {
		return err
	}
	_ = faultpoint.At(faultpoint.BatchRegisters)
	// The mask last: until then the thread would go on unharmed.
	return setSigmask(th.HostTID, ^sigBit(announce))
}

// reachedEnd makes sure that only a failed call has ended a batch.
func reachedEnd(calls []call) error {
	for i := range calls {
		c := &calls[i]
		if c.ret == recordPending {
			return errors.New("the batch ended early")
		}
		if c.stopped() {
			return nil
		}
	}
	return nil
}

// batch lets th run until it announces the end, and brings it to a
// PTRACE_EVENT_STOP. When ctx ends first it is interrupted.
func (p *Process) batch(ctx context.Context, th *Thread) error {
	sig := syscall.Signal(0)
	for {
		if err := cont(th.HostTID, sig); err != nil {
			return err
		}
		_ = faultpoint.At(faultpoint.BatchRunning)
		ws, err := p.tr.wait(ctx, th.HostTID)
		if ctx.Err() != nil && err != nil && !errors.Is(err, errGone) {
			return errors.Join(err, p.breakOff(th))
		}
		if err != nil {
			return err
		}
		sig = stopOnly(ws)
		switch ev := event(ws); {
		case ev == unix.PTRACE_EVENT_CLONE || ev == unix.PTRACE_EVENT_FORK || ev == unix.PTRACE_EVENT_VFORK:
			child, err := getEventMsg(th.HostTID)
			if err != nil {
				return err
			}
			if p.inj.birth != nil {
				p.inj.birth(child)
			}
		case ev != 0 || sig != 0: // a group stop, in effect or to come: the calls go on
		case isFault(ws.StopSignal()):
			return fmt.Errorf("unexpected stop %#x", uint32(ws))
		default:
			end, err := p.announced(th, ws)
			if err != nil {
				return err
			}
			if end {
				_ = faultpoint.At(faultpoint.BatchAnnounced)
				return p.interrupt(th)
			}
		}
	}
}

// announced says whether th has come to the end of the batch. A signal of
// another, sent meanwhile, is set aside.
func (p *Process) announced(th *Thread, ws unix.WaitStatus) (bool, error) {
	r, err := getRegs(th.HostTID)
	if err != nil {
		return false, err
	}
	end := r.PC() == p.inj.base+uint64(blobEnd())
	return end, p.setAside(th, ws, end)
}

// isFault says whether a signal is the kernel's word for a fault of our code.
func isFault(sig syscall.Signal) bool {
	return sig == unix.SIGSEGV || sig == unix.SIGBUS || sig == unix.SIGILL || sig == unix.SIGFPE || sig == unix.SIGSYS
}

// breakOff interrupts a call that does not return.
func (p *Process) breakOff(th *Thread) error {
	if err := ptrace(ptraceInterrupt, th.HostTID, 0, 0); err != nil {
		return err
	}
	return p.settle(th)
}
