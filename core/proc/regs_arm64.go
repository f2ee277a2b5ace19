package proc

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Regs are the general registers: struct user_pt_regs.
//
// At a stop the kernel has already taken an interrupted call back: pc is at
// the svc instruction again and x0 is the first argument (arch/arm64/kernel/
// signal.c, do_signal), so that the thread simply goes on to issue it. A
// relative sleep begins anew.
type Regs struct {
	X      [31]uint64 `json:"x"`
	Sp     uint64     `json:"sp"`
	Pc     uint64     `json:"pc"`
	Pstate uint64     `json:"pstate"`
}

const (
	arch      = "arm64"
	ntPrfpreg = 2
	ntArmTLS  = 0x401
	nrNone    = ^uint64(0)
	insnAlign = 4
)

// syscallInsn is svc #0.
var syscallInsn = []byte{0x01, 0x00, 0x00, 0xd4}

// escapeJump is br x24, by which a batch ends.
var escapeJump = []byte{0x00, 0x03, 0x1f, 0xd6}

// extraNotes are the register sets beside the general ones, with the room to
// read each.
var extraNotes = []struct {
	note uint32
	room int
}{{ntPrfpreg, 528}, {ntArmTLS, 16}}

func (r *Regs) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r))
}

// PC returns the program counter.
func (r *Regs) PC() uint64 { return r.Pc }

func (r *Regs) setPC(a uint64) { r.Pc = a }

// SyscallNr returns false: the call has been taken back.
func (r *Regs) SyscallNr() (uint64, bool) { return nrNone, false }

func (r *Regs) setSyscallNr(uint64) {}

// ret returns the result of the system call, a negative errno on failure.
func (r *Regs) ret() int64 { return int64(r.X[0]) }

func (r *Regs) setRet(v int64) { r.X[0] = uint64(v) }

func (r *Regs) arg(i int) uint64 { return r.X[i] }

func (r *Regs) setArg(i int, v uint64) { r.X[i] = v }

// atSyscall sets the registers to run one system call with the instruction at
// insn.
func (r *Regs) atSyscall(insn uint64, nr uintptr, args [6]uint64) {
	r.Pc, r.X[8] = insn, uint64(nr)
	copy(r.X[:], args[:])
}

// atBatch sets the registers to run n records in the blob.
func (r *Regs) atBatch(entry, records uint64, n int, tgid, tid int, announce syscall.Signal, escape uint64) {
	r.Pc = entry
	r.X[19], r.X[20], r.X[21] = records, uint64(n), 0
	r.X[22], r.X[23], r.X[24] = uint64(tgid)|uint64(announce)<<32, uint64(tid), escape
}

// setKept sets what a batch keeps of a result.
func (r *Regs) setKept(v uint64) { r.X[21] = v }

// atReaper sets the registers to run the reaper of the blob.
func (r *Regs) atReaper(entry, scratch uint64, report int) {
	r.Pc, r.X[19], r.X[20] = entry, scratch, uint64(report)
}

// park sets the registers to wait in the pause loop of the blob.
func (r *Regs) park(entry uint64) { r.Pc = entry }

// rseqSignature is RSEQ_SIG, which stands before abort handlers.
const rseqSignature = 0xd428bc00

// threadPointer returns the address by which a thread finds its own data.
func threadPointer(th *Thread) (uint64, error) {
	b := make([]byte, 16)
	if _, err := getRegset(th.HostTID, ntArmTLS, b); err != nil {
		return 0, fmt.Errorf("tid %d: read the thread pointer: %w", th.TID, err)
	}
	return le.Uint64(b), nil
}

// rerun has nothing to do: see Regs.
func (r *Regs) rerun() {}

// enter is not called: see Regs.
func (r *Regs) enter() {}

// interrupted is false: see Regs.
func (r *Regs) interrupted() bool { return false }

// restartNr is the number of restart_syscall(2).
const restartNr = unix.SYS_RESTART_SYSCALL

// escapeCode is machine code for addr that gives the thread its registers and
// mask back without a tracer, but for x17, which holds the address to go to:
// code of its own would hold nothing in it across a call (AAPCS64, IP1).
func escapeCode(addr uint64, r Regs, mask uint64) []byte {
	const dataOff = 256
	var code, data []byte
	emit := func(insn uint32) { code = le.AppendUint32(code, insn) }
	literal := func(reg int, v uint64) { // ldr Xreg, literal
		off := uint32(dataOff+len(data)-len(code)) / 4
		emit(0x58000000 | off<<5 | uint32(reg))
		data = le.AppendUint64(data, v)
	}
	movz := func(reg int, v uint32) { emit(0xd2800000 | v<<5 | uint32(reg)) }
	movz(8, unix.SYS_RT_SIGPROCMASK)
	movz(0, 2) // SIG_SETMASK
	literal(1, addr+dataOff+8)
	data = le.AppendUint64(data, mask)
	movz(2, 0)
	movz(3, 8)
	emit(0xd4000001) // svc #0
	literal(17, r.Sp)
	emit(0x9100023f) // mov sp, x17
	literal(17, r.Pstate)
	emit(0xd51b4211) // msr nzcv, x17
	for i, v := range r.X {
		if i != 17 {
			literal(i, v)
		}
	}
	literal(17, r.Pc)
	emit(0xd61f0220) // br x17
	return append(append(code, make([]byte, dataOff-len(code))...), data...)
}
