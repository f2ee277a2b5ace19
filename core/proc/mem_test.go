package proc

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Where /proc/PID/mem refuses what the process itself may not, ptrace(2) does it.
func TestForcedAccess(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, "sh", "-c", "echo ready; read x")
	tree, ctx := freeze(t, tr, x.pid)
	openAll(t, ctx, tree)
	defer func() { _ = tree.Release(ctx) }()
	p := tree.procs[0]
	maps, err := procfs.ReadMaps(x.pid)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(maps, func(v procfs.VMA) bool { return v.Exec && v.Ino != 0 })
	addr := maps[i].Start + 3
	const n = 4096 + 50
	tries := 0
	refuse := func([]byte, int64) (int, error) { tries++; return 0, unix.EIO }

	want, got := make([]byte, n), make([]byte, n)
	if err := p.readMem(addr, want); err != nil {
		t.Fatal(err)
	}
	if err := p.force(addr, got, refuse, unix.PtracePeekData); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read by words: %v, the bytes are right: %v", err, bytes.Equal(got, want))
	}
	slices.Reverse(got)
	if err := p.force(addr, got, refuse, unix.PtracePokeData); err != nil {
		t.Errorf("write by words: %v", err)
	}
	now := make([]byte, n)
	if err := p.readMem(addr, now); err != nil || !bytes.Equal(now, got) {
		t.Errorf("what was written by words is not there: %v", err)
	}
	if err := p.writeMem(addr, want); err != nil {
		t.Error(err)
	}
	if tries != 4 {
		t.Errorf("/proc/PID/mem was tried %d times, want 4: on this thread and on the tracer's", tries)
	}
	if err := p.readMem(8, got); err == nil {
		t.Error("memory that does not exist was read")
	}
	tids := 0
	_ = tr.Do(func() error { return tr.Do(func() error { tids = unix.Gettid(); return nil }) })
	if tids != tr.tid {
		t.Errorf("Do within Do ran on thread %d, want %d", tids, tr.tid)
	}
}
