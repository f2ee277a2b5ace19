package proc

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and notes of ptrace(2) that x/sys does not name on every
// architecture; the values are those of include/uapi/linux/ptrace.h and elf.h.
const (
	ptraceSeize            = 0x4206
	ptraceInterrupt        = 0x4207
	ptracePeekSiginfo      = 0x4209
	ptraceGetSigmask       = 0x420a
	ptraceSetSigmask       = 0x420b
	ptraceGetRseqConf      = 0x420f
	ptraceGetRegset        = 0x4204
	ptraceGetDispatch      = 0x4211 // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
	ptraceSetRegset        = 0x4205
	ptraceGetSiginfo       = 0x4202
	ptraceGetEventMsg      = 0x4201
	ptraceSetOptions       = 0x4200
	ptracePeekSharedSignal = 1
	ntPrstatus             = 1
	eventStop              = 128 // PTRACE_EVENT_STOP
	siginfoSize            = 128
	siTkill                = -6 // SI_TKILL
	siUser                 = 0  // SI_USER
	siCodeOff              = 8  // in siginfo_t
	siPidOff               = 16
)

// ptrace does not block, except to seize a thread of a process in execve(2):
// only a call that the Go runtime knows of lets other goroutines go on then, the
// one of Tracer.watch too.
//
//go:uintptrescapes
func ptrace(req, tid int, addr, data uintptr) error {
	call := unix.RawSyscall6
	if req == ptraceSeize {
		call = unix.Syscall6
	}
	_, _, e := call(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

type iovec struct {
	base unsafe.Pointer
	len  uint64
}

func getRegset(tid int, note uint32, b []byte) (int, error) {
	iv := &iovec{unsafe.Pointer(&b[0]), uint64(len(b))}
	err := ptrace(ptraceGetRegset, tid, uintptr(note), uintptr(unsafe.Pointer(iv)))
	return int(iv.len), err
}

func setRegset(tid int, note uint32, b []byte) error {
	iv := &iovec{unsafe.Pointer(&b[0]), uint64(len(b))}
	return ptrace(ptraceSetRegset, tid, uintptr(note), uintptr(unsafe.Pointer(iv)))
}

// errCompat says that a thread runs 32-bit code: the kernel shows the registers
// of that architecture (task_user_regset_view).
var errCompat = errors.New("a 32-bit thread")

func getRegs(tid int) (Regs, error) {
	r := new(Regs)
	n, err := getRegset(tid, ntPrstatus, r.bytes())
	if err != nil {
		return Regs{}, fmt.Errorf("tid %d: read registers: %w", tid, err)
	}
	if n != len(r.bytes()) {
		return Regs{}, fmt.Errorf("tid %d: %w", tid, errCompat)
	}
	return *r, nil
}

func setRegs(tid int, r Regs) error {
	c := new(Regs)
	*c = r.asRestarted()
	err := setRegset(tid, ntPrstatus, c.bytes())
	if err == nil {
		err = c.setCall(tid)
	}
	if err != nil {
		return fmt.Errorf("tid %d: set registers: %w", tid, err)
	}
	return nil
}

func getSigmask(tid int) (uint64, error) {
	m := new(uint64)
	if err := ptrace(ptraceGetSigmask, tid, 8, uintptr(unsafe.Pointer(m))); err != nil {
		return 0, fmt.Errorf("tid %d: read signal mask: %w", tid, err)
	}
	return *m, nil
}

func setSigmask(tid int, mask uint64) error {
	m := new(uint64)
	*m = mask
	if err := ptrace(ptraceSetSigmask, tid, 8, uintptr(unsafe.Pointer(m))); err != nil {
		return fmt.Errorf("tid %d: set signal mask: %w", tid, err)
	}
	return nil
}

// Rseq is the registration of restartable sequences, rseq(2), as
// PTRACE_GET_RSEQ_CONFIGURATION tells it. Addr is 0 where there is none.
type Rseq struct {
	Addr  uint64 `json:"addr"`
	Size  uint32 `json:"size"`
	Sig   uint32 `json:"sig"`
	Flags uint32 `json:"flags"`
	_     uint32
}

func getRseq(tid int) (Rseq, error) {
	r := new(Rseq)
	if err := ptrace(ptraceGetRseqConf, tid, unsafe.Sizeof(*r), uintptr(unsafe.Pointer(r))); err != nil {
		return Rseq{}, fmt.Errorf("tid %d: read rseq configuration: %w", tid, err)
	}
	return *r, nil
}

// peekSignals returns the siginfo_t of all pending signals of the thread, or
// of its process if shared.
func peekSignals(tid int, shared bool) ([][]byte, error) {
	const chunk = 32
	type peekArgs struct {
		off   uint64
		flags uint32
		nr    int32
	}
	var out [][]byte
	buf := scratch.Get().(*[scratchSize]byte)
	defer scratch.Put(buf)
	args := &peekArgs{nr: chunk}
	if shared {
		args.flags = ptracePeekSharedSignal
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptracePeekSiginfo, uintptr(tid),
			uintptr(unsafe.Pointer(args)), uintptr(unsafe.Pointer(&buf[0])), 0, 0)
		if e != 0 {
			return nil, fmt.Errorf("tid %d: read pending signals: %w", tid, e)
		}
		for i := range int(n) {
			out = append(out, bytes.Clone(buf[i*siginfoSize:][:siginfoSize]))
		}
		if n == 0 { // fewer than asked for may come where a signal waits for the tracer
			return out, nil
		}
		args.off += uint64(n)
	}
}

// getSiginfo returns the siginfo_t of the signal that tid is stopped by.
func getSiginfo(tid int) ([]byte, error) {
	b := make([]byte, siginfoSize)
	if err := ptrace(ptraceGetSiginfo, tid, 0, uintptr(unsafe.Pointer(&b[0]))); err != nil {
		return nil, fmt.Errorf("tid %d: read siginfo: %w", tid, err)
	}
	return b, nil
}

func getEventMsg(tid int) (int, error) {
	m := new(uint64)
	err := ptrace(ptraceGetEventMsg, tid, 0, uintptr(unsafe.Pointer(m)))
	return int(*m), err
}

// dispatchesCalls says whether the thread has Syscall User Dispatch on: it
// would get SIGSYS for a call of ours.
func dispatchesCalls(tid int) bool {
	c := new([4]uint64) // struct ptrace_sud_config: mode first
	err := ptrace(ptraceGetDispatch, tid, unsafe.Sizeof(*c), uintptr(unsafe.Pointer(c)))
	return err == nil && c[0] != 0 // EIO before Linux 6.4
}

func robustList(tid int) (head, size uint64, err error) {
	p := new([2]uint64)
	_, _, e := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid),
		uintptr(unsafe.Pointer(&p[0])), uintptr(unsafe.Pointer(&p[1])))
	if e != 0 {
		return 0, 0, fmt.Errorf("tid %d: get_robust_list: %w", tid, e)
	}
	return p[0], p[1], nil
}

func cont(tid int, sig syscall.Signal) error {
	return ptrace(unix.PTRACE_CONT, tid, 0, uintptr(sig))
}

func detach(tid int) error { return ptrace(unix.PTRACE_DETACH, tid, 0, 0) }

// event returns the PTRACE_EVENT number of a stop, 0 for a signal stop.
func event(ws unix.WaitStatus) int { return int(uint32(ws)>>16) & 0xff }
