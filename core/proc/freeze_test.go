package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// children are what the test binary does when a test executes it again.
var children = map[string]func() error{
	"copy-for-ever":   copyForEver,
	"freeze-for-ever": freezeForEver,
}

// childTests are tests that run in a process of their own.
var childTests = map[string]func(t *testing.T, args []string){
	"freeze-undumpable":     freezeUndumpable,
	"freeze-exec-by-thread": freezeExecByThread,
	"restore-and-wait":      restoreAndWait,
}

// TestFreezeStopsAll freezes trees that change all the time: nothing of them
// may run on, injection must work in what is caught, and all must go on.
func TestFreezeStopsAll(t *testing.T) {
	for _, tc := range []struct {
		mode   string
		rounds int
	}{
		{"threads", 40},
		{"forks", 40},
		{"hops", 15},
		{"hops below a subreaper", 15},
		{"hops without zombies", 60},
		{"exec-by-leader", 60},
	} {
		t.Run(tc.mode, func(t *testing.T) { freezeAgainAndAgain(t, program(t, "freeze"), tc.mode, tc.rounds) })
	}
}

// execve(2) in one of many threads ends the others and gives the thread the
// leader's id. It holds what PTRACE_SEIZE takes until all others are reaped,
// which for those we trace only we can: a tracer that waits for it would wait
// for ever, so that this runs in a process that can be ended.
func TestFreezeOfAProcessWithAThreadInExecve(t *testing.T) {
	cmd := againAsTest("freeze-exec-by-thread", program(t, "freeze"))
	// Longer than the limit of the test in the child, which tells where it hangs.
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	limited := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	limited.Env = cmd.Env
	out, err := limited.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the freeze hangs: %s", out)
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func freezeExecByThread(t *testing.T, args []string) {
	freezeAgainAndAgain(t, args[0], "exec-by-thread", 100)
}

// reapAlways collects what ends, as the agent does: a thread in execve(2) goes
// on only when those that it has ended while they were traced are collected.
func reapAlways(t *testing.T, tr *Tracer) {
	child, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(child, unix.SIGCHLD)
	go func() {
		defer close(done)
		for range child {
			tr.Reap()
		}
	}()
	t.Cleanup(func() {
		signal.Stop(child)
		close(child)
		<-done
	})
}

func freezeAgainAndAgain(t *testing.T, prog, mode string, rounds int) {
	becomeSubreaper(t)
	tr := newTracer(t)
	x := launch(t, tr, prog, mode)
	x.wholeTree = true
	reapAlways(t, tr)
	for range rounds {
		tree := x.freeze()
		x.assertFrozen()
		for _, p := range tree.procs {
			if t.Failed() {
				t.Logf("frozen: pid %d zombie %t threads %v, status %+v", p.host, p.zombie, p.hostTIDs(), p.status)
			}
		}
		x.open(tree)
		for _, p := range tree.Procs() {
			if got, err := p.Syscall(soon(t), unix.SYS_GETPID); err != nil || int(got) != p.PID() {
				t.Errorf("getpid in pid %d: %d, %v", p.PID(), got, err)
			}
		}
		x.release(tree)
		if t.Failed() {
			break
		}
		if got := x.ask("?"); got != "alive" {
			t.Fatalf("the program says %q", got)
		}
	}
	x.assertUntraced()
}

func TestFreezeWaitsForTheExecOfAVforkChild(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "vfork")
	type result struct {
		tree *Tree
		err  error
	}
	done := make(chan result, 1)
	go func() {
		tree, err := x.tryFreeze(patience)
		done <- result{tree, err}
	}()
	// The child is left alone as long as its parent does not stop.
	eventually(t, "the parent is traced", func() bool {
		s, err := procfs.ReadStatus(x.pid)
		return err == nil && s.TracerPid != 0
	})
	x.say("")
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	if n := len(r.tree.Procs()); n != 2 {
		t.Errorf("%d processes are frozen, want 2", n)
	}
	x.assertFrozen()
	x.release(r.tree)
	x.expect("vfork is over")
	x.assertUntraced()
}

