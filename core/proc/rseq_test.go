package proc

import "testing"

// TestRseqIsFound finds by asking what PTRACE_GET_RSEQ_CONFIGURATION tells.
func TestRseqIsFound(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(built(t, "clocks", "-O1", "-pthread")))
	x.untilReady()
	tree := x.freeze()
	x.open(tree)
	p := tree.procs[0]
	th := p.threads[0]
	err := x.tr.Do(func() error {
		want, err := getRseq(th.HostTID)
		if err != nil || want.Addr == 0 {
			t.Skipf("nothing to find: %+v, %v", want, err)
		}
		tls, err := threadPointer(th)
		if err != nil {
			return err
		}
		for range 2 { // it is registered as before
			at, err := p.probeRseq(soon(t), th, tls&^(rseqAlign-1)-rseqBefore, tls+rseqBehind)
			got, err := p.signRseq(soon(t), th, at, err)
			if err != nil {
				return err
			}
			if got != want {
				t.Errorf("found %+v, want %+v", got, want)
			}
		}
		after, err := getRseq(th.HostTID)
		if after != want {
			t.Errorf("afterwards %+v, want %+v", after, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	x.release(tree)
	for _, line := range x.order("clocks") {
		if line != "clocks right" {
			t.Error(line)
		}
	}
}
