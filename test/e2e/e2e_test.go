package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/internal/linux"
)

// mode is how a program is checkpointed.
type mode struct {
	name        string
	checkpoints int
	kill        bool     // and restarted from each
	restart     []string // flags
}

func modes() []mode {
	return []mode{
		{"generations", 3, true, nil},
		{"in place", 10, false, nil},
	}
}

// TestMain lets four programs run at once where -parallel does not say
// otherwise: most of them wait for something.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	// What the tests were started with, as pipes of a build system, is not
	// for the programs.
	if err := linux.CloseOnExecFrom(3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// TestEndToEnd runs everything. It is one test, so that what it builds needs
// no global variable.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newSuite(t)
	s.buildFixtures(t)
	table := &results{head: "PROGRAM\tAS\tMODE\tCHECKPOINTS\tRESULT"}
	t.Cleanup(func() { table.publish(t) })
	for _, p := range slices.Concat(realPrograms(), servers(), ruleFixtures()) {
		for _, m := range modes() {
			for _, id := range s.identities {
				if p.as != "" && p.as != id.name {
					continue
				}
				t.Run(testName(p.name, id.name, m.name), func(t *testing.T) {
					t.Parallel()
					s.require(t, p.needs...)
					s.runProgram(t, p, m, id, table)
				})
			}
		}
	}
	for _, b := range behaviours() {
		for _, id := range s.identities {
			t.Run(testName(b.name, id.name), func(t *testing.T) {
				t.Parallel()
				s.require(t, b.needs...)
				s.runBehaviour(t, b, id, table)
			})
		}
	}
}

// runBehaviour shows one behaviour.
func (s *suite) runBehaviour(t *testing.T, b behaviour, id identity, table *results) {
	result := "failed"
	defer func() {
		if t.Skipped() {
			result = "skipped"
		}
		table.add(b.name, id.name, "-", 0, result)
	}()
	b.run(s.newTrial(t, id))
	if !t.Failed() {
		result = "ok"
	}
}

// testName joins words to a name without blanks.
func testName(words ...string) string {
	return strings.NewReplacer(" ", "-", "|", "", ",", "", ":", "").Replace(strings.Join(words, "/"))
}

// runProgram makes all checkpoints of a mode, and then lets the program end.
func (s *suite) runProgram(t *testing.T, p program, m mode, id identity, table *results) {
	checkpoints, result := 0, "failed"
	defer func() { table.add(p.name, id.name, m.name, checkpoints, result) }()
	tr := s.newTrial(t, id)
	tr.launchWith(p.flags, p.args(tr)...)
	for turn := range m.checkpoints {
		p.next(tr, m, turn)
		if m.kill {
			tr.suspend()
			tr.restart(m.restart...)
		} else {
			tr.checkpoint()
		}
		checkpoints++
	}
	p.next(tr, m, m.checkpoints)
	p.end(tr)
	tr.gone()
	if !t.Failed() {
		result = "ok"
	}
}
