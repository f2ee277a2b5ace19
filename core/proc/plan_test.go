package proc

import (
	"fmt"
	"math/rand"
	"os"
	"testing"
)

// A tree that can be made in the session of the agent can be made without it
// too: where it is restarted is not known when it is saved.
func TestPlanDoesNotDependOnTheSessionOfTheAgent(t *testing.T) {
	const trees = 1000
	for seed := range int64(trees) {
		r := rand.New(rand.NewSource(seed))
		m := newModel(2)
		m.procs[2].sid, m.procs[2].pgid = 50, 60
		history(r, m, 5+r.Intn(60))
		st := &State{Reaper: 2, Session: 50}
		for _, n := range m.nodes() {
			ps := ProcessState{PID: n.pid, PPID: n.ppid, PGID: n.pgid, SID: n.sid}
			ps.Prctl.Subreaper = n.subreaper
			st.Processes = append(st.Processes, ps)
		}
		if _, err := st.plan(true); err != nil {
			continue
		}
		if _, err := st.plan(false); err != nil {
			t.Fatalf("seed %d: %v\n%+v", seed, err, m.nodes())
		}
	}
}

// A helper's id must be that of no thread, which is made later.
func TestPlanGivesHelpersFreeIDs(t *testing.T) {
	const top = 1<<22 - 1
	st := validState()
	st.Processes = []ProcessState{
		{PID: 10, PGID: 10, SID: 10, Threads: []ThreadState{validThread(10), validThread(top)}},
		{PID: top - 1, PPID: 10, PGID: top - 1, SID: top - 1},
		{PID: 12, PGID: 9, SID: 9}, // an orphan of a session whose leader has ended
	}
	steps, err := st.plan(false)
	if err != nil {
		t.Fatal(err)
	}
	taken, helpers := map[int]bool{top: true}, 0
	for _, s := range steps {
		if s.kind != stepFork {
			continue
		}
		if taken[s.pid] {
			t.Errorf("id %d stands twice", s.pid)
		}
		taken[s.pid] = true
		if s.helper {
			helpers++
		}
	}
	if helpers == 0 {
		t.Error("no helper was needed: the test tests nothing")
	}
}

func TestGroupOf(t *testing.T) {
	st := validState()
	for pid, want := range map[int]int{100: 100, 103: 100, 101: 0, 7: 0} {
		if got := st.GroupOf(pid); got != want {
			t.Errorf("group of %d: %d, want %d", pid, got, want)
		}
	}
}

func exists(pid int) bool {
	_, err := os.Lstat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

func TestIDsFree(t *testing.T) {
	limit := pidLimit()
	high := limit - 1
	for ; high > 1 && (exists(high) || exists(high-1)); high-- {
	}
	for _, tc := range []struct {
		name     string
		pid, tid int
		free     bool
	}{
		{"free", high, high - 1, true},
		{"process that this namespace has no id for", limit, high, false},
		{"thread that this namespace has no id for", high, limit + 1, false},
		{"process", os.Getpid(), high, false},
		{"thread", high, os.Getpid(), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := &State{Processes: []ProcessState{{PID: tc.pid, Threads: []ThreadState{{TID: tc.tid}}}}}
			if got := st.IDsFree(); got != tc.free {
				t.Errorf("got %v, want %v", got, tc.free)
			}
		})
	}
	t.Run("thread that leads no process", func(t *testing.T) {
		tr := newTracer(t)
		st := &State{Processes: []ProcessState{{PID: high, Threads: []ThreadState{{TID: tracerTID(tr)}}}}}
		if st.IDsFree() {
			t.Errorf("the id of thread %d is said to be free", tracerTID(tr))
		}
	})
}
