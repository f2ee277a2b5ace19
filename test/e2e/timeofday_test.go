package e2e

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTimeOfDay sets CLOCK_REALTIME forward and back, in the middle of a checkpoint
// and between checkpoints and restarts: no time-out comes early or late, and no
// generation is taken for another. It needs a machine of its own: test/vm.
func TestTimeOfDay(t *testing.T) {
	if os.Getenv("HIATUS_E2E_OWN_MACHINE") != "1" {
		t.Skip("sets the clock of the machine: make test-vm")
	}
	s := newSuite(t)
	s.require(t, "gcc")
	if !s.built {
		if err := buildOne([]string{"gcc", "-O1", "-o", s.fixture("rewrite"), s.source("rewrite.c")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range s.identities {
		t.Run(id.name, func(t *testing.T) { setTimeOfDay(s.newTrial(t, id)) })
	}
}

func setTimeOfDay(tr *trial) {
	begun := time.Now()
	right := func() time.Time { return begun.Add(time.Since(begun)).Round(0) }
	set := func(off time.Duration) {
		tr.Helper()
		tv := unix.NsecToTimeval(right().Add(off).UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			tr.Fatalf("settimeofday: %v", err)
		}
	}
	const day = 24 * time.Hour
	tr.Cleanup(func() { set(0) })
	for _, size := range []string{"1", "20"} { // in the pause, and from copies
		tr.write("progress", "")
		tr.launch(tr.suite.fixture("rewrite"), size)
		tr.advance(1)
		ended := make(chan outcome)
		go func() { ended <- tr.hiatus("checkpoint", tr.name, "--timeout", "80s") }()
		jumps := 0
		for o := (*outcome)(nil); o == nil; jumps++ {
			set([]time.Duration{day, -day}[jumps%2])
			select {
			case got := <-ended:
				o = &got
				if o.code != 0 {
					tr.Fatalf("checkpoint: %s", *o)
				}
			case <-time.After(time.Millisecond):
			}
		}
		tr.Logf("%d jumps in a checkpoint", jumps)
		for _, off := range []time.Duration{-day, day, -10 * 365 * day} {
			tr.advance(1)
			tr.suspend()
			set(off)
			tr.restart()
			tr.advance(1)
			tr.checkpoint()
			set(0)
		}
		tr.finish()
		tr.gone()
		for _, name := range []string{"images", "stop"} {
			if err := os.RemoveAll(tr.path(name)); err != nil {
				tr.Fatal(err)
			}
		}
	}
}
