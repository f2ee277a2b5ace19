package e2e

import (
	"math/rand"
	"os"
	"slices"
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

func (t *soakTally) add(n *int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*n++
}

func (t *soakTally) fault(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[kind]++
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
	// What a program has written to a database stays written when it is taken
	// back to an earlier moment: that is no loss of ours, and left out here.
	programs := slices.DeleteFunc(slices.Concat(realPrograms(), ruleFixtures()), func(p program) bool {
		return p.drive != nil || p.progress != nil || p.finish != nil || p.as != "" || slices.Contains([]string{"sqlite", "tar", "make", "files"}, p.name)
	})
	tally := &soakTally{faults: map[string]int{}}
	until := time.Now().Add(length)
	t.Run("programs", func(t *testing.T) {
		for worker := range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewSource(time.Now().UnixNano() + int64(worker)))
				for time.Now().Before(until) && !t.Failed() {
					p, id := programs[r.Intn(len(programs))], s.identities[r.Intn(len(s.identities))]
					t.Run(testName(p.name, id.name), func(t *testing.T) {
						s.require(t, p.needs...)
						s.soak(t, p, id, r, tally)
					})
				}
			})
		}
	})
	t.Logf("programs %d, generations made %d, restarts %d, faults injected %v, lost: %d",
		tally.programs, tally.generations, tally.restarts, tally.faults, tally.lost)
}

// soak runs one program through some turns.
func (s *suite) soak(t *testing.T, p program, id identity, r *rand.Rand, tally *soakTally) {
	tally.add(&tally.programs)
	defer func() {
		if t.Failed() {
			tally.add(&tally.lost)
		}
	}()
	f := s.newFaulted(t, id)
	f.front = f.run(slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images(), "--keep", "2"}, p.flags, []string{"--"}, p.args(f.underSuite(s)))...)
	f.advance(1)
	f.checkpoint()
	tally.add(&tally.generations)
	for range 6 {
		f.soakTurn(r, tally)
		f.advance(1)
	}
	f.endWell()
}

// underSuite is the trial with the programs of s.
func (f *faulted) underSuite(s *suite) *trial {
	tr := *f.trial
	tr.suite = s
	return &tr
}

// soakTurn does one thing of many.
func (f *faulted) soakTurn(r *rand.Rand, tally *soakTally) {
	f.Helper()
	before := f.newest()
	defer func() { // committed, whatever became of those who wanted it
		for range f.newest() - before {
			tally.add(&tally.generations)
		}
	}()
	steps := faultpoint.OfCheckpoint()
	step := steps[r.Intn(len(steps))]
	switch r.Intn(7) {
	case 0:
		f.checkpoint()
	case 1:
		f.must("checkpoint", f.name, "--kill")
		f.wait(f.front)
		f.nothingLeft()
		f.soakRestart(tally)
	case 2: // the agent, at a step
		tally.fault("agent killed at a step")
		f.order(string(step) + ": kill")
		f.hiatus("checkpoint", f.name)
		f.soakOrphan(tally)
	case 3: // the agent, at any moment
		tally.fault("agent killed")
		command := f.ask()
		time.Sleep(time.Duration(r.Intn(100_000)) * time.Microsecond) // a random moment, which is what is tested
		_ = f.front.cmd.Process.Kill()
		f.outcomeOf(command)
		f.soakOrphan(tally)
	case 4:
		tally.fault("command killed")
		f.at(step, func(command *front) { _ = command.cmd.Process.Kill() })
		f.idle()
	case 5:
		tally.fault("error")
		f.order(string(step) + ": error EIO")
		f.hiatus("checkpoint", f.name)
		f.order()
	case 6:
		tally.fault("agent stopped")
		f.at(step, func(*front) {
			_ = f.front.cmd.Process.Signal(syscall.SIGSTOP)
			_ = f.front.cmd.Process.Signal(syscall.SIGCONT)
		})
		f.idle()
	}
}

// soakOrphan lets a program without agent go on, ends it, and restarts it. The
// agent dies in that, too, at times.
func (f *faulted) soakOrphan(tally *soakTally) {
	f.Helper()
	f.orphaned()
	f.advance(1)
	f.killAll(f.left)
	f.soakRestart(tally)
}

func (f *faulted) soakRestart(tally *soakTally) {
	f.Helper()
	tally.add(&tally.restarts)
	f.order()
	f.restarting()
	f.running()
}
