package proc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
)

// generation is a tree on disk, with duplicates of its open files: what
// plugins do is not under test.
type generation struct {
	st  *State
	img *image.Reader
	fds map[int]int // by FileState.ID

	prepare func(*Restorer) // may be nil; called when the tree is made
}

// keepFiles holds the open file descriptions of the tree, by id, until the test ends.
func (x *subject) keepFiles(tree *Tree) map[int]int {
	x.tb.Helper()
	files, err := tree.OpenFiles(soon(x.tb))
	if err != nil {
		x.tb.Fatal(err)
	}
	fds := map[int]int{}
	for _, f := range files {
		fd, err := f.Dup()
		if err != nil {
			x.tb.Fatal(err)
		}
		x.tb.Cleanup(func() { unix.Close(fd) })
		fds[f.ID] = fd
	}
	return fds
}

// save writes the tree to an image and ends it.
func (x *subject) save() *generation {
	x.tb.Helper()
	tree := x.freeze()
	st := x.inspect(tree)
	x.assertUmasks(tree, st)
	g := &generation{fds: x.keepFiles(tree)}
	g.img = x.write(tree, st)
	var err error
	if g.st, err = DecodeState(StateVersion, encoded(x.tb, st)); err != nil {
		x.tb.Fatal(err)
	}
	if err := errors.Join(g.st.CheckHost(), g.st.CheckPaths()); err != nil {
		x.tb.Fatal(err)
	}
	if err := tree.Kill(); err != nil {
		x.tb.Fatal(err)
	}
	x.end()
	return g
}

// assertUmasks compares what was read of a process with what its live threads
// show: an exited leader shows none.
func (x *subject) assertUmasks(tree *Tree, st *State) {
	x.tb.Helper()
	for _, p := range tree.Procs() {
		s, err := procfs.ReadTaskStatus(p.host, p.liveTID())
		if ps := processOf(x.tb, st, p.pid); err != nil || ps.Umask != s.Umask {
			x.tb.Errorf("pid %d: umask %#o in the image, %#o in the process (%v)", p.pid, ps.Umask, s.Umask, err)
		}
	}
}

