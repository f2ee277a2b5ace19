package proc

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelAction is struct sigaction as rt_sigaction(2) takes it.
type kernelAction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// saNoCldStop is SA_NOCLDSTOP of sigaction(2).
const saNoCldStop = 1

// hush has the kernel send no SIGCHLD for a stop until speak is called: each
// injected call is two stops, and the signal wakes threads that then compete with the
// tracee for a processor. Ends are still told. Both run on the tracer's thread.
func (t *Tracer) hush() {
	if t.hushed++; t.hushed == 1 {
		signalStops(false)
	}
}

// speak ends one hush.
func (t *Tracer) speak() {
	if t.hushed--; t.hushed == 0 {
		signalStops(true)
	}
}

// signalStops sets whether a stop of a child or tracee sends SIGCHLD. The handler
// stays the one of the Go runtime, which installs none anew while the Tracer's
// signal.Notify stands.
func signalStops(on bool) {
	var a kernelAction
	rtSigaction(nil, &a)
	a.flags |= saNoCldStop
	if on {
		a.flags &^= saNoCldStop
	}
	rtSigaction(&a, nil)
}

// rtSigaction is rt_sigaction(2) for SIGCHLD: it cannot fail with these arguments.
func rtSigaction(set, old *kernelAction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(kernelAction{}.mask), 0, 0)
	runtime.KeepAlive(set)
	runtime.KeepAlive(old)
}

// yield lets another thread have the processor, if one wants it. runtime.Gosched
// would hand the tracer's locked thread from one thread to the next and back.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
