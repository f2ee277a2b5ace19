package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestLazy shows programs that run before their memory is there.
func TestLazy(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newSuite(t)
	s.buildFixtures(t)
	table := &results{head: "PROGRAM\tAS\tMODE\tCHECKPOINTS\tRESULT"}
	t.Cleanup(func() { table.publish(t) })
	for _, b := range []behaviour{
		{"lazy: each thing", []string{"gcc"}, func(tr *trial) { lazyThings(tr, "none") }},
		{"lazy: each thing, compressed", []string{"gcc"}, func(tr *trial) { lazyThings(tr, "zstd") }},
		{"lazy: incremental", []string{"gcc"}, lazyChain},
		{"lazy: agent killed", []string{"gcc"}, lazyAgentKilled},
		{"lazy: program killed", []string{"gcc"}, lazyProgramKilled},
		{"lazy: stopped and continued", []string{"gcc"}, lazyStopped},
		{"lazy: checkpoint meanwhile", []string{"gcc"}, lazyCheckpoint},
		{"lazy: damaged image", []string{"gcc"}, lazyDamaged},
		{"lazy: removed image", []string{"gcc"}, lazyRemoved},
		{"lazy: several agents", []string{"gcc"}, lazySeveral},
		{"lazy: not possible", []string{"gcc"}, lazyNotPossible},
	} {
		for _, id := range s.faultIdentities() {
			t.Run(testName(b.name, id.name), func(t *testing.T) {
				s.require(t, b.needs...)
				s.runBehaviour(t, b, id, table)
			})
		}
	}
	for _, p := range realPrograms() {
		if !slices.Contains([]string{"python3", "go", "node", "java", "500 threads", "200 processes"}, p.name) {
			continue
		}
		for _, id := range s.faultIdentities() {
			t.Run(testName("lazy", p.name, id.name), func(t *testing.T) {
				t.Parallel()
				s.require(t, p.needs...)
				s.runProgram(t, p, mode{"lazy", 2, true, []string{"--lazy"}}, id, table)
			})
		}
	}
}

// lateThings is how many things the fixture does with its memory.
const lateThings = 16

func (tr *trial) launchLate(mib int, flags ...string) {
	tr.Helper()
	tr.launchWith(flags, tr.suite.fixture("late"), fmt.Sprint(mib))
	tr.advance(1)
}

// arriving waits until memory is on its way. It is false where it was faster.
func (tr *trial) arriving() bool {
	tr.Helper()
	type status struct {
		Agents []struct {
			Arriving *struct{ Done, Total int64 }
		}
	}
	for {
		var st status
		o := tr.hiatus("status", tr.name, "--json")
		if o.code == 0 {
			if err := json.Unmarshal([]byte(o.stdout), &st); err != nil {
				tr.Fatal(err)
			}
		}
		switch {
		case len(st.Agents) == 1 && st.Agents[0].Arriving != nil:
			if m := st.Agents[0].Arriving; m.Total < 64<<20 || m.Done > m.Total {
				tr.Errorf("%d of %d bytes have arrived", m.Done, m.Total)
			}
			return true
		case strings.Contains(tr.read("hiatus.log"), "all memory has arrived"):
			return false
		case tr.front.hasEnded():
			tr.Fatalf("hiatus has ended: %s", tr.read("stderr"))
		}
	}
}

// arrivals counts the lazy restarts whose memory has come.
func (tr *trial) arrivals() int {
	return strings.Count(tr.read("hiatus.log"), "all memory has arrived")
}

// lazyThings restarts the program before each of the things that it does.
func lazyThings(tr *trial, compress string) {
	tr.launchLate(256, "--compress", compress)
	for n := 1; n <= lateThings; n++ {
		tr.suspend()
		if err := os.Symlink(fmt.Sprint(n), tr.path("go.new")); err != nil {
			tr.Fatal(err)
		}
		if err := os.Rename(tr.path("go.new"), tr.path("go")); err != nil {
			tr.Fatal(err)
		}
		tr.restart("--lazy")
		tr.reach(int64(n) + 1)
		tr.await("all memory", func() bool { return tr.arrivals() == n })
	}
	tr.finish()
}

// lazyChain restarts from a chain of generations.
func lazyChain(tr *trial) {
	tr.launchLate(128, "--incremental")
	for n := 1; n <= 4; n++ {
		tr.checkpoint()
		tr.pass(n)
	}
	tr.suspend()
	tr.restart("--lazy")
	for n := 5; n <= lateThings; n++ {
		tr.pass(n)
	}
	if tr.arrivals() != 1 {
		tr.Error("it was no lazy restart")
	}
	tr.finish()
}

