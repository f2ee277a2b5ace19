package proc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
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

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// builtEnv names the folder of programs that are built already, for a test
// binary that runs as a user who may not read the sources.
const builtEnv = "HIATUS_PROC_TEST_PROGRAMS"

// built is program, or what the process that executed this one has built.
func built(tb testing.TB, name string, flags ...string) string {
	tb.Helper()
	if dir := os.Getenv(builtEnv); dir != "" {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			tb.Skip(err)
		}
		return path
	}
	return program(tb, name, flags...)
}

// subject is a tree under test: of a program, or restored. All children of
// this process that it did not have before are the subject's.
type subject struct {
	target
	others map[int]bool // children of this process that are not of the tree
	where  Surroundings
}

// newSubject takes note of the children that this process has.
func newSubject(tb testing.TB, tr *Tracer) *subject {
	tb.Helper()
	becomeSubreaper(tb)
	session, err := unix.Getsid(0)
	if err != nil {
		tb.Fatal(err)
	}
	x := &subject{target: target{tb: tb, tr: tr, tid: tracerTID(tr)}, others: map[int]bool{},
		where: Surroundings{Reference: os.Getpid(), Reaper: os.Getpid(), Session: session}}
	for _, pid := range ownChildren(tb) {
		x.others[pid] = true
	}
	tb.Cleanup(x.end)
	return x
}

func ownChildren(tb testing.TB) []int {
	tb.Helper()
	pids, err := procfs.Children(os.Getpid())
	if err != nil {
		tb.Fatal(err)
	}
	return pids
}

// strays lists the children of this process that are of the tree.
func (x *subject) strays() []int {
	return slices.DeleteFunc(ownChildren(x.tb), func(pid int) bool { return x.others[pid] })
}

// end kills all that is left of the tree, and waits until it is gone.
func (x *subject) end() {
	eventually(x.tb, "the tree is gone", func() bool {
		all := x.strays()
		for i := 0; i < len(all); i++ {
			below, _ := procfs.Children(all[i]) // none of one that has ended
			all = append(all, below...)
		}
		for _, pid := range all {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		x.tr.Reap()
		return len(all) == 0
	})
}

// begin starts a program that says "ready".
func begin(tb testing.TB, tr *Tracer, args ...string) *subject {
	tb.Helper()
	x := newSubject(tb, tr)
	x.start(exec.Command(args[0], args[1:]...))
	x.expect("ready")
	return x
}

func (x *subject) start(cmd *exec.Cmd) {
	x.tb.Helper()
	in, out := x.connect()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	err := cmd.Start()
	in.Close()
	out.Close()
	if err != nil {
		x.tb.Fatal(err)
	}
	x.pid = cmd.Process.Pid
	_ = cmd.Process.Release() // the tracer waits for it
}

// connect makes the pipes to the program and returns its ends.
func (x *subject) connect() (in, out *os.File) {
	x.tb.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		x.tb.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		x.tb.Fatal(err)
	}
	x.in, x.out, x.lines = inW, outR, bufio.NewReader(outR)
	x.tb.Cleanup(func() { inW.Close(); outR.Close() })
	return inR, outW
}

// order says a line and wants that the program is ready again, after the
// lines it returns.
func (x *subject) order(line string) (said []string) {
	x.tb.Helper()
	x.say(line)
	return x.untilReady()
}

func (x *subject) untilReady() (said []string) {
	x.tb.Helper()
	for {
		l := x.line()
		if l == "ready" {
			return said
		}
		if strings.HasPrefix(l, "FAIL") {
			x.tb.Fatal(l)
		}
		said = append(said, l)
	}
}

// facts returns what the program says of itself, as key and value.
func (x *subject) facts(order string) map[string]string {
	x.tb.Helper()
	facts := map[string]string{}
	for _, l := range x.order(order) {
		key, value, _ := strings.Cut(l, " ")
		facts[key] = value
	}
	return facts
}

