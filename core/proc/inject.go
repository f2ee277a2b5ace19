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
func (c call) as(format string, a ...any) call { c.what = fmt.Sprintf(format, a...); return c }

// err returns the error of the call.
func (c *call) err() error {
	if c.ret >= 0 || c.ret < -4095 {
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

// injMask blocks every signal but SIGTRAP, which announces the end of a batch.
const injMask = ^uint64(1 << (uint(unix.SIGTRAP) - 1))

// injection is the state of one process that runs our system calls.
type injection struct {
	base  uint64   // of the blob; 0 where it is not mapped
	insn  uint64   // address of an instruction that enters the kernel
	mem   *os.File // /proc/PID/mem
	birth func(child int)
}

func (in *injection) scratch() uint64 { return in.base + blobScratchOff }

// findInsn looks for a system call instruction: in the vdso, else in any
// executable mapping.
func (p *Process) findInsn(maps []procfs.VMA) (uint64, error) {
	var other []procfs.VMA
	for _, v := range maps {
		switch {
		case v.Path == "[vdso]":
			if a, ok := p.scanInsn(v); ok {
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

// single runs one call in th with the target's own instruction, by the entry
// and exit stops of PTRACE_SYSCALL: no memory of ours and no SIGTRAP, whose
// disposition it could change, are needed. th stands in a PTRACE_EVENT_STOP
// with its own registers before and after.
func (p *Process) single(ctx context.Context, th *Thread, c call) (int64, error) {
	if err := setSigmask(th.HostTID, injMask); err != nil {
		return 0, err
	}
	r := th.Regs
	r.atSyscall(p.inj.insn, c.nr, c.args)
	err := setRegs(th.HostTID, r)
	if err == nil {
		r, err = p.enterAndLeave(ctx, th)
	}
	if err2 := p.own(th); err == nil {
		err = err2
	}
	if err != nil {
		return 0, fmt.Errorf("pid %d: inject %s: %w", p.pid, c.what, err)
	}
	c.ret = r.ret()
	return c.ret, c.err()
}

// enterAndLeave passes the entry and the exit stop of a system call, and
// returns the registers behind it with the thread in a PTRACE_EVENT_STOP.
func (p *Process) enterAndLeave(ctx context.Context, th *Thread) (Regs, error) {
	for stops := 0; stops < 2; {
		if err := ptrace(unix.PTRACE_SYSCALL, th.HostTID, 0, 0); err != nil {
			return Regs{}, err
		}
		ws, err := p.tr.wait(ctx, th.HostTID)
		if err != nil {
			return Regs{}, err
		}
		if ws.StopSignal() == unix.SIGTRAP|0x80 {
			stops++
		}
	}
	r, err := getRegs(th.HostTID)
	if err != nil {
		return r, err
	}
	return r, p.interrupt(ctx, th)
}

// interrupt brings th from any stop to a PTRACE_EVENT_STOP without running
// its code.
func (p *Process) interrupt(ctx context.Context, th *Thread) error {
	if err := ptrace(ptraceInterrupt, th.HostTID, 0, 0); err != nil {
		return err
	}
	if err := cont(th.HostTID, 0); err != nil {
		return err
	}
	_, err := p.tr.stopAt(ctx, th.HostTID)
	return err
}

// own gives th its own registers and mask.
func (p *Process) own(th *Thread) error {
	return errors.Join(setRegs(th.HostTID, th.Regs), setSigmask(th.HostTID, th.Mask))
}

// mapBlob maps the blob at address at, or anywhere if that is 0.
func (p *Process) mapBlob(ctx context.Context, at uint64) error {
	flags := uint64(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)
	if at != 0 {
		flags |= unix.MAP_FIXED_NOREPLACE
	}
	prot := uint64(unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC)
	base, err := p.single(ctx, p.threads[0], sys(unix.SYS_MMAP, at, blobSize, prot, flags, ^uint64(0), 0).as("mmap"))
	if err != nil {
		return err
	}
	p.inj.base = uint64(base)
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
			if err := c.err(); err != nil && c.flags&callStop != 0 {
				return fmt.Errorf("pid %d tid %d: %w", p.pid, th.TID, err)
			}
		}
		calls = calls[n:]
	}
	return nil
}

func (p *Process) runChunk(ctx context.Context, th *Thread, calls []call) error {
	recs := make([]record, len(calls))
	for i, c := range calls {
		recs[i] = record{nr: uint64(c.nr), args: c.args, flags: c.flags, ret: recordPending}
	}
	at := p.inj.base + blobRecordsOff
	escape := p.inj.base + blobEscapeOff
	if err := p.writeMem(at, recordBytes(recs)); err != nil {
		return err
	}
	if err := p.writeMem(escape, escapeCode(escape, th.Regs, th.Mask)); err != nil {
		return err
	}
	if err := setSigmask(th.HostTID, injMask); err != nil {
		return err
	}
	r := th.Regs
	r.atBatch(p.inj.base+blobBatch, at, len(recs), p.pid, th.TID, escape)
	err := setRegs(th.HostTID, r)
	if err == nil {
		err = p.batch(ctx, th)
	}
	if err = errors.Join(err, p.own(th)); err != nil {
		return err
	}
	if err := p.readMem(at, recordBytes(recs)); err != nil {
		return err
	}
	for i := range recs {
		calls[i].ret = recs[i].ret
	}
	return nil
}

// batch lets th run until it announces the end, and brings it to a
// PTRACE_EVENT_STOP. When ctx ends first it is interrupted.
func (p *Process) batch(ctx context.Context, th *Thread) error {
	for {
		if err := cont(th.HostTID, 0); err != nil {
			return err
		}
		ws, err := p.tr.wait(ctx, th.HostTID)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return errors.Join(err, p.breakOff(th))
		}
		if err != nil {
			return err
		}
		switch ev := event(ws); {
		case ev == unix.PTRACE_EVENT_CLONE || ev == unix.PTRACE_EVENT_FORK || ev == unix.PTRACE_EVENT_VFORK:
			child, err := getEventMsg(th.HostTID)
			if err != nil {
				return err
			}
			if p.inj.birth != nil {
				p.inj.birth(child)
			}
		case ev != 0: // a group stop in effect: the call goes on
		case ws.StopSignal() == unix.SIGTRAP:
			return p.interrupt(ctx, th)
		default:
			return fmt.Errorf("unexpected stop %#x", uint32(ws))
		}
	}
}

// breakOff interrupts a call that does not return.
func (p *Process) breakOff(th *Thread) error {
	if err := ptrace(ptraceInterrupt, th.HostTID, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	_, err := p.tr.stopAt(ctx, th.HostTID)
	return err
}
