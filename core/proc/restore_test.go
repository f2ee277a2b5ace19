package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// checkpointed is a tree that was saved and killed.
type checkpointed struct {
	state *State
	img   *image.Reader
	fds   map[int]int // our duplicates of its descriptions, by FileState.ID
}

// checkpoint saves the program's tree and ends it. The descriptions of its
// files stay open here, and are given to the restored tree: what plugins do
// is not under test.
func (x *target) checkpoint(t *testing.T) *checkpointed {
	t.Helper()
	tree := x.freeze()
	if err := tree.Check(here()); err != nil {
		t.Fatal(err)
	}
	x.open(tree)
	c := &checkpointed{fds: map[int]int{}}
	files, err := tree.OpenFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var states []FileState
	for _, f := range files {
		fd, err := f.Dup()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		c.fds[f.ID] = fd
		states = append(states, NewFileState("test", f))
	}
	c.state = x.inspect(tree)
	c.state.SetFiles(states)
	c.img = writeImage(t, tree, c.state)
	payload, err := c.state.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if c.state, err = DecodeState(StateVersion, payload); err != nil {
		t.Fatal(err)
	}
	if err := tree.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tree has ended", func() bool { x.tr.Reap(); return x.ended(tree) })
	return c
}

func (x *target) ended(tree *Tree) bool {
	return !slices.ContainsFunc(tree.procs, func(p *Process) bool { return unix.Kill(p.host, 0) == nil })
}

func noReopen(context.Context, string, plugin.Process, plugin.Mapping) (int, error) {
	return -1, errors.New("no plugin is there")
}

// restoreSteps are the steps of a restart in their order.
var restoreSteps = []struct {
	name string
	run  func(ctx context.Context, r *Restorer, c *checkpointed) error
}{
	{"Tree", func(ctx context.Context, r *Restorer, c *checkpointed) error { return r.Tree(ctx, !r.newNamespaces) }},
	{"Fill", func(ctx context.Context, r *Restorer, c *checkpointed) error {
		return r.Fill(ctx, func(done, total int64) {})
	}},
	{"Memory", func(ctx context.Context, r *Restorer, c *checkpointed) error {
		return r.Memory(ctx, c.fds, noReopen, nil, nil)
	}},
	{"Files", func(ctx context.Context, r *Restorer, c *checkpointed) error { return r.Files(ctx, c.fds) }},
	{"Threads", func(ctx context.Context, r *Restorer, c *checkpointed) error { return r.Threads(ctx) }},
	{"Finish", func(ctx context.Context, r *Restorer, c *checkpointed) error { return r.Finish(ctx) }},
	{"Run", func(ctx context.Context, r *Restorer, c *checkpointed) error { return r.Run(ctx) }},
}

// restorer prepares a restart, and skips the test where the host gives no
// namespaces.
func (c *checkpointed) restorer(t *testing.T, tr *Tracer, newNamespaces bool) *Restorer {
	t.Helper()
	return tr.NewRestorer(c.state, c.img, RestoreOptions{NewNamespaces: newNamespaces, Sleeps: NewSleeps(),
		Warn: func(format string, args ...any) { t.Logf("warning: "+format, args...) }})
}

