package proc

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Regs are the general registers in the order of struct user_regs_struct.
type Regs struct {
	R15     uint64 `json:"r15"`
	R14     uint64 `json:"r14"`
	R13     uint64 `json:"r13"`
	R12     uint64 `json:"r12"`
	Rbp     uint64 `json:"rbp"`
	Rbx     uint64 `json:"rbx"`
	R11     uint64 `json:"r11"`
	R10     uint64 `json:"r10"`
	R9      uint64 `json:"r9"`
	R8      uint64 `json:"r8"`
	Rax     uint64 `json:"rax"`
	Rcx     uint64 `json:"rcx"`
	Rdx     uint64 `json:"rdx"`
	Rsi     uint64 `json:"rsi"`
	Rdi     uint64 `json:"rdi"`
	OrigRax uint64 `json:"orig_rax"`
	Rip     uint64 `json:"rip"`
	Cs      uint64 `json:"cs"`
	Eflags  uint64 `json:"eflags"`
	Rsp     uint64 `json:"rsp"`
	Ss      uint64 `json:"ss"`
	FsBase  uint64 `json:"fs_base"`
	GsBase  uint64 `json:"gs_base"`
	Ds      uint64 `json:"ds"`
	Es      uint64 `json:"es"`
	Fs      uint64 `json:"fs"`
	Gs      uint64 `json:"gs"`
}

const (
	arch           = "amd64"
	ntX86Xstate    = 0x202
	nrNone         = ^uint64(0) // orig_rax outside a system call
	syscallInsnLen = 2
)

// syscallInsn is the instruction that enters the kernel.
var syscallInsn = []byte{0x0f, 0x05}

// escapeJump is jmp rbp, by which a batch ends.
var escapeJump = []byte{0xff, 0xe5}

// extraNotes are the register sets that are kept beside the general ones.
var extraNotes = []regsetNote{{ntX86Xstate, 64 << 10, false}}

// The kernel acts on the result of an interrupted call as late as a thread goes on.

func (r *Regs) recallResult(*Thread)           {}
func (r *Regs) recall(*Process, *Thread)       {}
func (r Regs) asRestarted() Regs               { return r }
func (r *Regs) setCall(int) error              { return nil }
func (p *Process) interruptCall(*Thread) error { return nil }

// sleepingCall is nothing that the stop does not tell too.
type sleepingCall struct{}

func askCall(int, int) sleepingCall { return sleepingCall{} }

func (sl *Sleep) askAgain(int, int) *Sleep { return sl }

// isArmed says whether a call that was made goes on in a restart block.
func (r *Regs) isArmed(uint64) bool { return syscall.Errno(-r.ret()) == errRestartBlock }

// What a call of ours takes from a thread is in the general registers only.

func vectorOf(int) ([]byte, error) { return nil, nil }
func setVector(int, []byte) error  { return nil }

// usedOf is how much of a register set counts.
func usedOf(_ uint32, set []byte) int { return len(set) }

// settleRegsets has nothing to do: the registers are those that were set.
func settleRegsets(int, []RegSet) error { return nil }

func (r *Regs) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r))
}

// PC returns the instruction pointer.
func (r *Regs) PC() uint64 { return r.Rip }

func (r *Regs) setPC(a uint64) { r.Rip = a }

// SyscallNr returns the number of the system call that the stop interrupted,
// and false where there is none.
func (r *Regs) SyscallNr() (uint64, bool) {
	return r.OrigRax, int64(r.OrigRax) >= 0
}

func (r *Regs) setSyscallNr(nr uint64) { r.OrigRax = nr }

// ret returns the result of the system call, a negative errno on failure.
func (r *Regs) ret() int64 { return int64(r.Rax) }

func (r *Regs) setRet(v int64) { r.Rax = uint64(v) }

func (r *Regs) arg(i int) uint64 {
	return [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}[i]
}

func (r *Regs) setArg(i int, v uint64) {
	*[6]*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9}[i] = v
}

// atSyscall sets the registers to run one system call with the instruction at
// insn, outside of any restart logic.
func (r *Regs) atSyscall(insn uint64, nr uintptr, args [6]uint64) {
	r.Rip, r.Rax, r.OrigRax = insn, uint64(nr), nrNone
	for i, a := range args {
		r.setArg(i, a)
	}
}