func TestFreezeGivesUpOnAVforkParent(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "vfork")
	_, err := x.tryFreeze(100 * time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("freeze: %v, want a deadline", err)
	}
	for _, want := range []string{fmt.Sprintf("pid %d", x.pid), "state D"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	x.say("") // everything runs on
	eventually(t, "nothing is traced", func() bool {
		tr.Reap() // as the agent does at each SIGCHLD
		s, err := procfs.ReadStatus(x.pid)
		return err == nil && s.TracerPid == 0
	})
	x.expect("vfork is over")
	x.assertUntraced()
	x.release(x.freeze())
	if got := x.ask("?"); got != "alive" {
		t.Errorf("the program says %q", got)
	}
}

// TestFreezeGivesUpOnAVforkBrother stops the child that another waits for, as it is no child of
// that: the tree is not held up for long.
func TestFreezeGivesUpOnAVforkBrother(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "vfork-brothers")
	_, err := x.tryFreeze(patience)
	if !errors.Is(err, plugin.ErrPassing) || !strings.Contains(err.Error(), "CLONE_PARENT") {
		t.Fatalf("freeze: %v, want a refusal that may pass", err)
	}
	x.say("")
	eventually(t, "both have ended", func() bool {
		tr.Reap() // as the agent does at each SIGCHLD
		children, err := procfs.Children(x.pid)
		return err == nil && len(children) == 0
	})
	x.expect("vfork is over")
	x.assertUntraced()
	x.release(x.freeze())
	if got := x.ask("?"); got != "alive" {
		t.Errorf("the program says %q", got)
	}
}

// A thread that was given up may not have stopped yet when the next
// checkpoint comes: it is traced by us, not by another.
func TestFreezeAgainAfterGivingUp(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "vfork")
	for range 2 {
		if _, err := x.tryFreeze(50 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("freeze: %v, want a deadline", err)
		}
	}
	x.say("")
	tree := x.freeze()
	x.assertFrozen()
	x.release(tree)
	x.expect("vfork is over")
	x.assertUntraced()
}

func TestFreezeKeepsStoppedChildrenStopped(t *testing.T) {
	tr := newTracer(t)
	x := spawnReady(t, tr, "stopped")
	child, err := strconv.Atoi(x.first)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tree := x.freeze()
		x.assertFrozen()
		if sig := procOf(t, tree, child).stopSignal(); sig != unix.SIGSTOP {
			t.Errorf("stop signal %d, want SIGSTOP", sig)
		}
		if sig := procOf(t, tree, x.pid).stopSignal(); sig != 0 {
			t.Errorf("stop signal %d of the parent, want none", sig)
		}
		x.open(tree)
		if got, err := procOf(t, tree, child).Syscall(soon(t), unix.SYS_GETPID); err != nil || int(got) != child {
			t.Errorf("getpid in the stopped child: %d, %v", got, err)
		}
		x.release(tree)
		eventually(t, "the child is stopped again", func() bool { return stateOf(t, child) == 'T' })
	}
	x.assertUntraced()
	if err := unix.Kill(child, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	x.expect("continued")
}

// greeted is a target that said a line before "ready".
type greeted struct {
	*target
	first string
}

func spawnReady(t *testing.T, tr *Tracer, mode string) greeted {
	t.Helper()
	x := spawn(t, tr, command(program(t, "freeze"), mode))
	g := greeted{x, x.line()}
	x.expect("ready")
	return g
}