func (x *subject) freeze() *Tree {
	x.tb.Helper()
	tree, err := x.tr.Freeze(soon(x.tb), NewSleeps(), func() ([]int, error) {
		if x.where.Reference == os.Getpid() {
			return x.strays(), nil
		}
		return procfs.Children(x.where.Reference)
	})
	if err != nil {
		x.tb.Fatal(err)
	}
	return tree
}

// noClaim is a MapClaim of no plugins.
func noClaim(context.Context, plugin.Process, plugin.Mapping) (string, plugin.MapPolicy, error) {
	return "", 0, nil
}

// inspect returns all that the engine reads of a frozen tree, which it opens.
func (x *subject) inspect(tree *Tree) *State {
	x.tb.Helper()
	if err := tree.Check(x.where); err != nil {
		x.tb.Fatal(err)
	}
	x.open(tree)
	st, err := tree.Inspect(soon(x.tb), x.where, noClaim)
	if err != nil {
		x.tb.Fatal(err)
	}
	files, err := tree.OpenFiles()
	if err != nil {
		x.tb.Fatal(err)
	}
	var kept []FileState
	for _, f := range files {
		kept = append(kept, NewFileState("test", f))
	}
	st.SetFiles(kept)
	return st
}

// look inspects the tree and lets it run on.
func (x *subject) look() *State {
	x.tb.Helper()
	tree := x.freeze()
	st := x.inspect(tree)
	x.release(tree)
	return st
}

func processOf(tb testing.TB, st *State, pid int) *ProcessState {
	tb.Helper()
	i := slices.IndexFunc(st.Processes, func(p ProcessState) bool { return p.PID == pid })
	if i < 0 {
		tb.Fatalf("the state has no process %d", pid)
	}
	return &st.Processes[i]
}

// wantFact compares what the program says with what was read from outside.
func wantFact(t *testing.T, facts map[string]string, key, format string, args ...any) {
	t.Helper()
	if got, ok := facts[key]; !ok || got != fmt.Sprintf(format, args...) {
		t.Errorf("%s: read %q, the program says %q", key, fmt.Sprintf(format, args...), got)
	}
}

func TestInspectReadsAProcess(t *testing.T) {
	dir := t.TempDir()
	tr := newTracer(t)
	x := newSubject(t, tr)
	x.start(exec.Command(built(t, "state_process"), dir))
	x.untilReady()
	facts := x.facts("facts")
	st := x.look()
	if again := x.facts("facts"); !mapsEqual(t, facts, again) {
		t.Error("the program was changed")
	}
	if st.Uid != os.Geteuid() || st.Gid != os.Getegid() || st.Arch != arch || len(st.Vdso) == 0 || st.BootID == "" {
		t.Errorf("uid %d, gid %d, arch %s, vdso %x, boot id %q", st.Uid, st.Gid, st.Arch, st.Vdso, st.BootID)
	}
	ps := processOf(t, st, x.pid)
	checkProcessFacts(t, ps, facts)
	if len(ps.Threads) != 2 {
		t.Fatalf("%d threads, want 2", len(ps.Threads))
	}
	for i, who := range []string{"main", "worker"} {
		checkThreadFacts(t, &ps.Threads[i], who, facts)
	}
	checkPending(t, "process", ps.Pending, []pendingSignal{{34, -1, 0}, {34, -1, 1}, {15, 0, 0}})
	checkPending(t, "main thread", ps.Threads[0].Pending, []pendingSignal{{1, siTkill, 0}})
	checkPending(t, "worker", ps.Threads[1].Pending, []pendingSignal{{35, -1, 1000}, {35, -1, 1001}})
}

func mapsEqual(t *testing.T, a, b map[string]string) bool {
	t.Helper()
	equal := true
	for k := range a {
		if a[k] != b[k] {
			t.Errorf("%s: was %q, is %q", k, a[k], b[k])
			equal = false
		}
	}
	return equal && len(a) == len(b)
}

