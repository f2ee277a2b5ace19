package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// A restart that fails in any of its steps names the reason, and leaves
// nothing behind: the same image can be restarted after it.
func TestFailedGenerations(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "restore_tree")))
	x.untilReady()
	g := x.save()
	last := func(st *State) *ProcessState { // of those that live
		i := slices.IndexFunc(st.Processes, func(p ProcessState) bool { return !p.Zombie && len(p.Threads) > 1 && p.PPID != 0 })
		return &st.Processes[i]
	}
	leaf := func(st *State) *ProcessState {
		first := &st.Processes[0]
		i := slices.IndexFunc(st.Processes, func(p ProcessState) bool {
			parent := slices.ContainsFunc(st.Processes, func(c ProcessState) bool { return c.PPID == p.PID })
			return !parent && p.PPID == first.PID && p.PGID == first.PGID && len(p.Threads) == 1 && !p.Stopped && !p.LeaderGone
		})
		return &st.Processes[i]
	}
	for _, tc := range []struct {
		step, name string
		change     func(st *State)
		want       string
	}{
		{"Tree", "the id of the namespace's first process", func(st *State) { leaf(st).PID = 1 }, "in use"},
		{"Memory", "a program that is gone", func(st *State) { last(st).Exe = "/none" }, "/none"},
		{"Memory", "a mapped file that is gone", func(st *State) { changeFileMap(last(st)) }, "/none"},
		{"Files", "a directory that is gone", func(st *State) { last(st).Cwd = "/none" }, "/none"},
		{"Threads", "a thread with an id in use", func(st *State) { last(st).Threads[1].TID = 1 }, "in use"},
		{"Finish", "registers of another processor", func(st *State) { last(st).Threads[1].Extra[0].Data = []byte{1} }, "register set"},
		{"Finish", "a limit above its maximum", func(st *State) { last(st).Limits[unix.RLIMIT_NOFILE] = syscall.Rlimit{Cur: 2, Max: 1} }, "RLIMIT_NOFILE"},
	} {
		for mode, fresh := range namespaceModes() {
			t.Run(fmt.Sprintf("%s: %s, %s", tc.step, tc.name, mode), func(t *testing.T) {
				st, err := DecodeState(StateVersion, encoded(t, g.st))
				if err != nil {
					t.Fatal(err)
				}
				tc.change(st)
				_, step, err := (&generation{st: st, img: g.img, fds: g.fds}).attempt(t, x.tr, fresh)
				if errors.Is(err, ErrNoNamespaces) {
					t.Skip(err)
				}
				if err == nil {
					t.Fatal("it is restarted")
				}
				if step != tc.step || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s fails: %v; want %s with %q", step, err, tc.step, tc.want)
				}
				if tc.want == "in use" && !errors.Is(err, ErrPidTaken) {
					t.Errorf("%v is not ErrPidTaken", err)
				}
				x.assertNothingLeft(g)
			})
		}
	}
	x.restore(g, true)
	x.order("check")
}

func changeFileMap(ps *ProcessState) {
	i := slices.IndexFunc(ps.Maps, func(m MapState) bool { return m.Kind == MapFile })
	ps.Maps[i].Path = "/none"
}

// assertNothingLeft wants that no process of a restart that was given up
// lives, and that its ids are free where they can be taken.
func (x *subject) assertNothingLeft(g *generation) {
	x.tb.Helper()
	x.tr.Reap() // orphans come to this process when their parents are reaped
	if left := x.strays(); len(left) > 0 {
		for _, pid := range left {
			st, err := procfs.ReadStat(pid)
			x.tb.Errorf("pid %d is left: %s, state %c (%v)", pid, st.Comm, st.State, err)
		}
		x.end()
	}
	if !g.st.IDsFree() {
		x.tb.Error("ids of the image are in use")
	}
}

// In the current namespaces an id that another process has is not taken from
// it.
func TestGenerationsDoNotTakeIDsInUse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root restarts in the current namespaces")
	}
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "restore_tree")))
	x.untilReady()
	g := x.save()
	r := x.restore(g, false)
	if g.st.IDsFree() {
		t.Error("the ids of a tree that runs are said to be free")
	}
	_, step, err := g.attempt(t, x.tr, false)
	if step != "Tree" || !errors.Is(err, ErrPidTaken) {
		t.Errorf("a second restart: %s: %v, want ErrPidTaken", step, err)
	}
	x.assertWhole(g, r)
	x.order("check elsewhere")
	// In namespaces of its own it has them.
	y := newSubject(t, x.tr)
	y.where = x.where
	if _, step, err := g.attempt(t, x.tr, true); err != nil {
		t.Errorf("in new namespaces: %s: %v", step, err)
	}
}