// A signal for a process is its leader's where that can take it, and else another
// thread's that does not stand still: the leader is stopped last, and let go first.
func TestFreezeLeavesSignalsToTheLeader(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "signalled")
	f := newFreezing(&Tree{tr: tr}, x.pid)
	tree := &Tree{tr: tr, byHost: map[int]*Process{}, sleeps: NewSleeps()}
	err := tr.Do(func() error {
		if _, err := tree.ask(f); err != nil {
			return err
		}
		if len(f.seen) != 4 || f.seen[x.pid] {
			t.Errorf("asked at first: %v, want the four threads but not the leader %d", f.seen, x.pid)
		}
		return tree.freezeProcess(soon(t), f)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(x.pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	err = tr.Do(func() error {
		_, err := f.p.letGo(f.p.threads[0])
		if s, err := procfs.ReadTaskStatus(x.pid, x.pid); err != nil || s.ShdPnd != 0 {
			t.Errorf("pending when the leader was let go: %#x (%v)", s.ShdPnd, err)
		}
		delete(tr.held, x.pid)
		f.p.threads = f.p.threads[1:]
		return errors.Join(err, f.p.release())
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.ask("?"), "leader 1, others 0"; got != want {
		t.Errorf("who took signals: %s, want %s", got, want)
	}
}

// SIGCHLD that nobody handles interrupts no call, though the thread that made the child is
// traced when it ends. What remains is the moment from one PTRACE_SEIZE to the next.
func TestFreezeInterruptsNothingForChildren(t *testing.T) {
	const rounds, most = 60, 6
	x := launch(t, newTracer(t), program(t, "freeze"), "waiters")
	for range rounds {
		tree := x.freeze()
		x.release(tree)
	}
	if n, err := strconv.Atoi(x.ask("?")); err != nil || n > most {
		t.Errorf("%d calls were interrupted in %d freezes, want at most %d (%v)", n, rounds, most, err)
	}
}

func TestFreezeKeepsZombies(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "zombies")
	tree := x.freeze()
	if all, live := len(tree.procs), len(tree.Procs()); all != 3 || live != 1 {
		t.Errorf("%d processes, %d of them live; want 3 and 1", all, live)
	}
	x.open(tree)
	x.release(tree)
	if got := x.ask("?"); got != "exited 3, signalled 9" {
		t.Errorf("the program says %q", got)
	}
}

func TestFreezeTellsWhoTracesAProcess(t *testing.T) {
	tr, other := newTracer(t), newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "zombies")
	held, err := other.Freeze(soon(t), NewSleeps(), x.roots)
	if err != nil {
		t.Fatal(err)
	}
	_, err = x.tryFreeze(patience)
	r, ok := errors.AsType[*plugin.RefusalError](err)
	if want := fmt.Sprintf("is traced by pid %d (", os.Getpid()); !ok || r.PID != x.pid || !strings.HasPrefix(r.Reason, want) {
		t.Errorf("freeze: %v, want a refusal: pid %d %s", err, x.pid, want)
	}
	if err := held.Release(soon(t)); err != nil {
		t.Fatal(err)
	}
	x.assertUntraced()
}

func TestFreezeOfAProcessThatIsNotDumpable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Run("refused", func(t *testing.T) {
			tr := newTracer(t)
			checkUndumpableIsRefused(t, launch(t, tr, program(t, "freeze"), "nodump"))
		})
		return
	}
	t.Run("as root", func(t *testing.T) {
		tr := newTracer(t)
		x := launch(t, tr, program(t, "freeze"), "nodump")
		tree := x.freeze()
		x.open(tree)
		p := tree.Procs()[0]
		if got, err := p.Syscall(soon(t), unix.SYS_PRCTL, unix.PR_GET_DUMPABLE); err != nil || got > 1 {
			t.Errorf("PR_GET_DUMPABLE: %d, %v", got, err)
		}
		x.release(tree)
		if got := x.ask("?"); got != "dumpable 0" {
			t.Errorf("the program says %q", got)
		}
	})
	t.Run("refused to an ordinary user", func(t *testing.T) {
		prog := program(t, "freeze")
		out := runAgain(t, asNobody(againAsTest("freeze-undumpable", prog)))
		if !strings.Contains(out, "refused") {
			t.Errorf("it says %q", out)
		}
	})
}

func checkUndumpableIsRefused(t *testing.T, x *target) {
	t.Helper()
	_, err := x.tryFreeze(patience)
	r, ok := errors.AsType[*plugin.RefusalError](err)
	if !ok || r.PID != x.pid || !strings.Contains(r.Error(), "not dumpable") || !errors.Is(err, unix.EPERM) {
		t.Errorf("freeze: %v, want a refusal of pid %d with EPERM", err, x.pid)
	}
	if got := x.ask("?"); got != "dumpable 0" {
		t.Errorf("the program says %q", got)
	}
	x.assertUntraced()
}