func checkProcessFacts(t *testing.T, ps *ProcessState, facts map[string]string) {
	t.Helper()
	for i, a := range ps.Actions {
		w := func(i int) uint64 { return binary.LittleEndian.Uint64(a[8*i:]) }
		if key := fmt.Sprintf("action.%d", i+1); w(0) != 0 || facts[key] != "" {
			wantFact(t, facts, key, "%x %x %x %x", w(0), w(1), w(2), w(3))
		}
	}
	for i, l := range ps.Limits {
		wantFact(t, facts, fmt.Sprintf("limit.%d", i), "%x %x", l.Cur, l.Max)
	}
	sum := uint32(0)
	for _, b := range ps.Auxv {
		sum = sum*31 + uint32(b)
	}
	wantFact(t, facts, "auxv", "%d %x", len(ps.Auxv), sum)
	wantFact(t, facts, "umask", "%o", ps.Umask)
	wantFact(t, facts, "cwd", "%s", ps.Cwd)
	wantFact(t, facts, "exe", "%s", ps.Exe)
	wantFact(t, facts, "argv", "%x", ps.MM.ArgStart)
	wantFact(t, facts, "brk", "%x", ps.MM.Brk)
	wantFact(t, facts, "oom", "%d", ps.OOMScore)
	bit := map[bool]int{true: 1}
	wantFact(t, facts, "subreaper", "%d", bit[ps.Prctl.Subreaper])
	wantFact(t, facts, "no_new_privs", "%d", bit[ps.Prctl.NoNewPrivs])
	wantFact(t, facts, "thp_disable", "%d", bit[ps.Prctl.THPDisable])
	wantFact(t, facts, "dumpable", "%d", ps.Prctl.Dumpable)
}

func checkThreadFacts(t *testing.T, ts *ThreadState, who string, facts map[string]string) {
	t.Helper()
	wantFact(t, facts, who+".tid", "%d", ts.TID)
	wantFact(t, facts, who+".name", "%s", ts.Comm)
	alt := ts.AltStack
	wantFact(t, facts, who+".altstack", "%x %x %x", le.Uint64(alt), le.Uint64(alt[16:]), le.Uint32(alt[8:])&^uint32(2)) // SS_DISABLE is not set
	wantFact(t, facts, who+".tid_address", "%x", ts.TIDAddr)
	wantFact(t, facts, who+".robust", "%x %d", ts.Robust[0], ts.Robust[1])
	wantFact(t, facts, who+".mask", "%x", ts.Mask)
	wantFact(t, facts, who+".pdeathsig", "%d", ts.PDeathSig)
	wantFact(t, facts, who+".sched", "%d %d %d", ts.Sched.Policy, ts.Sched.Priority, ts.Sched.Nice)
	wantFact(t, facts, who+".ioprio", "%x", ts.IOPrio)
	if ts.CPUs != nil {
		n := 0
		for _, b := range ts.CPUs {
			for ; b != 0; b &= b - 1 {
				n++
			}
		}
		wantFact(t, facts, who+".cpus", "%d", n)
	}
	if pc := ts.Regs.PC(); pc == 0 || len(ts.Extra) != len(extraNotes) {
		t.Errorf("%s: at %#x, %d register sets", who, pc, len(ts.Extra))
	}
}

// pendingSignal is what a test compares of a siginfo_t.
type pendingSignal struct{ signo, code, value int }

