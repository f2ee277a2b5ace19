package proc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// freezes is how often the programs below are frozen, injected in and let go.
const freezes = 20

// TestInterruptedCallsGoOnInPlace freezes a program of which every thread
// waits in another call, and has each call completed afterwards: its result
// must be that of a call that was never interrupted.
func TestInterruptedCallsGoOnInPlace(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "calls"), "blocked", t.TempDir())
	sleeps := NewSleeps()
	for range freezes {
		x.injectEverywhere(sleeps)
		if got := x.ask("settle"); got != "settled" {
			t.Fatalf("a call has ended: %s", got)
		}
	}
	x.say("finish")
	for n := 0; ; n++ {
		l := x.line()
		if l == "done" {
			if n < 29 {
				t.Errorf("%d calls, want 29", n)
			}
			return
		}
		name, result, _ := strings.Cut(l, ": ")
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(result, "ok ") {
				t.Error(result)
			}
		})
	}
}

// TestSleepsEndAtTheirDeadlineInPlace freezes sleeping threads again and
// again until shortly before they wake up: none may end early or see EINTR.
// Calls whose time-out lies in memory and that the kernel does not restart by
// itself begin anew each time, so that they end late by what has passed.
func TestSleepsEndAtTheirDeadlineInPlace(t *testing.T) {
	const tolerance = 4 * time.Second // for a busy machine
	tr := newTracer(t)
	begin := time.Now()
	x := launch(t, tr, program(t, "calls"), "sleeping", t.TempDir())
	sleeps := NewSleeps()
	for range freezes {
		x.injectEverywhere(sleeps)
		if time.Since(begin) > time.Second {
			break
		}
		if got := x.ask("settle"); got != "settled" {
			t.Fatalf("a sleep has ended: %s", got)
		}
		time.Sleep(40 * time.Millisecond) // so that the sleeps are met in their course
	}
	spent := time.Since(begin)
	x.say("finish")
	for l := x.line(); l != "done"; l = x.line() {
		name, result, _ := strings.Cut(l, ": ")
		t.Run(name, func(t *testing.T) {
			var late int64
			if _, err := fmt.Sscanf(result, "ok %d", &late); err != nil {
				t.Fatal(result)
			}
			t.Logf("%d ms after its deadline, after %d freezes in %v", late, freezes, spent)
			if time.Duration(late)*time.Millisecond > tolerance {
				t.Errorf("%d ms late", late)
			}
		})
	}
}

// TestASleepIsNotTakenForTheOneBefore: what has passed of a sleep that was seen
// before the stop counts only where the stop has met that same sleep.
func TestASleepIsNotTakenForTheOneBefore(t *testing.T) {
	for mode, same := range map[string]bool{"sleeping": true, "naps": false} {
		t.Run(mode, func(t *testing.T) {
			tr := newTracer(t)
			x := launch(t, tr, program(t, "calls"), mode, t.TempDir())
			sleeps, seen := NewSleeps(), map[int]*Sleep{}
			if err := tr.Do(func() error { sleeps.calibrate(); return nil }); err != nil {
				t.Fatal(err)
			}
			tids, err := procfs.Tasks(x.pid)
			if err != nil {
				t.Fatal(err)
			}
			for _, tid := range tids {
				if sl := sleeps.before(x.pid, tid); tid != x.pid && sl != nil && sl.elapsed > 0 {
					seen[tid] = sl
				}
			}
			if len(seen) == 0 {
				t.Skip("nothing tells how long a thread has slept")
			}
			for tid, sl := range seen {
				eventually(t, "another sleep", func() bool {
					sched, err := procfs.ReadSched(x.pid, tid)
					return same || err == nil && sched.Waits > sl.waits
				})
			}
			tree := x.freeze()
			for tid, sl := range seen {
				if sl.confirm(x.pid, tid); (sl.elapsed > 0) != same {
					t.Errorf("thread %d: asleep for %v", tid, sl.elapsed)
				}
			}
			x.release(tree)
		})
	}
}

// TestTimeoutsRunOnWhileFrozen holds a program for longer than its sleeps: they
// end when it goes on, as those do whose deadline the kernel itself keeps.
func TestTimeoutsRunOnWhileFrozen(t *testing.T) {
	const sleep = 1500 * time.Millisecond // SLEEP of the program
	tr := newTracer(t)
	x := launch(t, tr, program(t, "calls"), "sleeping", t.TempDir())
	tree, err := tr.Freeze(soon(t), NewSleeps(), x.roots)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(sleep + time.Second)
	x.release(tree)
	x.say("finish")
	late := map[string]time.Duration{}
	for l := x.line(); l != "done"; l = x.line() {
		name, result, _ := strings.Cut(l, ": ")
		var ms int64
		if _, err := fmt.Sscanf(result, "ok %d", &ms); err != nil {
			t.Errorf("%s: %s", name, result)
		}
		late[name] = time.Duration(ms) * time.Millisecond
	}
	for _, name := range []string{"poll", "ppoll", "select", "pselect", "epoll_wait"} {
		if late[name] > late["nanosleep"]+sleep/2 {
			t.Errorf("%s: %v late, nanosleep %v", name, late[name], late["nanosleep"])
		}
	}
}

func (x *target) injectEverywhere(sleeps *Sleeps) {
	x.tb.Helper()
	tree, err := x.tr.Freeze(soon(x.tb), sleeps, x.roots)
	if err != nil {
		x.tb.Fatal(err)
	}
	x.open(tree)
	err = x.tr.Do(func() error {
		for _, p := range tree.Procs() {
			for _, th := range p.threads {
				if err := p.run(soon(x.tb), th, getpids(2)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		x.tb.Fatal(err)
	}
	x.release(tree)
}

// A signal with a handler that waits at the freeze interrupts the call: the
// EINTR is the program's.
func TestCallsInterruptedByASignalSeeEINTR(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "calls"), "signal", t.TempDir())
	eventually(t, "the program waits", func() bool { return stateOf(t, x.pid) == 'S' })
	// In a group stop the signal stays pending until SIGCONT.
	if err := unix.Kill(x.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program is stopped", func() bool { return stateOf(t, x.pid) == 'T' })
	if err := unix.Kill(x.pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	x.injectEverywhere(NewSleeps())
	if err := unix.Kill(x.pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	x.expect("epoll_wait -1, EINTR 1, handled 1")
}