// whileArriving restarts until do can be called while memory is on its way.
func (tr *trial) whileArriving(do func()) {
	tr.Helper()
	tr.launchLate(512, "--compress", "zstd")
	tr.suspend()
	for range 5 {
		tr.restart("--lazy")
		if tr.arriving() {
			do()
			return
		}
		tr.must("kill", tr.name)
		tr.wait(tr.front)
		tr.gone()
		if err := os.Remove(tr.path("hiatus.log")); err != nil {
			tr.Fatal(err)
		}
	}
	tr.Fatal("memory comes too fast to be met on its way")
}

// lazyAgentKilled: a program whose memory nobody brings ends with its agent.
func lazyAgentKilled(tr *trial) {
	tr.whileArriving(func() {
		if err := tr.front.cmd.Process.Kill(); err != nil {
			tr.Fatal(err)
		}
		tr.wait(tr.front)
		tr.gone()
	})
	if text := tr.read("failed"); text != "" {
		tr.Fatalf("the program failed: %s", text)
	}
	tr.restart()
	tr.pass(int(tr.progress()))
	tr.finish()
}

// lazyProgramKilled: hiatus ends with the program, as ever.
func lazyProgramKilled(tr *trial) {
	tr.whileArriving(func() {
		tr.must("kill", tr.name)
		if code := tr.wait(tr.front); code != 137 && code != 143 {
			tr.Errorf("exit code %d: %s", code, tr.read("stderr"))
		}
		tr.gone()
	})
}

// lazyStopped: stop signals work meanwhile.
func lazyStopped(tr *trial) {
	tr.whileArriving(func() {
		before := tr.arrivals()
		tr.must("kill", tr.name, "--signal", "STOP")
		tr.await("all memory", func() bool { return tr.arrivals() > before })
		tr.await("the stop", func() bool { return strings.Contains(tr.must("status", tr.name), " T ") })
		tr.must("kill", tr.name, "--signal", "CONT")
	})
	tr.pass(1)
	tr.finish()
}

// lazyCheckpoint: a checkpoint waits for the memory, and is whole.
func lazyCheckpoint(tr *trial) {
	tr.whileArriving(func() { tr.suspend() })
	tr.restart("--lazy")
	for n := 1; n <= lateThings; n++ {
		tr.pass(n)
	}
	tr.finish()
}

// lazyDamaged: what differs from its checksum is met when the program runs
// already. It is ended, and never sees it.
func lazyDamaged(tr *trial) {
	tr.launchLate(128, "--compress", "none")
	tr.suspend()
	for _, file := range imageFiles(tr, tr.images()) {
		if !strings.HasPrefix(filepath.Base(file), "pages.") || fileSize(tr, filepath.Join("images", file)) == 0 {
			continue
		}
		bad := tr.images() + "." + filepath.Base(file)
		copyImage(tr, tr.images(), bad)
		path := filepath.Join(bad, file)
		data, err := os.ReadFile(path)
		if err != nil {
			tr.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			tr.Fatal(err)
		}
		o := tr.hiatus("restart", "--lazy", bad)
		if o.code != 99 || !strings.Contains(o.stderr, "checksum") {
			tr.Errorf("%s: %s, want 99 and what differs", file, o)
		}
		tr.gone()
	}
	if text := tr.read("failed"); text != "" {
		tr.Fatalf("the program failed: %s", text)
	}
	tr.restart("--lazy")
	tr.pass(1)
	tr.finish()
}

// lazyRemoved: the agent holds the files.
func lazyRemoved(tr *trial) {
	tr.whileArriving(func() {
		if err := os.RemoveAll(tr.images()); err != nil {
			tr.Fatal(err)
		}
	})
	for n := 1; n <= lateThings; n++ {
		tr.pass(n)
	}
	tr.finish()
}

// lazySeveral: not of several agents.
func lazySeveral(tr *trial) {
	tr.launchLate(32)
	second := tr.start("launch", "--join", tr.name, "--", tr.suite.fixture("sleeps"))
	tr.await("the second tree", func() bool { return strings.Contains(tr.must("status", tr.name), "sleeps") })
	tr.must("checkpoint", tr.name, "--kill")
	tr.wait(tr.front)
	tr.wait(second)
	if o := tr.hiatus("restart", "--lazy", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "--lazy is for one") {
		tr.Errorf("%s, want a refusal", o)
	}
	tr.gone()
}

// lazyNotPossible: where memory cannot come late, it comes at once, and the user
// reads why.
func lazyNotPossible(tr *trial) {
	tr.launchLate(64)
	for _, pid := range tr.processes() {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == tr.suite.fixture("late") {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				tr.Fatal(err)
			}
		}
	}
	tr.suspend()
	tr.restart("--lazy")
	tr.await("the reason", func() bool { return strings.Contains(tr.read("stderr"), "is stopped by a signal") })
	// It stops again when it is there: SIGCONT before would be lost.
	tr.await("the tree", func() bool { return strings.Count(tr.read("hiatus.log"), `"message":"running"`) == 2 })
	tr.must("kill", tr.name, "--signal", "CONT")
	tr.pass(1)
	tr.finish()
}