func TestFreezeOfAnExitedLeader(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "leader")
	for range 3 {
		tree := x.freeze()
		x.assertFrozen()
		p := procOf(t, tree, x.pid)
		if p.zombie || !p.leaderGone() || len(p.threads) != 1 {
			t.Fatalf("zombie %v, leader gone %v, %d threads", p.zombie, p.leaderGone(), len(p.threads))
		}
		x.open(tree)
		if got, err := p.Syscall(soon(t), unix.SYS_GETTID); err != nil || int(got) != p.threads[0].TID {
			t.Errorf("gettid: %d, %v; want %d", got, err, p.threads[0].TID)
		}
		x.release(tree)
		if got := x.ask("?"); got != "alive" {
			t.Errorf("the program says %q", got)
		}
	}
}

func TestReleaseOfAProcessKilledWhileFrozen(t *testing.T) {
	for _, open := range []bool{false, true} {
		for _, kill := range []string{"freeze threads", "freeze forks"} {
			t.Run(fmt.Sprintf("%s open %v", kill, open), func(t *testing.T) {
				tr := newTracer(t)
				x := launch(t, tr, program(t, "freeze"), strings.Fields(kill)[1])
				tree := x.freeze()
				if open {
					x.open(tree)
				}
				if err := unix.Kill(x.pid, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if err := tree.Release(soon(t)); err != nil {
					t.Logf("release: %v", err)
				}
				eventually(t, "the end of the process is reported", func() bool {
					exits, _ := tr.Reap()
					for _, e := range exits {
						if e.HostPID == x.pid && e.Status.Signaled() && e.Status.Signal() == unix.SIGKILL {
							return true
						}
					}
					return false
				})
				// Its children, killed with it, may still be on their way out.
				eventually(t, "nothing of the group is traced", func() bool {
					tr.Reap()
					return !slices.ContainsFunc(x.group(), func(s procfs.Status) bool { return s.TracerPid != 0 })
				})
			})
		}
	}
}

// freezeUndumpable is checkUndumpableIsRefused for an ordinary user.
func freezeUndumpable(t *testing.T, args []string) {
	tr := newTracer(t)
	checkUndumpableIsRefused(t, launch(t, tr, args[0], "nodump"))
	fmt.Println("refused")
}

// A child that was born traced, and that no freeze has found since, is let go.
func TestReapLetsStrayTraceesGo(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "restore_tree")))
	x.untilReady()
	if err := x.tr.Do(func() error { return attach(x.pid, x.pid) }); err != nil {
		t.Fatal(err)
	}
	x.say("fork")
	err := x.tr.Do(func() error {
		ws, err := x.tr.wait(soon(t), x.pid)
		if err == nil && event(ws) != unix.PTRACE_EVENT_FORK {
			err = fmt.Errorf("stop %#x, want PTRACE_EVENT_FORK", uint32(ws))
		}
		return errors.Join(err, detach(x.pid)) // as when a freeze is given up
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child is let go", func() bool {
		x.tr.Reap()
		children, err := procfs.Children(x.pid)
		return err == nil && !slices.ContainsFunc(children, func(pid int) bool {
			s, err := procfs.ReadStatus(pid)
			return err == nil && s.TracerPid != 0
		})
	})
	if said := x.untilReady(); len(said) != 1 {
		t.Errorf("the program says %q", said)
	}
}

// A tree whose freeze fails half way runs on whole, with what it forks meanwhile.
func TestFreezeGivenUpLeavesNothingTraced(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "freeze"), "forks")
	failed := errors.New("given up")
	for range 10 {
		passes := 0
		_, err := tr.Freeze(soon(t), NewSleeps(), func() ([]int, error) {
			if passes++; passes > 1 {
				return nil, failed
			}
			return x.roots()
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		eventually(t, "nothing is traced", func() bool {
			tr.Reap()
			return !slices.ContainsFunc(x.group(), func(s procfs.Status) bool { return s.TracerPid != 0 })
		})
	}
	if got := x.ask("?"); got != "alive" {
		t.Errorf("the program says %q", got)
	}
}
