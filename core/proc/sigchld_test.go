package proc

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// While a tree stands still no SIGCHLD tells of stops, but to who waits for long.
func TestStopsAreSignalledWhereTheyAreAwaited(t *testing.T) {
	quiet := func() bool {
		var a kernelAction
		rtSigaction(nil, &a)
		return a.flags&saNoCldStop != 0
	}
	tr := newTracer(t)
	x := launch(t, tr, "sh", "-c", "echo ready; read x")
	if quiet() {
		t.Fatal("stops are not signalled before the freeze")
	}
	tree, ctx := freeze(t, tr, x.pid)
	openAll(t, ctx, tree)
	if !quiet() {
		t.Error("stops are signalled during the freeze")
	}
	p := tree.procs[0]
	addr, _ := p.Scratch()
	nap := le.AppendUint64(le.AppendUint64(nil, 0), uint64(20*spin))
	if _, err := p.WriteAt(nap, int64(addr)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := p.Syscall(ctx, unix.SYS_NANOSLEEP, uintptr(addr), 0); err != nil {
		t.Errorf("a call of %v: %v after %v", 20*spin, err, time.Since(begun))
	}
	if !quiet() {
		t.Error("stops are signalled after the wait")
	}
	if err := tree.Release(ctx); err != nil {
		t.Error(err)
	}
	if quiet() {
		t.Error("stops are not signalled after the release")
	}
}
