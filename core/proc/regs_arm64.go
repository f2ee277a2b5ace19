package proc

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Regs are the general registers: struct user_pt_regs, and behind it what the
// kernel knows of a system call. In a call pc is behind its instruction, x8 is its
// number and x0 the result, which may be one that tells how it is restarted.
type Regs struct {
	X      [31]uint64 `json:"x"`
	Sp     uint64     `json:"sp"`
	Pc     uint64     `json:"pc"`
	Pstate uint64     `json:"pstate"`

	InCall bool   `json:"in_call,omitempty"`
	First  uint64 `json:"first,omitempty"` // argument of the call

	entering bool // the thread is at the entry of the call that x8 tells
}

// userRegs is the size of struct user_pt_regs.
const userRegs = 34 * 8

const (
	arch      = "arm64"
	nrNone    = ^uint64(0)
	insnAlign = 4

	// btypeMask is PSTATE.BTYPE: the last instruction was an indirect branch.
	btypeMask = 3 << 10
)

// Register sets, include/uapi/linux/elf.h.
const (
	ntPrfpreg    = 2
	ntArmTLS     = 0x401
	ntArmCall    = 0x404 // number of the system call
	ntArmSVE     = 0x405
	ntArmPacA    = 0x407 // keys of instructions and data
	ntArmPacG    = 0x408 // key of generic signatures
	ntArmPacOn   = 0x40a // which keys are in use
	ntArmSSVE    = 0x40b
	ntArmZA      = 0x40c
	ntArmFPMR    = 0x40e
	ntArmPOE     = 0x40f
	ntArmGCS     = 0x410
	sveHeader    = 16 // struct user_sve_header, and user_za_header
	sveFlagsOff  = 12
	sveVLOff     = 8
	sveHasVector = 1 // SVE_PT_REGS_SVE
)

// syscallInsn is svc #0.
var syscallInsn = []byte{0x01, 0x00, 0x00, 0xd4}

// escapeJump is br x24, by which a batch ends.
var escapeJump = []byte{0x00, 0x03, 0x1f, 0xd6}

// extraNotes are the register sets that are kept beside the general ones. The
// kernel gives each program keys of its own, by which it signs pointers.
var extraNotes = []regsetNote{
	{ntPrfpreg, 528, false}, {ntArmTLS, 16, false}, {ntArmSVE, 16 << 10, true},
	{ntArmPacA, 64, true}, {ntArmPacG, 16, true}, {ntArmPacOn, 8, true},
	{ntArmFPMR, 8, true}, {ntArmPOE, 8, true},
}

// vectorOf returns the vector registers of a thread that has them in use: at
// the entry of each call the kernel drops what of them is longer than 128 bits
// (Documentation/arch/arm64/sve.rst, 3), which is no matter of a call of its own.
func vectorOf(tid int) ([]byte, error) {
	room := scratch.Get().(*[scratchSize]byte)
	defer scratch.Put(room)
	n, err := getRegset(tid, ntArmSVE, room[:])
	if isNoRegset(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tid %d: read the vector registers: %w", tid, err)
	}
	if set := room[:usedOf(ntArmSVE, room[:n])]; hasVector(set) {
		return slices.Clone(set), nil
	}
	return nil, nil
}

// usedOf is how much of a register set counts: what is behind the size that SVE
// begins with is room for longer vectors.
func usedOf(note uint32, set []byte) int {
	if note == ntArmSVE && len(set) > sveHeader {
		return min(len(set), int(le.Uint32(set)))
	}
	return len(set)
}

// hasVector says whether a set of SVE is in the format of SVE: else it has 128
// bits of each register.
func hasVector(set []byte) bool {
	return len(set) > sveHeader && le.Uint16(set[sveFlagsOff:])&sveHasVector != 0
}

// setVector gives a thread the registers back that vectorOf has found.
func setVector(tid int, vector []byte) error {
	if vector == nil {
		return nil
	}
	if err := setRegset(tid, ntArmSVE, vector); err != nil {
		return fmt.Errorf("tid %d: set the vector registers: %w", tid, err)
	}
	return nil
}

// checkRegsets refuses a thread with registers that are not kept.
func (p *Process) checkRegsets(th *Thread) error {
	b := make([]byte, sveHeader+1)
	in := func(note uint32) bool {
		n, err := getRegset(th.HostTID, note, b)
		return err == nil && n > 0
	}
	object := fmt.Sprintf("thread %d", th.TID)
	if in(ntArmSSVE) && le.Uint16(b[sveFlagsOff:])&sveHasVector != 0 {
		return refuse(p, object, "it is in the streaming mode of SME, whose registers are not kept")
	}
	if in(ntArmZA) && le.Uint32(b) > sveHeader {
		return refuse(p, object, "it has the matrix of SME in use, which is not kept")
	}
	if in(ntArmGCS) && le.Uint64(b) != 0 {
		return refuse(p, object, "it has a guarded control stack (PR_SET_SHADOW_STACK_STATUS), which is not kept")
	}
	return nil
}

