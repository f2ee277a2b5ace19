package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// patience bounds every wait for something that must happen: it is what a
// test takes to fail, never what one takes to pass.
const patience = time.Minute

// childEnv names the function that the test binary runs when a test executes
// it again: one that must be another process, or another user.
const childEnv = "HIATUS_PROC_TEST_CHILD"

// childTestEnv is childEnv for a function that is a test itself.
const childTestEnv = "HIATUS_PROC_TEST_CHILD_TEST"

// workshop is where the C programs of the tests are built, each when it is
// first asked for.
type workshop struct {
	mu  sync.Mutex
	dir string
}

var programs workshop

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

// program builds testdata/<name>.c and returns the path of the program, which
// every user may execute.
func program(tb testing.TB, name string, flags ...string) string {
	tb.Helper()
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "hiatus-proc-test-")
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		programs.dir = dir
	}
	out := filepath.Join(programs.dir, name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		tb.Skip("no C compiler")
	}
	args := append([]string{"-O1", "-pthread", "-o", out, filepath.Join("testdata", name+".c")}, flags...)
	if b, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		tb.Fatalf("cc %s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return out
}

// target is a program under test, the leader of a process group.
type target struct {
	tb    testing.TB
	tr    *Tracer
	pid   int
	in    io.WriteCloser
	out   *os.File
	lines *bufio.Reader
	tid   int // of the tracer's thread, which is what TracerPid tells
	// wholeTree: the tree has groups and sessions of its own, so that all
	// children of this process are its roots.
	wholeTree bool
}

// launch starts a program that says "ready", and ends its whole group with
// the test.
func launch(tb testing.TB, tr *Tracer, args ...string) *target {
	tb.Helper()
	return launchCmd(tb, tr, exec.Command(args[0], args[1:]...))
}

func launchCmd(tb testing.TB, tr *Tracer, cmd *exec.Cmd) *target {
	tb.Helper()
	x := spawn(tb, tr, cmd)
	x.expect("ready")
	return x
}

// spawn is launchCmd for a program that need not say "ready".
func spawn(tb testing.TB, tr *Tracer, cmd *exec.Cmd) *target {
	tb.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		tb.Fatal(err)
	}
	x := &target{tb: tb, tr: tr, pid: cmd.Process.Pid, in: inW, out: outR, lines: bufio.NewReader(outR), tid: tracerTID(tr)}
	tb.Cleanup(func() {
		inW.Close()
		x.end()
		outR.Close()
		_ = cmd.Process.Release()
	})
	return x
}

// end kills the program's group and waits until its leader is gone. Threads
// that are still traced are reaped on the way: the end of their process is
// reported only then.
func (x *target) end() {
	_ = unix.Kill(-x.pid, unix.SIGKILL)
	_ = unix.Kill(x.pid, unix.SIGKILL)
	_ = x.tr.Do(func() error {
		for unix.Kill(x.pid, 0) == nil {
			var ws unix.WaitStatus
			if _, err := unix.Wait4(-1, &ws, unix.WALL, nil); err != nil && err != unix.EINTR {
				return err
			}
		}
		return nil
	})
}

// say writes a line to the program.
func (x *target) say(line string) {
	x.tb.Helper()
	if _, err := io.WriteString(x.in, line+"\n"); err != nil {
		x.tb.Fatal(err)
	}
}

// line reads a line of the program's output.
func (x *target) line() string {
	x.tb.Helper()
	if err := x.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		x.tb.Fatal(err)
	}
	l, err := x.lines.ReadString('\n')
	if err != nil {
		stuck(x.tb, "the program %d says no more: %q, %v", x.pid, l, err)
	}
	return strings.TrimSuffix(l, "\n")
}

func (x *target) expect(want string) {
	x.tb.Helper()
	if l := x.line(); l != want {
		x.tb.Fatalf("the program says %q, want %q", l, want)
	}
}

// ask says a line and returns the answer.
func (x *target) ask(line string) string {
	x.tb.Helper()
	x.say(line)
	return x.line()
}

// freeze stops the program's whole tree: below this process, as below an
// agent, and in its group.
func (x *target) freeze() *Tree {
	x.tb.Helper()
	tree, err := x.tryFreeze(patience)
	if err != nil {
		x.tb.Fatal(err)
	}
	return tree
}

func (x *target) tryFreeze(limit time.Duration) (*Tree, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return x.tr.Freeze(ctx, NewSleeps(), x.roots)
}

