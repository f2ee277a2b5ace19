package proc

import (
	"bufio"
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

// ownChildren looks at all processes: the kernel's list of children is cut short where one of them
// ends meanwhile.
func ownChildren(tb testing.TB) (pids []int) {
	tb.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := procfs.ReadStat(pid); err == nil && s.PPID == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// strays lists the children of this process that are of the tree.
func (x *subject) strays() []int {
	return slices.DeleteFunc(ownChildren(x.tb), func(pid int) bool { return x.others[pid] })
}

// end kills all that is left of the tree, and waits until it is gone. Children
// that come to this process while they are listed are missed: only the kernel's
// word that there is none (ECHILD) says so.
func (x *subject) end() {
	none := 0 // looks in a row that found nobody: one misses whose parent ends meanwhile
	eventually(x.tb, "the tree is gone", func() bool {
		all := x.strays()
		for i := 0; i < len(all); i++ {
			below, _ := procfs.Children(all[i]) // none of one that has ended
			all = append(all, below...)
		}
		for _, pid := range all {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_, more := x.tr.Reap()
		if none++; len(all) > 0 {
			none = 0
		}
		return none > 1 && (!more || len(x.others) > 0)
	})
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
	files, err := tree.OpenFiles(soon(x.tb))
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