// atBatch sets the registers to run n records in the blob.
func (r *Regs) atBatch(entry, records uint64, n int, tgid, tid int, announce syscall.Signal, escape uint64) {
	r.Rip, r.OrigRax = entry, nrNone
	r.Rbx, r.R12, r.R15 = records, uint64(n), 0
	r.R13, r.R14, r.Rbp = uint64(tgid)|uint64(announce)<<32, uint64(tid), escape
	r.Eflags &^= 1 << 10 // DF
}

// setKept sets what a batch keeps of a result.
func (r *Regs) setKept(v uint64) { r.R15 = v }

// atReaper sets the registers to run the reaper of the blob.
func (r *Regs) atReaper(entry, scratch uint64, report int) {
	r.Rip, r.OrigRax = entry, nrNone
	r.Rbx, r.R12 = scratch, uint64(report)
}

// park sets the registers to wait in the pause loop of the blob.
func (r *Regs) park(entry uint64) { r.Rip, r.OrigRax = entry, nrNone }

// rseqSignature is RSEQ_SIG, which stands before abort handlers.
const rseqSignature = 0x53053053

// threadPointer returns the address by which a thread finds its own data.
func threadPointer(th *Thread) (uint64, error) { return th.Regs.FsBase, nil }

// rerun makes the thread execute its interrupted system call again, as the
// program issued it.
func (r *Regs) rerun() {
	r.Rax, r.OrigRax = r.OrigRax, nrNone
	r.Rip -= syscallInsnLen
}

// enter is rerun for a thread at the entry of a system call, which becomes that one.
func (r *Regs) enter() {
	if _, in := r.SyscallNr(); !in { // rerun already
		r.OrigRax = r.Rax
		r.Rip += syscallInsnLen
	}
	r.setRet(-int64(unix.ENOSYS))
}

// interrupted says whether the thread's system call has failed with EINTR.
func (r *Regs) interrupted() bool {
	_, in := r.SyscallNr()
	return in && r.ret() == -int64(unix.EINTR)
}

// restartNr is the number of restart_syscall(2).
const restartNr = unix.SYS_RESTART_SYSCALL

// escapeCode is machine code for addr that gives the thread its registers and
// mask back without a tracer. It ends in the data it uses.
func escapeCode(addr uint64, r Regs, mask uint64) []byte {
	switch syscall.Errno(-r.ret()) {
	case errRestartSys, errRestartNointr, errRestartNohand:
		if _, in := r.SyscallNr(); in {
			r.rerun()
		}
	case errRestartBlock:
		if _, in := r.SyscallNr(); in {
			r.OrigRax = restartNr
			r.rerun()
		}
	}
	// Flags and stack while all signals are blocked, then the mask, then the
	// rest, which a signal handler may interrupt.
	const dataOff = 224 // mask, flags, rip
	le := binary.LittleEndian
	c := make([]byte, 0, dataOff+24)
	imm64 := func(rex, op byte, v uint64) { c = le.AppendUint64(append(c, rex, op), v) }
	imm64(0x48, 0xbc, addr+dataOff+8)                     // mov rsp, &flags
	c = append(c, 0x9d)                                   // popfq
	imm64(0x48, 0xbc, r.Rsp)                              // mov rsp, imm
	c = append(c, 0xb8, unix.SYS_RT_SIGPROCMASK, 0, 0, 0) // mov eax, nr
	c = append(c, 0xbf, 2, 0, 0, 0)                       // mov edi, SIG_SETMASK
	imm64(0x48, 0xbe, addr+dataOff)                       // mov rsi, &mask
	c = append(c, 0xba, 0, 0, 0, 0)                       // mov edx, 0
	c = append(c, 0x41, 0xba, 8, 0, 0, 0)                 // mov r10d, 8
	c = append(c, 0x0f, 0x05)                             // syscall
	for i, v := range []uint64{r.Rax, r.Rcx, r.Rdx, r.Rbx, 0, r.Rbp, r.Rsi, r.Rdi} {
		if i != 4 { // rsp
			imm64(0x48, 0xb8+byte(i), v)
		}
	}
	for i, v := range []uint64{r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15} {
		imm64(0x49, 0xb8+byte(i), v)
	}
	c = append(c, 0xff, 0x25) // jmp [rip+disp32]
	c = le.AppendUint32(c, uint32(dataOff-8+24-len(c)-4))
	c = append(c, make([]byte, dataOff-len(c))...)
	c = le.AppendUint64(c, mask)
	c = le.AppendUint64(c, r.Eflags)
	return le.AppendUint64(c, r.Rip)
}