// settleRegsets makes sure that a thread has what the image has, beyond the
// sets themselves: vectors as long as they were, and no keys where there were
// none. The instructions that sign do nothing then, as before: what checks would
// else meet what is not signed.
func settleRegsets(tid int, sets []RegSet) error {
	signs := false
	for _, x := range sets {
		signs = signs || x.Note == ntArmPacA
		if x.Note != ntArmSVE {
			continue
		}
		b := make([]byte, sveHeader)
		if _, err := getRegset(tid, ntArmSVE, b); err != nil {
			return fmt.Errorf("read the vector registers: %w", err)
		}
		if len(x.Data) < sveHeader || le.Uint16(b[sveVLOff:]) != le.Uint16(x.Data[sveVLOff:]) {
			return errors.New("this processor has no vectors of the length that the image's had")
		}
	}
	if signs {
		return nil
	}
	if err := setRegset(tid, ntArmPacOn, make([]byte, 8)); err != nil && !isNoRegset(err) {
		return fmt.Errorf("have pointers not signed: %w", err)
	}
	return nil
}

func (r *Regs) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(r)), userRegs)
}

// PC returns the program counter.
func (r *Regs) PC() uint64 { return r.Pc }

func (r *Regs) setPC(a uint64) { r.Pc = a }

// SyscallNr returns the number of the system call that the stop interrupted,
// and false where there is none: see recall.
func (r *Regs) SyscallNr() (uint64, bool) { return r.X[8], r.InCall }

func (r *Regs) setSyscallNr(nr uint64) {
	if r.InCall = nr != nrNone; r.InCall {
		r.X[8] = nr
	}
}

// ret returns the result of the system call, a negative errno on failure.
func (r *Regs) ret() int64 { return int64(r.X[0]) }

func (r *Regs) setRet(v int64) { r.X[0] = uint64(v) }

func (r *Regs) arg(i int) uint64 {
	if i == 0 && r.InCall {
		return r.First
	}
	return r.X[i]
}

func (r *Regs) setArg(i int, v uint64) {
	if i == 0 && r.InCall {
		r.First = v
		return
	}
	r.X[i] = v
}

// enterAt has the thread go on at an address, to which it did not branch: where
// branches are checked, BTYPE tells of the one that it may just have made.
func (r *Regs) enterAt(a uint64) {
	r.Pc, r.InCall = a, false
	r.Pstate &^= btypeMask
}

// atSyscall sets the registers to run one system call with the instruction at
// insn.
func (r *Regs) atSyscall(insn uint64, nr uintptr, args [6]uint64) {
	r.enterAt(insn)
	r.X[8] = uint64(nr)
	copy(r.X[:], args[:])
}

// atBatch sets the registers to run n records in the blob.
func (r *Regs) atBatch(entry, records uint64, n int, tgid, tid int, announce syscall.Signal, escape uint64) {
	r.enterAt(entry)
	r.X[19], r.X[20], r.X[21] = records, uint64(n), 0
	r.X[22], r.X[23], r.X[24] = uint64(tgid)|uint64(announce)<<32, uint64(tid), escape
}

// setKept sets what a batch keeps of a result.
func (r *Regs) setKept(v uint64) { r.X[21] = v }

// atReaper sets the registers to run the reaper of the blob.
func (r *Regs) atReaper(entry, scratch uint64, report int) {
	r.enterAt(entry)
	r.X[19], r.X[20] = scratch, uint64(report)
}

// park sets the registers to wait in the pause loop of the blob.
func (r *Regs) park(entry uint64) { r.enterAt(entry) }

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

// rerun makes the thread execute its interrupted system call again, as the
// program issued it.
func (r *Regs) rerun() {
	r.X[0], r.First, r.InCall = r.First, 0, false
	r.Pc -= uint64(len(syscallInsn))
}

// enter is rerun for a thread at the entry of a system call, which becomes that one.
func (r *Regs) enter() {
	if r.InCall {
		r.rerun()
	}
	r.Pc += uint64(len(syscallInsn))
	r.entering = true
}

// interrupted says whether the thread's system call has failed with EINTR.
func (r *Regs) interrupted() bool { return r.InCall && r.ret() == -int64(unix.EINTR) }

// restartNr is the number of restart_syscall(2).
const restartNr = unix.SYS_RESTART_SYSCALL

// escapeCode is machine code for addr that gives the thread its registers and
// mask back without a tracer, but for x17, which holds the address to go to:
// code of its own would hold nothing in it across a call (AAPCS64, IP1).
func escapeCode(addr uint64, r Regs, mask uint64) []byte {
	const dataOff = 256
	r = r.asRestarted()
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
	emit(0xd65f0220) // ret x17: unlike a br it may go anywhere in memory with PROT_BTI
	return append(append(code, make([]byte, dataOff-len(code))...), data...)
}
