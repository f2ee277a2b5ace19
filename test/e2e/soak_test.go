package e2e

import (
	"fmt"
	"maps"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// soakTally is what TestSoak has done.
type soakTally struct {
	mu                                    sync.Mutex
	programs, generations, restarts, lost int
	faults                                map[string]int
}

func (t *soakTally) add(n *int, by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*n += by
}

func (t *soakTally) fault(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
}

// hopeless says whether so much is lost that more would tell nothing new.
func (t *soakTally) hopeless() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost >= 10
}

func (t *soakTally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum, kinds := 0, ""
	for _, kind := range slices.Sorted(maps.Keys(t.faults)) {
		sum += t.faults[kind]
		kinds += fmt.Sprintf("\n%6d %s", t.faults[kind], kind)
	}
	return fmt.Sprintf("programs %d, generations made %d, restarts %d, faults injected %d, lost: %d%s",
		t.programs, t.generations, t.restarts, sum, t.lost, kinds)
}

// soakPrograms are those that may be taken back to an earlier moment. What a program has
// written to a database or to an archive stays written then, which is no loss of
// ours; nor that the agent, when it is continued, continues the program's process
// group, as a shell does, with what was stopped in it.
func soakPrograms() []program {
	return slices.DeleteFunc(slices.Concat(realPrograms(), ruleFixtures()), func(p program) bool {
		return p.drive != nil || p.progress != nil || p.finish != nil || p.as != "" || p.name == "files" || p.name == "tree"
	})
}

// TestSoak checkpoints, kills and restarts programs at random for as long as
// HIATUS_SOAK says, as 20m. Whatever happens, each goes on from its last
// generation, and ends well.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("HIATUS_SOAK"))
	if err != nil {
		t.Skip("HIATUS_SOAK says how long: make soak")
	}
	s := newFaultSuite(t)
	s.buildFixtures(t)
	programs, tally := soakPrograms(), &soakTally{faults: map[string]int{}}
	until := time.Now().Add(length)
	t.Run("programs", func(t *testing.T) {
		for worker := range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewSource(time.Now().UnixNano() + int64(worker)))
				for time.Now().Before(until) && !tally.hopeless() {
					p, id := programs[r.Intn(len(programs))], s.identities[r.Intn(len(s.identities))]
					t.Run(testName(p.name, id.name), func(t *testing.T) {
						s.require(t, p.needs...)
						s.soak(t, p, id, r, until, tally)
					})
				}
			})
		}
	})
	t.Log(tally)
}

// soaked is a program in the soak.
type soaked struct {
	*faulted
	random *rand.Rand
	tally  *soakTally
	// The steps that its checkpoints have come to by now.
	steps []string
}

// soak runs one program through some turns.
func (s *suite) soak(t *testing.T, p program, id identity, r *rand.Rand, until time.Time, tally *soakTally) {
	tally.add(&tally.programs, 1)
	defer func() {
		if t.Failed() {
			tally.add(&tally.lost, 1)
		}
	}()
	f := &soaked{faulted: s.newFaulted(t, id), random: r, tally: tally}
	flags := [][]string{nil, nil, {"--incremental"}, {"--incremental", "--full-every", "3"}, {"--compress", "s2"}, {"--no-snapshot"}}[r.Intn(6)]
	f.front = f.run(slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images(), "--keep", "2"}, flags, p.flags,
		[]string{"--"}, p.args(f.underSuite(s)))...)
	f.advance(1)
	f.learn()
	for turn := 0; turn < 12 && time.Now().Before(until); turn++ {
		f.turn()
		f.advance(1)
	}
	f.order()
	f.checkpoint() // removes what an agent that was killed has left
	f.tally.add(&f.tally.generations, 1)
	f.endWell()
}

// underSuite is the trial with the programs of s.
func (f *faulted) underSuite(s *suite) *trial {
	tr := *f.trial
	tr.suite = s
	return &tr
}

// learn finds out to which steps a checkpoint of the program comes, when there are
// old generations to remove.
func (f *soaked) learn() {
	f.Helper()
	for range 3 {
		f.write("trace", "")
		f.order("trace: " + f.path("trace"))
		f.checkpoint()
		f.advance(1)
	}
	f.tally.add(&f.tally.generations, 3)
	f.order()
	f.steps = slices.Compact(slices.Sorted(slices.Values(strings.Split(strings.TrimSpace(f.read("trace")), "\n"))))
	f.steps = slices.DeleteFunc(f.steps, func(step string) bool {
		return step == string(faultpoint.CommandConnected) || step == string(faultpoint.CommandAnswered)
	})
}

