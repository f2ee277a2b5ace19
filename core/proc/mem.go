package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (p *Process) openMem() error {
	if p.inj.mem != nil {
		return nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.liveTID()), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.pid, err)
	}
	p.inj.mem = f
	return nil
}

// apart is p for accesses to its memory that leave nothing open in p: closeMem ends them.
func (p *Process) apart() *Process {
	return &Process{pid: p.pid, host: p.host, tr: p.tr, threads: p.threads, late: p.late}
}

// readMem fills buf from the address addr. process_vm_readv is the fast way;
// /proc/PID/mem reads what the process itself may not (PROT_NONE). Of a copy it is the
// faster one: process_vm_readv pins pages, before which each that is shared is copied
// (mm/gup.c, gup_must_unshare), and huge ones are split.
func (p *Process) readMem(addr uint64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	if err := p.bring(addr, len(buf)); err != nil {
		return err
	}
	if !p.copied && p.readPinned(addr, buf) {
		return nil
	}
	if err := p.openMem(); err != nil {
		return err
	}
	if err := p.force(addr, buf, p.inj.mem.ReadAt, unix.PtracePeekData); err != nil {
		return fmt.Errorf("pid %d: read memory at %#x: %w", p.pid, addr, unwrapPath(err))
	}
	return nil
}

// peek says whether it could fill b from the memory of p, and leaves nothing open.
func (p *Process) peek(addr uint64, b []byte) bool {
	q := p.apart()
	defer q.closeMem()
	return q.readMem(addr, b) == nil
}

// readPinned says whether process_vm_readv(2) could read all.
func (p *Process) readPinned(addr uint64, buf []byte) bool {
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	n, err := unix.ProcessVMReadv(p.liveTID(), local, remote, 0)
	return err == nil && n == len(buf)
}

func (p *Process) writeMem(addr uint64, buf []byte) error {
	if err := p.bring(addr, len(buf)); err != nil {
		return err
	}
	if err := p.openMem(); err != nil {
		return err
	}
	if err := p.force(addr, buf, p.inj.mem.WriteAt, unix.PtracePokeData); err != nil {
		return fmt.Errorf("pid %d: write memory at %#x: %w", p.pid, addr, unwrapPath(err))
	}
	return nil
}

// force reads or writes what the process itself may not. A kernel may let only the
// tracer's thread do so by /proc/PID/mem, as Debian's do, or nobody
// (proc_mem.force_override of 6.12 and later; fs/proc/base.c, proc_mem_foll_force):
// ptrace(2) still does, word for word.
func (p *Process) force(addr uint64, buf []byte, access func(b []byte, off int64) (int, error), words func(tid int, addr uintptr, b []byte) (int, error)) error {
	_, err := access(buf, int64(addr))
	if !errors.Is(err, unix.EIO) {
		return err
	}
	return p.tr.Do(func() error {
		if _, err := access(buf, int64(addr)); !errors.Is(err, unix.EIO) {
			return err
		}
		_, err := words(p.liveTID(), uintptr(addr), buf)
		return err
	})
}

// fillMem is writeMem for much at a time: process_vm_writev takes many pages in
// one step, but writes nothing that the process itself may not.
func (p *Process) fillMem(addr uint64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	if err := p.bring(addr, len(buf)); err != nil {
		return err
	}
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}
	n, err := unix.ProcessVMWritev(p.liveTID(), local, remote, 0)
	if err == nil && n == len(buf) {
		return nil
	}
	return p.writeMem(addr, buf)
}

// bring has memory come that is still missing: the agent's accesses are no faults
// that it could answer.
func (p *Process) bring(addr uint64, n int) error {
	if p.late == nil {
		return nil
	}
	return p.late.bring(addr, addr+uint64(n))
}

func unwrapPath(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (p *Process) closeMem() {
	if p.inj.mem != nil {
		p.inj.mem.Close()
		p.inj.mem = nil
	}
}