func (x *subject) write(tree *Tree, st *State) *image.Reader {
	x.tb.Helper()
	dir := x.tb.TempDir()
	const stripes = 2
	w, err := image.Create(dir, image.Options{Stripes: stripes})
	if err != nil {
		x.tb.Fatal(err)
	}
	defer w.Abort()
	m := tree.NewMemory(st, nil)
	defer m.Close()
	if err := m.Write(soon(x.tb), w, func(_, _ int64) {}); err != nil {
		x.tb.Fatal(err)
	}
	if _, err := w.Close(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
	img, err := image.Open(dir)
	if err != nil {
		x.tb.Fatal(err)
	}
	x.tb.Cleanup(func() { img.Close() })
	return img
}

// attempt restarts an image as far as it goes, and returns the step that
// fails. What was made by then is aborted.
func (g *generation) attempt(tb testing.TB, tr *Tracer, fresh bool) (r *Restorer, step string, err error) {
	tb.Helper()
	r = tr.NewRestorer(g.st, g.img, RestoreOptions{NewNamespaces: fresh, Sleeps: NewSleeps(),
		Warn: func(format string, args ...any) { tb.Logf("warning: "+format, args...) }})
	for _, s := range restoreSteps {
		if err := s.run(soon(tb), r, &checkpointed{state: g.st, img: g.img, fds: g.fds}); err != nil {
			r.Abort()
			return nil, s.name, err
		}
		if s.name == "Tree" && g.prepare != nil {
			g.prepare(r)
		}
	}
	tb.Cleanup(func() { r.report.Close() })
	return r, "", nil
}

// restore brings the subject back from an image.
func (x *subject) restore(g *generation, fresh bool) *Restorer {
	x.tb.Helper()
	pid := x.main(g)
	r, step, err := g.attempt(x.tb, x.tr, fresh)
	if errors.Is(err, ErrNoNamespaces) {
		x.tb.Skip(err)
	}
	if err != nil {
		x.tb.Fatalf("%s: %v", step, err)
	}
	x.pid = r.HostPID(pid)
	x.awaitRest(g, r)
	x.where = Surroundings{Reference: r.reaper.host, Reaper: g.st.Reaper, Session: g.st.Session}
	return r
}

// awaitRest waits until every thread waits again in the call in which it was
// saved, and the stopped stand: all programs here do nothing by themselves.
func (x *subject) awaitRest(g *generation, r *Restorer) {
	x.tb.Helper()
	for i := range g.st.Processes {
		ps := &g.st.Processes[i]
		if ps.Zombie {
			continue
		}
		want := map[bool]byte{true: 'T', false: 'S'}[ps.Stopped]
		for _, th := range r.byPID[ps.PID].threads {
			eventually(x.tb, fmt.Sprintf("pid %d tid %d is in state %c", ps.PID, th.TID, want), func() bool {
				s, err := procfs.ReadTaskStatus(r.HostPID(ps.PID), th.HostTID)
				return err == nil && s.State == want
			})
		}
	}
}

// main is the pid of the program's first process, which the image has first.
func (x *subject) main(g *generation) int { return g.st.Processes[0].PID }

// differences compares what two generations say of a tree that has only
// waited in between. What is numbered in the order in which the tree was
// walked, or belongs to the host, does not count.
func differences(tb testing.TB, before, after *State) (diff []string) {
	tb.Helper()
	a, b := fieldsOf(tb, before), fieldsOf(tb, after)
	for key, was := range a {
		if is, ok := b[key]; !ok || !bytes.Equal(was, is) {
			diff = append(diff, fmt.Sprintf("%s: was %s, is %s", key, shorten(was), shorten(is)))
		}
	}
	for key, is := range b {
		if _, ok := a[key]; !ok {
			diff = append(diff, fmt.Sprintf("%s: was nothing, is %s", key, shorten(is)))
		}
	}
	slices.Sort(diff)
	return diff
}

func shorten(b []byte) string {
	const most = 300
	return string(b[:min(len(b), most)])
}

// fieldsOf takes a state apart into fields by process and thread.
func fieldsOf(tb testing.TB, st *State) map[string]json.RawMessage {
	tb.Helper()
	out := map[string]json.RawMessage{}
	take := func(prefix string, v any) {
		fields := map[string]json.RawMessage{}
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, &fields)
		}
		if err != nil {
			tb.Fatal(err)
		}
		for k, f := range fields {
			out[prefix+k] = f
		}
	}
	for _, ps := range st.Processes {
		prefix := fmt.Sprintf("pid %d ", ps.PID)
		for _, ts := range ps.Threads {
			take(fmt.Sprintf("%stid %d ", prefix, ts.TID), ts)
		}
		for _, m := range merged(ps.Maps) {
			take(fmt.Sprintf("%smapping %x ", prefix, m.Start), m)
		}
		ps.Threads, ps.Maps, ps.Space = nil, nil, 0
		if ps.Stopped {
			ps.ExitCode = 0 // see TestStopIsReportedOnce
		}
		take(prefix, ps)
	}
	return out
}

// merged joins neighbours that the kernel could keep as one mapping: whether
// it does depends on how they came to be.
func merged(maps []MapState) (out []MapState) {
	for _, m := range maps {
		m.Ref, m.Dev, m.Ino = 0, 0, 0
		if m.Kind == MapObject {
			m.Path = ""
		}
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.End == m.Start && m.Kind == MapAnon && last.Kind == MapAnon && m.Prot == last.Prot && slices.Equal(m.Flags, last.Flags) && m.Path == last.Path {
				last.End = m.End
				continue
			}
		}
		out = append(out, m)
	}
	return out
}

// assertWhole wants the tree as an ordinary restart leaves it: nothing is
// traced, no privilege and nothing of the agent is left in it.
func (x *subject) assertWhole(g *generation, r *Restorer) {
	x.tb.Helper()
	fds := map[int][]int{}
	for _, f := range g.st.Files {
		for _, ref := range f.Refs {
			fds[ref.PID] = append(fds[ref.PID], ref.FD)
		}
	}
	for i := range g.st.Processes {
		ps := &g.st.Processes[i]
		host := r.HostPID(ps.PID)
		if ps.Zombie {
			continue
		}
		x.assertThreads(ps, host)
		live := r.byPID[ps.PID].liveTID()
		got, err := procfs.FDs(live)
		want := slices.Sorted(slices.Values(fds[ps.PID]))
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			x.tb.Errorf("pid %d: descriptors %v, want %v (%v)", ps.PID, got, want, err)
		}
		maps, err := procfs.ReadMaps(live)
		if err != nil {
			x.tb.Errorf("pid %d: %v", ps.PID, err)
		}
		for _, v := range maps {
			if v.Exec && v.Write || v.Path == "" && !slices.ContainsFunc(ps.Maps, func(m MapState) bool { return m.Start <= v.Start && v.Start < m.End }) {
				x.tb.Errorf("pid %d: mapping %x-%x of ours is left", ps.PID, v.Start, v.End)
			}
		}
	}
}

