package proc

import (
	"runtime"
	"sync"
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

// stopSignals is whether the kernel sends this process SIGCHLD for stops of its children
// and tracees. The handler stays the one of the Go runtime, which installs none anew
// while a Tracer's signal.Notify stands.
var stopSignals struct {
	mu       sync.Mutex
	off      bool
	unwanted int // see hush
	awaited  int // see awaitSignals
}

func setStopSignals(change func()) {
	s := &stopSignals
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	off := s.unwanted > 0 && s.awaited == 0
	if off == s.off {
		return
	}
	var a kernelAction
	rtSigaction(nil, &a)
	a.flags &^= saNoCldStop
	if off {
		a.flags |= saNoCldStop
	}
	rtSigaction(&a, nil)
	s.off = off
}

// hush has the kernel send no SIGCHLD for a stop until speak is called: each
// injected call is two stops, and the signal wakes threads that then compete with the
// tracee for a processor. Ends are still told.
func hush() { setStopSignals(func() { stopSignals.unwanted++ }) }

// speak ends one hush.
func speak() { setStopSignals(func() { stopSignals.unwanted-- }) }

// awaitSignals has them sent in spite of hush, until done is called. A stop from here
// on is signalled; one before must be looked for.
func awaitSignals() (done func()) {
	setStopSignals(func() { stopSignals.awaited++ })
	return func() { setStopSignals(func() { stopSignals.awaited-- }) }
}

// rtSigaction is rt_sigaction(2) for SIGCHLD: it cannot fail with these arguments.
func rtSigaction(set, old *kernelAction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(kernelAction{}.mask), 0, 0)
	runtime.KeepAlive(set)
	runtime.KeepAlive(old)
}