// roots lists the children of this process that are in the program's group.
func (x *target) roots() ([]int, error) {
	all, err := procfs.Children(os.Getpid())
	if err != nil {
		return nil, err
	}
	if x.wholeTree {
		return all, nil
	}
	return slices.DeleteFunc(all, func(pid int) bool {
		st, err := procfs.ReadStat(pid)
		return err != nil || (st.PGRP != x.pid && pid != x.pid)
	}), nil
}

func (x *target) open(tree *Tree) {
	x.tb.Helper()
	if err := tree.Open(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
}

func (x *target) release(tree *Tree) {
	x.tb.Helper()
	if err := tree.Release(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
}

// soon returns a context that ends when patience does.
func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// group lists the threads of all processes of the program's group.
func (x *target) group() (all []procfs.Status) {
	x.tb.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		x.tb.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := procfs.ReadStat(pid); err != nil || st.PGRP != x.pid {
			continue
		}
		tids, _ := procfs.Tasks(pid)
		for _, tid := range tids {
			if s, err := procfs.ReadTaskStatus(pid, tid); err == nil {
				all = append(all, s)
			}
		}
	}
	return all
}

// tracerTID returns the id of the thread that does all of ptrace(2).
func tracerTID(tr *Tracer) (tid int) {
	_ = tr.Do(func() error { tid = unix.Gettid(); return nil })
	return tid
}

// assertFrozen fails the test if any thread of the group is not stopped by us.
func (x *target) assertFrozen() {
	x.tb.Helper()
	for _, s := range x.group() {
		if !strings.ContainsRune("ZX", rune(s.State)) && (s.TracerPid != x.tid || s.State != 't') {
			x.tb.Errorf("pid %d tid %d (%s): state %c, tracer %d while the tree is frozen", s.Tgid, s.Pid, s.Name, s.State, s.TracerPid)
		}
	}
}

// assertUntraced fails the test if any thread of the group stays traced.
func (x *target) assertUntraced() {
	x.tb.Helper()
	for _, s := range x.group() {
		if s.TracerPid != 0 {
			x.tb.Errorf("pid %d tid %d (%s): state %c, still traced by %d", s.Tgid, s.Pid, s.Name, s.State, s.TracerPid)
		}
	}
}

// eventually waits for a condition that no event announces.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for begin := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			stuck(tb, "not in %v: %s", patience, what)
		}
	}
}

func stateOf(tb testing.TB, pid int) byte {
	tb.Helper()
	st, err := procfs.ReadStat(pid)
	if err != nil {
		tb.Fatal(err)
	}
	return st.State
}

// procOf returns the frozen process of a host pid.
func procOf(tb testing.TB, tree *Tree, host int) *Process {
	tb.Helper()
	p := tree.byHost[host]
	if p == nil {
		tb.Fatalf("pid %d is not in the tree", host)
	}
	return p
}

// refusals returns all refusals joined in err, and fails for any other error.
func refusals(tb testing.TB, err error) []*plugin.RefusalError {
	tb.Helper()
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*plugin.RefusalError
		for _, e := range joined.Unwrap() {
			if r, ok := errors.AsType[*plugin.RefusalError](e); ok {
				out = append(out, r)
			}
		}
		return out
	}
	r, ok := errors.AsType[*plugin.RefusalError](err)
	if !ok {
		tb.Fatalf("not a refusal: %v", err)
	}
	return []*plugin.RefusalError{r}
}

// becomeSubreaper has orphans of the tests' programs come to this process, as
// they come to an agent.
func becomeSubreaper(tb testing.TB) {
	tb.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
}

// again returns a command that runs a function of children in a process of
// its own.
func again(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}

// nobody is an ordinary user.
const nobody = 65534

// asNobody has cmd run as an ordinary user, where we are root.
func asNobody(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// runAgain runs a function of children to its end and returns its output.
func runAgain(tb testing.TB, cmd *exec.Cmd) string {
	tb.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%v: %s", err, out.String())
	}
	return out.String()
}

func command(args ...string) *exec.Cmd { return exec.Command(args[0], args[1:]...) }

// TestInChild runs a function of childTests in a process that a test has made
// by againAsTest.
func TestInChild(t *testing.T) {
	name := os.Getenv(childTestEnv)
	if name == "" {
		t.Skip("only in processes of other tests")
	}
	childTests[name](t, flag.Args())
}

// againAsTest is again for a function that is a test itself.
func againAsTest(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"-test.run=^TestInChild$", "-test.timeout=2m"}, args...)...)
	cmd.Env = append(os.Environ(), childTestEnv+"="+name)
	return cmd
}