// assertThreads looks at every thread of a restored process, an exited leader
// too: its credentials are the process's for the next checkpoint.
func (x *subject) assertThreads(ps *ProcessState, host int) {
	x.tb.Helper()
	tids, err := procfs.Tasks(host)
	if want := len(ps.Threads) + map[bool]int{true: 1}[ps.LeaderGone]; err != nil || len(tids) != want {
		x.tb.Errorf("pid %d: %d threads, want %d (%v)", ps.PID, len(tids), want, err)
	}
	for _, tid := range tids {
		s, err := procfs.ReadTaskStatus(host, tid)
		if err != nil {
			x.tb.Errorf("pid %d: %v", ps.PID, err)
			continue
		}
		if got, want := [4]uint64{s.CapEff, s.CapPrm, s.CapInh, s.CapAmb}, [4]uint64{ps.Cred.Caps[0], ps.Cred.Caps[1], ps.Cred.Caps[2]}; got != want {
			x.tb.Errorf("pid %d tid %d: capabilities %x, want %x", ps.PID, s.InnerPID(), got, want)
		}
		if s.TracerPid != 0 {
			x.tb.Errorf("pid %d tid %d: traced by %d", ps.PID, s.InnerPID(), s.TracerPid)
		}
	}
}

// A tree comes back as it was, and is as good as the original: to its own
// eyes, from outside, and for the next generation.
func TestGenerations(t *testing.T) {
	for _, tc := range []struct {
		name, arg  string
		check, end []string // orders; those at the end change it
	}{
		{"state_process", ".", []string{"facts"}, []string{"drain"}},
		{"state_memory", "file", []string{"check", "check"}, []string{"grow", "check"}},
		{"restore_tree", "", []string{"check"}, []string{"zombies", "continue", "check"}},
	} {
		for mode, fresh := range namespaceModes() {
			t.Run(tc.name+" in "+mode, func(t *testing.T) {
				args := []string{built(t, tc.name)}
				if tc.arg != "" {
					args = append(args, filepath.Join(t.TempDir(), tc.arg))
				}
				generations(t, args, fresh, tc.check, tc.end)
			})
		}
	}
}

// atRest waits until the program, which has answered, reads its next order, and
// all its threads sleep: their registers stand still then.
func (x *subject) atRest() {
	x.tb.Helper()
	eventually(x.tb, "the program comes to rest", func() bool {
		if !x.sleeps() {
			return false
		}
		nr, in := x.look().Processes[0].Threads[0].Regs.SyscallNr()
		return in && nr == unix.SYS_READ
	})
	eventually(x.tb, "what the look has interrupted goes on", x.sleeps)
}

// sleeps says whether no thread of the tree runs.
func (x *subject) sleeps() bool {
	tree := []int{x.pid}
	for i := 0; i < len(tree); i++ {
		tids, err := procfs.Tasks(tree[i])
		for _, tid := range tids {
			s, serr := procfs.ReadTaskStatus(tree[i], tid)
			err = errors.Join(err, serr)
			if !strings.ContainsRune("STZ", rune(s.State)) {
				return false
			}
		}
		below, berr := procfs.Children(tree[i])
		if errors.Join(err, berr) != nil {
			return false
		}
		tree = append(tree, below...)
	}
	return true
}

func generations(t *testing.T, args []string, fresh bool, check, end []string) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(args[0], args[1:]...))
	x.untilReady()
	said := x.orders(check)
	x.atRest()
	g := x.save()
	if !fresh { // there the parent has another id: this process has the old one
		check, end = elsewhere(check), elsewhere(end)
	}
	for generation := range 3 {
		r := x.restore(g, fresh)
		x.assertWhole(g, r)
		if d := differences(t, g.st, x.look()); len(d) > 0 {
			t.Errorf("generation %d differs:\n%s", generation, strings.Join(d, "\n"))
		}
		for i, again := range x.orders(check) {
			if again != said[i] {
				t.Errorf("generation %d says %q, before %q", generation, again, said[i])
			}
		}
		x.atRest()
		g = x.save()
	}
	x.restore(g, fresh)
	x.orders(end)
}

