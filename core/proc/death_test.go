package proc

import (
	"bufio"
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// TestDeathOfTheTracer kills a tracer at random moments while it freezes and
// injects without end: the program must go on unharmed every time.
func TestDeathOfTheTracer(t *testing.T) {
	const kills = 200
	for _, phase := range []string{"whole", "batch"} {
		for _, trap := range []string{"default", "ignore", "handler"} {
			t.Run(phase+" SIGTRAP "+trap, func(t *testing.T) {
				tr := newTracer(t)
				r := rand.New(rand.NewSource(1))
				misses := 0
				n := kills / 2
				if trap != "default" {
					n = kills / 5
				}
				x := launch(t, tr, program(t, "steady"), trap)
				for range n {
					killTracer(t, x, phase, time.Duration(r.Intn(2000))*time.Microsecond)
					if got := x.answer(); got != "steady" {
						misses++
						t.Logf("the program says %q", got)
						x = launch(t, tr, program(t, "steady"), trap)
					}
				}
				if misses > 0 {
					t.Errorf("%d of %d deaths of the tracer harmed the program", misses, n)
				}
			})
		}
	}
}

// killTracer starts a tracer of x, and kills it some time after its first
// round.
func killTracer(t *testing.T, x *target, phase string, after time.Duration) {
	t.Helper()
	killReady(t, again("freeze-for-ever", strconv.Itoa(x.pid), phase), after)
}

// killReady kills a tracer some time after it has said that it is ready.
func killReady(t *testing.T, cmd *exec.Cmd, after time.Duration) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
		t.Fatalf("the tracer says %q, %v", l, err)
	}
	time.Sleep(after) // the random moment, which is what is tested
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// answer asks the program for a sign of life, and returns how it ended where
// there is none.
func (x *target) answer() string {
	x.tb.Helper()
	if _, err := fmt.Fprintln(x.in, "?"); err != nil {
		return x.obituary()
	}
	if err := x.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		x.tb.Fatal(err)
	}
	l, err := x.lines.ReadString('\n')
	if err != nil && l == "" {
		return x.obituary()
	}
	return l[:len(l)-1]
}

func (x *target) obituary() string {
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(x.pid, &ws, unix.WNOHANG, nil); err == nil && pid == 0 {
		s, _ := procfs.ReadStatus(x.pid)
		return fmt.Sprintf("nothing, state %c", s.State)
	}
	return fmt.Sprintf("nothing any more: signal %d, exit code %d", ws.Signal(), ws.ExitStatus())
}

// freezeForEver freezes, injects and releases a process until it is killed.
// In phase "batch" the process stays frozen, and only batches run.
func freezeForEver() error {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	ctx, tr := context.Background(), NewTracer()
	roots := func() ([]int, error) { return []int{pid}, nil }
	for first := true; ; first = false {
		tree, err := tr.Freeze(ctx, NewSleeps(), roots)
		if err != nil {
			return err
		}
		if err := tree.Open(ctx); err != nil {
			return err
		}
		if first {
			fmt.Println("ready")
		}
		for inject := true; inject; inject = os.Args[2] == "batch" {
			for _, p := range tree.Procs() {
				err := tr.Do(func() error {
					for _, th := range p.threads {
						calls := make([]call, 20)
						for i := range calls {
							calls[i] = sys(unix.SYS_GETPPID)
						}
						if err := p.run(ctx, th, calls); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
		if err := tree.Release(ctx); err != nil {
			return err
		}
	}
}