// restore brings the tree back, and ends it with the test.
func (c *checkpointed) restore(t *testing.T, tr *Tracer, newNamespaces bool) *Restorer {
	t.Helper()
	r := c.restorer(t, tr, newNamespaces)
	for _, s := range restoreSteps {
		if err := s.run(soon(t), r, c); err != nil {
			r.Abort()
			if errors.Is(err, ErrNoNamespaces) {
				t.Skip(err)
			}
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	hosts := hostPIDs(r)
	t.Cleanup(func() {
		for _, pid := range hosts {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		eventually(t, "the restored tree has ended", func() bool { tr.Reap(); return len(alive(hosts)) == 0 })
		r.report.Close()
	})
	return r
}

// hostPIDs lists all processes that a restart has made so far.
func hostPIDs(r *Restorer) (pids []int) {
	for _, p := range r.byPID {
		pids = append(pids, p.host)
	}
	if r.stub != nil {
		pids = append(pids, r.stub.host)
	}
	return pids
}

// alive filters pids for those that are there, zombies too.
func alive(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return unix.Kill(pid, 0) != nil })
}

func namespaceModes() map[string]bool {
	modes := map[string]bool{"new namespaces": true}
	if os.Geteuid() == 0 {
		modes["current namespaces"] = false
	}
	return modes
}

// TestRestoreMakesTheTreeAgain restarts a tree twice and asks it for all ids
// and states that it sees.
func TestRestoreMakesTheTreeAgain(t *testing.T) {
	for mode, fresh := range namespaceModes() {
		t.Run(mode, func(t *testing.T) {
			becomeSubreaper(t)
			tr := newTracer(t)
			x := launchCmd(t, tr, exec.Command(program(t, "tree")))
			x.wholeTree = true
			before := x.ask("tell")
			c := x.checkpoint(t)
			c.restore(t, tr, fresh)
			after := x.ask("tell")
			if mode == "new namespaces" {
				// The session it was launched in is outside of its pid namespace.
				sid := fmt.Sprintf("sid %d", c.state.Session)
				before, after = strings.ReplaceAll(before, sid, "sid 0"), strings.ReplaceAll(after, sid, "sid 0")
			}
			if after != before {
				t.Errorf("the tree sees\n%s\nwant\n%s", after, before)
			}
			if got := x.ask("zombie"); got != "exited 7" {
				t.Errorf("the zombie's end: %s", got)
			}
			if got := x.ask("continue"); got != "continued" {
				t.Errorf("the stopped child says %q", got)
			}
		})
	}
}

// TestRestoreLetsClocksGoOn has the image come from a host that was up much
// longer.
func TestRestoreLetsClocksGoOn(t *testing.T) {
	const longer = 1000 * time.Hour
	becomeSubreaper(t)
	tr := newTracer(t)
	x := launchCmd(t, tr, exec.Command(program(t, "tree")))
	x.wholeTree = true
	mono, boot := x.clocks()
	c := x.checkpoint(t)
	c.state.Clocks.Monotonic += longer
	c.state.Clocks.Boottime += longer
	c.restore(t, tr, true)
	mono2, boot2 := x.clocks()
	for name, d := range map[string]time.Duration{"CLOCK_MONOTONIC": mono2 - mono, "CLOCK_BOOTTIME": boot2 - boot} {
		if d < longer || d > longer+patience {
			t.Errorf("%s goes on by %v, want %v", name, d, longer)
		}
	}
}

func (x *target) clocks() (mono, boot time.Duration) {
	x.tb.Helper()
	var m, b float64
	if l := x.ask("clock"); l != "" {
		if _, err := fmt.Sscanf(l, "%f %f", &m, &b); err != nil {
			x.tb.Fatalf("%q: %v", l, err)
		}
	}
	return time.Duration(m * 1e9), time.Duration(b * 1e9)
}

// remadeTree makes the processes of a checkpoint again, which have nothing yet. The
// caller aborts it.
func remadeTree(t *testing.T, tr *Tracer) *Restorer {
	t.Helper()
	x := launchCmd(t, tr, exec.Command(program(t, "tree")))
	x.wholeTree = true
	c := x.checkpoint(t)
	becomeSubreaper(t)
	r := c.restorer(t, tr, true)
	err := r.Tree(soon(t), false)
	if err == nil {
		return r
	}
	r.Abort()
	if errors.Is(err, ErrNoNamespaces) {
		t.Skip(err)
	}
	t.Fatal(err)
	return nil
}

// TestMakeEnded leaves of each process a pidfd, and of a wait status that is
// none nothing.
func TestMakeEnded(t *testing.T) {
	tr := newTracer(t)
	r := remadeTree(t, tr)
	defer r.Abort()
	known := len(r.byPID)
	for _, status := range []int{0, 9 << 8, int(unix.SIGKILL), int(unix.SIGSEGV)} {
		fd := -1
		err := r.MakeEnded(soon(t), status, func(host int) (err error) {
			fd, err = unix.PidfdOpen(host, 0)
			return err
		})
		if err != nil {
			t.Fatalf("status %#x: %v", status, err)
		}
		if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != unix.ESRCH {
			t.Errorf("status %#x: pidfd_send_signal: %v, want ESRCH", status, err)
		}
		unix.Close(fd)
	}
	for _, status := range []int{-1, 1 << 16, int(unix.SIGCHLD), int(unix.SIGSTOP), 0x7f} {
		if err := r.MakeEnded(soon(t), status, func(int) error { t.Error("a process"); return nil }); err == nil {
			t.Errorf("status %#x: no error", status)
		}
	}
	if len(r.byPID) != known {
		t.Errorf("%d processes, want %d", len(r.byPID), known)
	}
}

// TestRestoreTwiceAtOnce restarts one image twice while both live.
func TestRestoreTwiceAtOnce(t *testing.T) {
	becomeSubreaper(t)
	tr := newTracer(t)
	x := launchCmd(t, tr, exec.Command(program(t, "tree")))
	x.wholeTree = true
	c := x.checkpoint(t)
	a, b := c.restore(t, tr, true), c.restore(t, tr, true)
	for _, r := range []*Restorer{a, b} {
		for _, ps := range c.state.Processes {
			if ps.Zombie {
				continue
			}
			if s, err := procfs.ReadStatus(r.HostPID(ps.PID)); err != nil || s.InnerPID() != ps.PID {
				t.Errorf("pid %d: host pid %d, %v", ps.PID, r.HostPID(ps.PID), err)
			}
		}
	}
}

// TestAbortLeavesNothingBehind gives a restart up in and after each of its
// steps.
func TestAbortLeavesNothingBehind(t *testing.T) {
	for mode, fresh := range namespaceModes() {
		becomeSubreaper(t)
		tr := newTracer(t)
		x := launchCmd(t, tr, exec.Command(program(t, "tree")))
		x.wholeTree = true
		c := x.checkpoint(t)
		for i, last := range restoreSteps[:len(restoreSteps)-1] {
			for _, how := range []string{"cancelled before", "cancelled in", "after"} {
				t.Run(fmt.Sprintf("%s, %s %s", mode, how, last.name), func(t *testing.T) {
					r := c.restorer(t, tr, fresh)
					for _, s := range restoreSteps[:i] {
						if err := s.run(soon(t), r, c); err != nil {
							r.Abort()
							if errors.Is(err, ErrNoNamespaces) {
								t.Skip(err)
							}
							t.Fatalf("%s: %v", s.name, err)
						}
					}
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					switch how {
					case "cancelled before":
						cancel()
					case "cancelled in":
						time.AfterFunc(200*time.Microsecond, cancel)
					}
					err := last.run(ctx, r, c)
					if err == nil && how == "cancelled before" {
						t.Logf("%s does not notice that its context has ended", last.name)
					}
					hosts := hostPIDs(r)
					r.Abort()
					tr.Reap()
					if left := alive(hosts); len(left) > 0 {
						t.Errorf("processes %v of %v are left", left, hosts)
						for _, pid := range left {
							_ = unix.Kill(pid, unix.SIGKILL)
						}
					}
					if own, err := procfs.Children(os.Getpid()); err != nil || len(own) > 0 {
						t.Errorf("children %v are left, %v", own, err)
					}
				})
			}
		}
	}
}

// TestDeathOfTheAgentInARestart kills a process that restarts a tree after
// each of its steps: nothing of the tree may live on.
func TestDeathOfTheAgentInARestart(t *testing.T) {
	prog := program(t, "tree")
	for i, s := range restoreSteps[:len(restoreSteps)-1] {
		t.Run("after "+s.name, func(t *testing.T) {
			becomeSubreaper(t)
			tr := newTracer(t)
			cmd := againAsTest("restore-and-wait", prog, strconv.Itoa(i+1))
			x := spawn(t, tr, cmd)
			l := x.line()
			if l == "no namespaces" {
				t.Skip(l)
			}
			var hosts []int
			for f := range strings.FieldsSeq(l) {
				pid, err := strconv.Atoi(f)
				if err != nil {
					t.Fatalf("the agent says %q", l)
				}
				hosts = append(hosts, pid)
			}
			if len(hosts) < 5 || len(alive(hosts)) < 5 {
				t.Fatalf("processes %v, alive %v", hosts, alive(hosts))
			}
			if err := unix.Kill(x.pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "nothing is left", func() bool { tr.Reap(); return len(alive(hosts)) == 0 })
		})
	}
}

// restoreAndWait restores a tree up to a step, tells the host pids, and waits.
func restoreAndWait(t *testing.T, args []string) {
	steps, err := strconv.Atoi(args[1])
	if err != nil {
		t.Fatal(err)
	}
	becomeSubreaper(t)
	tr := newTracer(t)
	x := launchCmd(t, tr, exec.Command(args[0]))
	x.wholeTree = true
	c := x.checkpoint(t)
	r := c.restorer(t, tr, true)
	for _, s := range restoreSteps[:steps] {
		if err := s.run(soon(t), r, c); err != nil {
			r.Abort()
			if errors.Is(err, ErrNoNamespaces) {
				fmt.Println("no namespaces")
				return
			}
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	fmt.Println(strings.Trim(fmt.Sprint(hostPIDs(r)), "[]"))
	select {} // until the test ends this process
}

// The names of shared memory do not grow from one generation to the next.
func TestMemfdNamesStay(t *testing.T) {
	for name, want := range map[string]string{"/dev/zero": "zero", "/memfd:zero": "zero", "/memfd:a:b": "a:b",
		"/memfd:" + strings.Repeat("x", 249): strings.Repeat("x", 249), "/" + strings.Repeat("y", 255): strings.Repeat("y", 249)} {
		if got := (&ObjectState{Name: name}).memfdName(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
