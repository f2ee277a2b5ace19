package proc

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// single runs one call in th by the entry and exit stops of PTRACE_SYSCALL:
// no memory of ours and no signal is needed. th stands in a PTRACE_EVENT_STOP
// with its own registers before and after. The call must be one that does not
// block.
func (p *Process) single(ctx context.Context, th *Thread, c call) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	r := th.Regs
	r.atSyscall(p.settleIn(th), c.nr, c.args)
	_ = faultpoint.At(faultpoint.CallPrepared)
	err := setRegs(th.HostTID, r)
	if err == nil {
		_ = faultpoint.At(faultpoint.CallRegisters)
		err = setSigmask(th.HostTID, allSignals)
	}
	if err == nil {
		_ = faultpoint.At(faultpoint.CallMasked)
		r, err = p.enterAndLeave(th)
	}
	_ = faultpoint.At(faultpoint.CallInterrupted)
	err = errors.Join(err, p.own(th))
	_ = faultpoint.At(faultpoint.CallOwn)
	if err = errors.Join(err, p.clearNest()); err != nil {
		return 0, fmt.Errorf("pid %d: inject %s: %w", p.pid, c.what, err)
	}
	c.ret = r.ret()
	return c.ret, c.err()
}

// settleIn returns the address of a system call instruction: one in the nest
// with the escape of th behind it, or where there is no nest, one of the
// target's own, behind which a tracer that dies within some 20 µs leaves it.
func (p *Process) settleIn(th *Thread) uint64 {
	if p.inj.nest == 0 {
		return p.inj.insn
	}
	n := len(syscallInsn)
	code := append(slices.Clone(syscallInsn), escapeCode(p.inj.nest+uint64(n), th.Regs, th.Mask)...)
	if err := p.writeMem(p.inj.nest, code); err != nil {
		p.inj.nest = 0 // the kernel forbids it: proc_mem.force_override, sealed mappings
		return p.inj.insn
	}
	return p.inj.nest
}

// clearNest takes away what settleIn has written.
func (p *Process) clearNest() error {
	if p.inj.nest == 0 {
		return nil
	}
	return p.writeMem(p.inj.nest, make([]byte, nestSize))
}

// enterAndLeave passes the entry and the exit stop of a system call, and
// returns the registers behind it with the thread in a PTRACE_EVENT_STOP: also
// where the caller's time is up.
func (p *Process) enterAndLeave(th *Thread) (Regs, error) {
	ctx, cancel := context.WithTimeout(context.Background(), breakOffTimeout)
	defer cancel()
	for _, step := range []faultpoint.Step{faultpoint.CallEntered, faultpoint.CallLeft} {
		if err := p.nextCallStop(ctx, th); err != nil {
			return Regs{}, err
		}
		_ = faultpoint.At(step)
	}
	r, err := getRegs(th.HostTID)
	if err != nil {
		return r, err
	}
	return r, p.interrupt(th)
}

// nextCallStop takes a thread to its next stop at a system call.
func (p *Process) nextCallStop(ctx context.Context, th *Thread) error {
	sig := syscall.Signal(0)
	for {
		if err := ptrace(unix.PTRACE_SYSCALL, th.HostTID, 0, uintptr(sig)); err != nil {
			return err
		}
		ws, err := p.tr.wait(ctx, th.HostTID)
		if err != nil {
			return err
		}
		if ws.StopSignal() == unix.SIGTRAP|0x80 {
			return nil
		}
		sig = stopOnly(ws)
	}
}

// findNest finds the room between the end of the vdso's image and the end of
// its last page: the one place in every process where code may lie without a
// mapping of ours. What is written there is taken away again; of the program's
// memory nothing else changes than that it has a copy of the vdso's last page.
func (p *Process) findNest(v procfs.VMA) {
	end, err := p.vdsoEnd(v)
	if err != nil {
		return
	}
	if at := (v.End - uint64(nestSize)) &^ 15; at >= end && at>>12 == (v.End-1)>>12 {
		p.inj.nest = at
	}
}

// vdsoEnd returns the end of the ELF image in the vdso's mapping: elf(5), the
// section headers, or the segments, whatever ends last.
func (p *Process) vdsoEnd(v procfs.VMA) (uint64, error) {
	b := make([]byte, v.Len())
	if err := p.readMem(v.Start, b); err != nil {
		return 0, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return 0, fmt.Errorf("vdso: %w", err)
	}
	const shoff, shentsize, shnum = 0x28, 0x3a, 0x3c // in Elf64_Ehdr
	end := le.Uint64(b[shoff:]) + uint64(le.Uint16(b[shentsize:]))*uint64(le.Uint16(b[shnum:]))
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS {
			end = max(end, s.Offset+s.FileSize)
		}
	}
	for _, s := range f.Progs {
		end = max(end, s.Off+s.Filesz)
	}
	return v.Start + end, nil
}

// nestSize is the size of one call and its escape.
var nestSize = len(syscallInsn) + len(escapeCode(0, Regs{}, 0)) + 16