func checkPending(t *testing.T, who string, raw [][]byte, want []pendingSignal) {
	t.Helper()
	var got []pendingSignal
	for _, b := range raw {
		s := pendingSignal{int(le.Uint32(b)), int(int32(le.Uint32(b[8:]))), 0}
		if s.code == -1 { // SI_QUEUE: pid, uid, value
			s.value = int(le.Uint32(b[24:]))
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pending for the %s: %v, want %v", who, got, want)
	}
}

func TestCheckRefusesByName(t *testing.T) {
	user, root := os.Geteuid() != 0, os.Geteuid() == 0
	for _, tc := range []struct {
		mode string
		skip bool
		want string // in a refusal's object or reason
	}{
		{"seccomp", false, "seccomp filter"},
		{"seccomp-thread", false, "seccomp filter"},
		{"files-thread", false, "descriptor table of its own"},
		{"fs-thread", false, "working directory of its own"},
		{"files", false, "CLONE_FILES"},
		{"fs", false, "CLONE_FS"},
		{"vm", false, "CLONE_VM"},
		{"sighand", false, "CLONE_SIGHAND"},
		{"vm-sibling", false, "CLONE_VM"},
		{"files-sibling", false, "CLONE_FILES"},
		{"user-namespace", false, "user namespace"},
		{"all-namespaces", false, "net namespace"},
		{"cwd", false, "working directory"},
		{"exe", false, "program file"},
		{"userfaultfd", false, "userfaultfd"},
		{"replaced", false, ""},
		{"chroot", user, "root directory"},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			if tc.skip {
				t.Skip("chroot(2) needs root:", root)
			}
			checkRefused(t, tc.mode, tc.want)
		})
	}
}

func checkRefused(t *testing.T, mode, want string) {
	dir := t.TempDir()
	prog := filepath.Join(dir, "prog")
	content, err := os.ReadFile(built(t, "state_refused"))
	if err == nil {
		err = os.WriteFile(prog, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	arg := filepath.Join(dir, "arg")
	if mode == "chroot" {
		arg = dir
	}
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(prog, mode, arg))
	if l := x.line(); l != "ready" {
		t.Skipf("the program says %q", l)
	}
	tree := x.freeze()
	err = tree.Check(x.where)
	if err == nil {
		x.open(tree)
		_, err = tree.Inspect(soon(t), x.where, noClaim)
	}
	x.release(tree)
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	refused := refusals(t, err)
	if !slices.ContainsFunc(refused, func(r *plugin.RefusalError) bool { return strings.Contains(r.Error(), want) && r.PID > 0 }) {
		t.Errorf("%v: want a refusal that names %q", err, want)
	}
}

func TestCheckRefuses32BitPrograms(t *testing.T) {
	if arch != "amd64" {
		t.Skip("the program is for amd64")
	}
	if os.Getenv(builtEnv) == "" {
		if out, err := exec.Command("cc", "-m32", "-nostdlib", "-static", "-o", filepath.Join(t.TempDir(), "x"), "testdata/state_32bit.c").CombinedOutput(); err != nil {
			t.Skipf("the C compiler makes no 32-bit programs: %v %s", err, out)
		}
	}
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "state_32bit", "-m32", "-nostdlib", "-static", "-no-pie", "-fno-stack-protector")))
	if x.line() != "ready" {
		t.Skip("the kernel runs no 32-bit programs")
	}
	tree := x.freeze()
	defer x.release(tree)
	refused := refusals(t, tree.Check(x.where))
	if len(refused) != 1 || refused[0].Object != "32-bit program" {
		t.Errorf("%v: want one refusal of a 32-bit program", refused)
	}
}

// Whatever is refused, the program lives on as before.
func TestCheckJoinsAllRefusals(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "state_refused"), "seccomp-thread"))
	x.expect("ready")
	y := exec.Command(built(t, "state_refused"), "cwd", filepath.Join(t.TempDir(), "gone"))
	out, err := y.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := y.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := y.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	tree := x.freeze()
	err = tree.Check(x.where)
	x.release(tree)
	pids := map[int]bool{}
	for _, r := range refusals(t, err) {
		pids[r.PID] = true
	}
	if !pids[x.pid] || !pids[y.Process.Pid] {
		t.Errorf("%v: want refusals of %d and %d", err, x.pid, y.Process.Pid)
	}
}

// TestInspectAsOrdinaryUser runs the tests of inspection and restart again,
// as a user without privileges.
func TestAgainAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	dir := ""
	for _, name := range []string{"state_process", "state_memory", "state_refused", "restore_tree"} {
		dir = filepath.Dir(program(t, name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.v", "-test.run=^Test(Inspect|Check|Memory|Restore|Abort)")
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