// elsewhere tells "check" that the parent of the first process is another.
func elsewhere(orders []string) (out []string) {
	for _, o := range orders {
		out = append(out, strings.Replace(o, "check", "check elsewhere", 1))
	}
	return out
}

func (x *subject) orders(list []string) (said []string) {
	x.tb.Helper()
	for _, o := range list {
		said = append(said, x.order(o)...)
	}
	return said
}

// Pending signals come back with their siginfo, in their order, however many.
func TestGenerationsKeepPendingSignals(t *testing.T) {
	for _, n := range []int{2, 1500} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x := newSubject(t, newTracer(t))
			x.start(exec.Command(built(t, "state_process"), t.TempDir(), fmt.Sprint(n)))
			x.untilReady()
			g := x.save()
			if got := len(threadOf(t, g.st, 1).Pending); got != n {
				t.Errorf("%d signals are in the image for the worker, want %d", got, n)
			}
			x.restore(g, true)
			want := []string{"signal 1 code 0 value 0", "signal 15 code 0 value 0"} // SIGHUP, SIGTERM
			for i := range n {
				want = append(want, fmt.Sprintf("signal 34 code -1 value %d", i))
			}
			after := x.look()
			if got := len(threadOf(t, after, 1).Pending); got != n {
				t.Errorf("%d signals are pending for the worker, want %d", got, n)
			}
			if got := x.order("drain"); !slices.Equal(got, want) {
				t.Errorf("the program gets %d signals %.400q, want %d %.400q", len(got), got, len(want), want)
			}
		})
	}
}

// threadOf returns a thread of the first process.
func threadOf(tb testing.TB, st *State, i int) *ThreadState {
	tb.Helper()
	if n := len(st.Processes[0].Threads); n <= i {
		tb.Fatalf("%d threads", n)
	}
	return &st.Processes[0].Threads[i]
}

// A stop that the parent was told of is not reported again.
func TestGenerationsReportAStopOnce(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "restore_tree")))
	x.untilReady()
	if said := x.order("reported"); !slices.Equal(said, []string{"0"}) {
		t.Fatalf("at first: %q", said)
	}
	x.restore(x.save(), true)
	if said := x.order("reported"); !slices.Equal(said, []string{"0"}) {
		t.Errorf("after a restart: %q", said)
	}
}

// New processes get ids above those of the image.
func TestGenerationsGiveNewIDs(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "restore_tree")))
	x.untilReady()
	g := x.save()
	last := 0
	for i := range g.st.Processes {
		last = max(last, g.st.Processes[i].PID)
		for _, th := range g.st.Processes[i].Threads {
			last = max(last, th.TID)
		}
	}
	x.restore(g, true)
	if said := x.order("fork"); len(said) != 1 || atoi(t, said[0]) <= last {
		t.Errorf("a new process has id %q, want one above %d", said, last)
	}
}

// TestAgainAsOrdinaryUser runs the tests of inspection and restart again,
// as a user without privileges.
func TestAgainAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	dir := ""
	for _, name := range []string{"state_process", "state_memory", "state_refused", "restore_tree", "fill"} {
		dir = filepath.Dir(program(t, name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.v", "-test.run=^Test(Generations|FailedGenerations|InspectReads|CheckRefuses)")
	cmd.Dir = "/" // a folder of the sources may be closed to others
	cmd.Env = append(os.Environ(), builtEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("it does not end:\n%s", out)
	}
	for l := range bytes.Lines(out) {
		if bytes.Contains(l, []byte("--- SKIP")) {
			t.Logf("%s", bytes.TrimSpace(l))
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, failuresIn(out))
	}
}

// failuresIn leaves out what passed.
func failuresIn(out []byte) string {
	var keep []string
	for l := range strings.Lines(string(out)) {
		if !strings.HasPrefix(l, "=== ") && !strings.Contains(l, "--- PASS") {
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "")
}

func atoi(tb testing.TB, s string) int {
	tb.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// TestEndBeforeTheLastThreadIsLetGo: a program may end as soon as one of its threads runs.
func TestEndBeforeTheLastThreadIsLetGo(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "threads"), "300"))
	x.untilReady()
	g := x.save()
	x.in.Close() // the main thread reads that, and ends
	_, step, err := g.attempt(t, x.tr, true)
	if errors.Is(err, ErrNoNamespaces) {
		t.Skip(err)
	}
	if err != nil {
		t.Errorf("%s: %v", step, err)
	}
	x.end()
}
