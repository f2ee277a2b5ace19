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

// TestAbortOf tells a restartable sequence from other memory that a word near the thread
// pointer may lead to: before Linux 5.13 that is all there is to go by.
func TestAbortOf(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "threads"), "1"))
	x.untilReady()
	tree := x.freeze()
	defer x.release(tree)
	x.open(tree)
	p := tree.procs[0]
	th := p.threads[0]
	at, pc := p.inj.scratch(), th.Regs.PC()
	const cs, handler = 64, 256 // from at on
	for _, tc := range []struct {
		name                 string
		start, length, abort uint64
		signature            uint32
		want                 uint64
	}{
		{"a sequence", pc - 4, 8, at + handler, rseqSignature, at + handler},
		{"another sequence", pc + 4, 8, at + handler, rseqSignature, 0},
		{"another signature", pc - 4, 8, at + handler, rseqSignature + 1, 0},
		{"a handler within", 4096, 1 << 48, at + handler, rseqSignature, 0},
		{"small numbers", 0, 1 << 48, 4, rseqSignature, 0},
	} {
		b := make([]byte, handler)
		le.PutUint64(b[cs+8:], tc.start)
		le.PutUint64(b[cs+16:], tc.length)
		le.PutUint64(b[cs+24:], tc.abort)
		le.PutUint32(b[handler-4:], tc.signature)
		if err := p.writeMem(at, b); err != nil {
			t.Fatal(err)
		}
		if got := p.abortOf(th, at+cs, rseqSignature); got != tc.want {
			t.Errorf("%s: abort handler %#x, want %#x", tc.name, got, tc.want)
		}
	}
}
