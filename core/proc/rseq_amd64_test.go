package proc

import (
	"fmt"
	"os/exec"
	"testing"
)

// TestRseqCriticalSectionIsAborted freezes a thread that is nearly always in
// a restartable sequence: it must stand at the abort handler, registered no
// more, and the program must find its count right.
func TestRseqCriticalSectionIsAborted(t *testing.T) {
	tr := newTracer(t)
	x := spawn(t, tr, exec.Command(program(t, "rseq")))
	switch l := x.line(); l {
	case "no rseq":
		t.Skip("the C library registers no rseq")
	case "ready":
	default:
		t.Fatalf("the program says %q", l)
	}
	var handler uint64
	var aborts int
	if _, err := fmt.Sscanf(x.ask("?"), "right 0x%x %d", &handler, &aborts); err != nil {
		t.Fatal(err)
	}
	inside := 0
	for range 30 {
		tree := x.freeze()
		p := tree.Procs()[0]
		th := p.threads[1]
		rs, err := rseqOf(tree, th)
		if err != nil {
			t.Fatal(err)
		}
		var cs [8]byte
		if _, err := p.ReadAt(cs[:], int64(rs.Addr+8)); err != nil {
			t.Fatal(err)
		}
		if th.Regs.PC() == handler {
			inside++
			if le.Uint64(cs[:]) != 0 {
				t.Errorf("rseq_cs is %#x behind the abort", le.Uint64(cs[:]))
			}
		}
		x.open(tree)
		if err := tr.Do(func() error { return p.run(soon(t), th, getpids(1)) }); err != nil {
			t.Fatal(err)
		}
		x.release(tree)
	}
	if inside == 0 {
		t.Error("no freeze met the thread inside its critical section")
	}
	before := aborts
	if _, err := fmt.Sscanf(x.ask("?"), "right 0x%x %d", &handler, &aborts); err != nil {
		t.Fatal(err)
	}
	if aborts < before+inside {
		t.Errorf("the program counts %d aborts, and %d before; %d freezes met it inside", aborts, before, inside)
	}
}

func rseqOf(tree *Tree, th *Thread) (rs Rseq, err error) {
	err = tree.tr.Do(func() (err error) { rs, err = getRseq(th.HostTID); return err })
	return rs, err
}