// turn does one thing of many.
func (f *soaked) turn() {
	f.Helper()
	before := f.newest()
	defer func() { // committed, whatever became of those who wanted it
		f.tally.add(&f.tally.generations, f.newest()-before)
	}()
	step := f.steps[f.random.Intn(len(f.steps))]
	f.Logf("turn at the step %q", step)
	switch f.random.Intn(9) {
	case 0:
		f.checkpoint()
	case 1:
		f.suspendOnly()
		f.resumed()
	case 2:
		f.write("trace", "")
		f.order("trace: "+f.path("trace"), step+": kill")
		if o := f.outcomeOf(f.ask()); (o.code != 0 || f.dyingBeside(step)) && f.died() {
			f.tally.fault("agent killed at a step of a checkpoint")
			f.goneBack()
		}
	case 3:
		f.tally.fault("agent killed")
		command := f.ask()
		f.anyMoment()
		_ = f.front.cmd.Process.Kill()
		f.outcomeOf(command)
		f.orphaned()
		f.goneBack()
	case 4:
		f.fault("command killed", step, func(command *front) { _ = command.cmd.Process.Kill() })
	case 5:
		f.tally.fault("error at a step of a checkpoint")
		f.order(step + ": error EIO")
		f.outcomeOf(f.ask())
		f.order()
		f.idle()
	case 6:
		f.fault("agent stopped", step, func(*front) {
			_ = f.front.cmd.Process.Signal(syscall.SIGSTOP)
			f.anyMoment()
			_ = f.front.cmd.Process.Signal(syscall.SIGCONT)
		})
	case 7:
		f.suspendOnly()
		f.failedRestart()
		f.resumed()
	case 8:
		command := f.ask()
		f.anyMoment()
		for _, pid := range f.copies() {
			f.tally.fault("copy killed")
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		f.outcomeOf(command)
	}
}

// anyMoment is what is tested, and no wait for anything.
func (f *soaked) anyMoment() { time.Sleep(time.Duration(f.random.Intn(100_000)) * time.Microsecond) }

// fault does something while a checkpoint waits at a step, if it comes to it.
func (f *soaked) fault(kind, step string, do func(command *front)) {
	f.Helper()
	fifo := f.fifo()
	f.order(fmt.Sprintf("%s: wait %s", step, fifo))
	command := f.ask()
	if w := f.meetUnless(fifo, command); w != nil {
		f.tally.fault(kind)
		do(command)
		w.Close()
	}
	f.outcomeOf(command)
	f.order()
	f.idle()
}

// dyingBeside says whether the agent ends at a step of a checkpoint that succeeds: nothing
// waits for the end of the copies, which comes where they began to end.
func (f *soaked) dyingBeside(step string) bool {
	return step == string(faultpoint.CopiesEnded) && strings.Contains(f.read("trace"), string(faultpoint.CopiesEnding)+"\n")
}

// died says whether the agent is dead, which the command was told by a
// connection that broke.
func (f *soaked) died() bool {
	f.Helper()
	select {
	case <-f.front.ended:
		f.orphaned()
		return true
	case <-time.After(10 * time.Second):
		return false
	}
}

// goneBack lets a program without agent go on, ends it, and restarts it.
func (f *soaked) goneBack() {
	f.Helper()
	f.order()
	f.advance(1)
	f.killAll(f.left)
	f.nothingLeft()
	f.resumed()
}

// suspendOnly leaves of the program its image.
func (f *soaked) suspendOnly() {
	f.Helper()
	f.order()
	f.must("checkpoint", f.name, "--kill")
	f.wait(f.front)
	f.nothingLeft()
}

// failedRestart is a restart in which the agent is killed, or that fails, at a step
// if it comes to it: nothing runs then.
func (f *soaked) failedRestart() {
	f.Helper()
	steps := faultpoint.OfRestart()
	step := steps[f.random.Intn(slices.Index(steps, faultpoint.RestartReleasing))]
	kind, what, code := "error", "error ENOMEM", 99
	if f.random.Intn(2) == 0 {
		kind, what, code = "agent killed", "kill", 128+9
	}
	f.write("trace", "")
	f.order("trace: "+f.path("trace"), fmt.Sprintf("%s: %s", step, what))
	f.restarting()
	fr := f.front
	f.front = nil
	f.await("the restart or its end", func() bool {
		return fr.hasEnded() || strings.Contains(f.read("trace"), string(faultpoint.RestartSupervised)+"\n")
	})
	if !fr.hasEnded() { // it did not come to the step
		f.front = fr
		f.suspendOnly()
		return
	}
	f.tally.fault(kind + " at a step of a restart")
	f.ends(fr, code)
	f.nothingLeft()
}

// resumed restarts the newest generation.
func (f *soaked) resumed() {
	f.Helper()
	f.tally.add(&f.tally.restarts, 1)
	f.order()
	f.restarting()
	f.running()
}
