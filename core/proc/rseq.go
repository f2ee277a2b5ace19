package proc

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Before Linux 5.13 no PTRACE_GET_RSEQ_CONFIGURATION tells where a thread has
// its restartable sequences, rseq(2). The thread itself can find out: to
// unregister them under a wrong signature is EPERM at the right address, and
// EINVAL at any other (kernel/rseq.c). Libraries have them in the static TLS
// block, beside the thread pointer.
const (
	rseqAlign      = 32 // of struct rseq, and its size on those kernels
	rseqUnregister = 1  // RSEQ_FLAG_UNREGISTER
	rseqNone       = 0x48694174
	rseqBefore     = 32 << 10 // how far from the thread pointer it is looked for
	rseqBehind     = 4 << 10
)

// rseqOf returns where a thread has its restartable sequences.
func (p *Process) rseqOf(ctx context.Context, th *Thread) (Rseq, error) {
	rs, err := getRseq(th.HostTID)
	if !errors.Is(err, unix.EIO) {
		return rs, err
	}
	tls, err := threadPointer(th)
	if err != nil || tls == 0 {
		return Rseq{}, err
	}
	tls &^= rseqAlign - 1
	if p.rseqOff != 0 { // the same in most threads of a process
		if at, err := p.probeRseq(ctx, th, tls+p.rseqOff, tls+p.rseqOff); err != nil || at != 0 {
			return p.signRseq(ctx, th, at, err)
		}
	}
	at, err := p.probeRseq(ctx, th, tls-rseqBefore, tls+rseqBehind)
	if at != 0 {
		p.rseqOff = at - tls
	}
	return p.signRseq(ctx, th, at, err)
}

// probeRseq asks at each address from first to last, and returns the right one,
// or 0.
func (p *Process) probeRseq(ctx context.Context, th *Thread, first, last uint64) (uint64, error) {
	var calls []call
	for at := first; at <= last; at += rseqAlign {
		calls = append(calls, sys(unix.SYS_RSEQ, at, rseqAlign, rseqUnregister, rseqNone).may())
	}
	if err := p.run(ctx, th, calls); err != nil {
		return 0, err
	}
	for i := range calls {
		if calls[i].ret == -int64(unix.EPERM) {
			return calls[i].args[0], nil
		}
	}
	return 0, nil
}

// signRseq makes sure that the signature is the one all libraries use.
func (p *Process) signRseq(ctx context.Context, th *Thread, at uint64, err error) (Rseq, error) {
	if err != nil || at == 0 {
		return Rseq{}, err
	}
	calls := []call{
		sys(unix.SYS_RSEQ, at, rseqAlign, rseqUnregister, rseqSignature).may(),
		sys(unix.SYS_RSEQ, at, rseqAlign, 0, rseqSignature).may(),
	}
	if err := p.run(ctx, th, calls); err != nil {
		return Rseq{}, err
	}
	if calls[0].failed() {
		return Rseq{}, refuse(p, fmt.Sprintf("thread %d", th.TID),
			"its restartable sequences (rseq(2)) have a signature of their own, which a kernel before Linux 5.13 does not tell")
	}
	if err := calls[1].err(); err != nil {
		return Rseq{}, fmt.Errorf("pid %d tid %d: register restartable sequences again: %w", p.pid, th.TID, err)
	}
	return Rseq{Addr: at, Size: rseqAlign, Sig: rseqSignature}, nil
}

// criticalSection returns the address of the pointer to the restartable
// sequence that th is in, and the handler at which it is aborted; 0 where it is
// in none.
func (p *Process) criticalSection(th *Thread) (ptr, abort uint64) {
	const csOff = 8 // offsetof(struct rseq, rseq_cs)
	rs, err := getRseq(th.HostTID)
	if err == nil {
		var cs [8]byte
		if rs.Addr == 0 || p.readMem(rs.Addr+csOff, cs[:]) != nil {
			return 0, 0 // the program has unmapped it: the kernel would kill it for that later
		}
		return rs.Addr + csOff, p.abortOf(th, le.Uint64(cs[:]), rs.Sig)
	}
	if _, in := th.Regs.SyscallNr(); in || !errors.Is(err, unix.EIO) {
		return 0, 0
	}
	// Nothing may be injected before the thread is out of it: the memory in
	// which the pointer lies tells as much. That what looks like a pointer is one
	// the signature proves, which the kernel demands too (rseq_get_rseq_cs).
	tls, err := threadPointer(th)
	if err != nil || tls == 0 {
		return 0, 0
	}
	start := tls&^(rseqAlign-1) - rseqBefore
	around := p.readPages(start, rseqBefore+rseqBehind+rseqAlign)
	for off := uint64(0); off < uint64(len(around)); off += rseqAlign {
		if abort := p.abortOf(th, le.Uint64(around[off+csOff:]), rseqSignature); abort != 0 {
			return start + off + csOff, abort
		}
	}
	return 0, 0
}

// readPages reads size bytes, with zeros where nothing is mapped.
func (p *Process) readPages(addr uint64, size int) []byte {
	b := make([]byte, size)
	page := os.Getpagesize()
	for rest := b; len(rest) > 0; {
		n := min(page-int(addr)%page, len(rest))
		_ = p.readMem(addr, rest[:n])
		addr, rest = addr+uint64(n), rest[n:]
	}
	return b
}

// abortOf returns the abort handler of the sequence that cs describes, where th
// is in it, else 0. The signature stands before the handler.
func (p *Process) abortOf(th *Thread, cs uint64, signature uint32) uint64 {
	var b [32]byte // struct rseq_cs, aligned to its size: version and flags, start, length, abort handler
	if cs == 0 || cs%uint64(len(b)) != 0 || p.readMem(cs, b[:]) != nil {
		return 0
	}
	start, length, abort := le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	if le.Uint32(b[:]) != 0 || th.Regs.PC()-start >= length || abort-start < length {
		return 0
	}
	var signed [4]byte
	if p.readMem(abort-uint64(len(signed)), signed[:]) != nil || le.Uint32(signed[:]) != signature {
		return 0
	}
	return abort
}
