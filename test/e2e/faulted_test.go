package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// faulted is a trial whose hiatus has fault points. Its standard output is a
// regular file: a pipe would tell of the end of the agent only when the program
// has ended too.
type faulted struct {
	*trial
	orders int
	exe    string // of the program's processes
	asRoot bool   // each hiatus in front is started by root, who runs it as somebody else
}

// newFaultSuite builds hiatus with fault points, and the programs.
func newFaultSuite(t *testing.T) *suite {
	s := newSuite(t)
	s.buildFaults(t)
	s.require(t, "gcc")
	for _, name := range []string{"faulty", "rewrite", "sleeps"} {
		if err := buildOne([]string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", s.fixture(name), s.source(name + ".c")}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// buildFaults builds a second hiatus, with fault points.
func (s *suite) buildFaults(t *testing.T) {
	binary := s.fixture("hiatus-faults")
	if _, err := os.Stat(binary); err == nil && s.built {
		return
	}
	if err := buildOne([]string{"go", "build", "-tags", "faults", "-o", binary, "../../cmd/hiatus"}); err != nil {
		t.Fatal(err)
	}
}

// newFaulted makes a trial with a hiatus of its own, by whose path its
// processes are known: those that a restart makes have no environment.
func (s *suite) newFaulted(t *testing.T, id identity) *faulted {
	f := &faulted{trial: s.newTrial(t, id)}
	own := *s
	own.dir = f.dir
	for from, to := range map[string]string{"hiatus-faults": "hiatus", "faulty": "faulty", "rewrite": "rewrite", "sleeps": "sleeps"} {
		if err := os.Link(s.fixture(from), own.fixture(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	f.suite, f.exe = &own, own.fixture("faulty")
	f.env = append(f.env, "HIATUS_FAULTS="+f.path("faults"))
	t.Cleanup(func() {
		for _, pid := range f.left() {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return f
}

// order says what happens at which steps, from now on; nothing without lines.
func (f *faulted) order(lines ...string) {
	f.Helper()
	f.orders++
	f.write("faults.new", strings.Join(append(lines, fmt.Sprintf("# %d", f.orders)), "\n")+"\n")
	if err := os.Rename(f.path("faults.new"), f.path("faults")); err != nil {
		f.Fatal(err)
	}
}

// run starts a hiatus in front.
func (f *faulted) run(args ...string) *front {
	f.Helper()
	command := slices.Concat(f.under, []string{f.suite.hiatus()}, args)
	fr := &front{cmd: f.command(context.Background(), command[0], command[1:]...), stdout: &transcript{}}
	if f.asRoot {
		fr.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	stdout, stderr := f.create("stdout"), f.create("stderr")
	defer stdout.Close()
	defer stderr.Close()
	fr.cmd.Stdout, fr.cmd.Stderr = stdout, stderr
	f.begin(fr)
	return fr
}

func (f *faulted) launchFaulty(args ...string) {
	f.Helper()
	f.launchFlagged(nil, args...)
}

// launchFlagged is launchFaulty with flags of hiatus.
func (f *faulted) launchFlagged(flags []string, args ...string) {
	f.Helper()
	f.front = f.run(slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images(), "--keep", "2"}, flags, []string{"--", f.exe}, args)...)
	f.advance(1)
}

// again restarts the newest generation, which goes on and does well.
func (f *faulted) again(flags ...string) {
	f.Helper()
	f.order()
	f.restarting(flags...)
	f.running()
	f.unharmed()
}

// restarting starts a restart of the newest generation.
func (f *faulted) restarting(flags ...string) {
	f.Helper()
	// The program has written since, and the tests too.
	f.front = f.run(append([]string{"restart", f.images(), "--allow-changed-files"}, flags...)...)
}

// meet waits until a process has come to a step at which it waits, which it
// does until the result is closed.
func (f *faulted) meet(fifo string) *os.File {
	f.Helper()
	w := f.meetUnless(fifo, nil)
	if w == nil {
		f.Fatal("nobody comes to the step")
	}
	return w
}

// meetUnless is meet, but nil where nobody comes, or a command has ended before.
func (f *faulted) meetUnless(fifo string, command *front) *os.File {
	f.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		over := command != nil && command.hasEnded()
		w, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			return w
		}
		if !errors.Is(err, unix.ENXIO) {
			f.Fatal(err)
		}
		if over {
			break
		}
	}
	return nil
}

// fifo makes a FIFO of the identity's.
func (f *faulted) fifo() string {
	f.Helper()
	path := f.path(fmt.Sprintf("fifo%d", f.orders))
	if err := unix.Mkfifo(path, 0o600); err != nil {
		f.Fatal(err)
	}
	f.own(path)
	return path
}

// at runs a checkpoint that waits at a step, calls do meanwhile, and returns how
// the checkpoint has ended.
func (f *faulted) at(step faultpoint.Step, do func(command *front)) outcome {
	f.Helper()
	return f.atAny([]string{string(step)}, do)
}

// atAny is at for whoever comes to one of several steps, each as in an order.
func (f *faulted) atAny(steps []string, do func(command *front)) outcome {
	f.Helper()
	fifo := f.fifo()
	var orders []string
	for _, step := range steps {
		orders = append(orders, fmt.Sprintf("%s: wait %s", step, fifo))
	}
	f.order(orders...)
	command := f.ask()
	w := f.meet(fifo)
	do(command)
	w.Close()
	return f.outcomeOf(command)
}

// ask starts the command checkpoint.
func (f *faulted) ask(flags ...string) *front {
	f.Helper()
	c := &front{cmd: f.command(context.Background(), f.suite.hiatus(), append([]string{"checkpoint", f.name}, flags...)...), stdout: &transcript{}}
	c.cmd.Stdout, c.cmd.Stderr = c.stdout, c.stdout
	f.begin(c)
	return c
}

func (f *faulted) outcomeOf(c *front) outcome {
	f.Helper()
	code := f.wait(c)
	return outcome{stdout: c.stdout.String(), stderr: c.stdout.String(), code: code}
}

// left lists all processes of the trial: those of the program, and those that
// run its hiatus.
func (f *faulted) left() []int {
	pids := f.processes()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || slices.Contains(pids, pid) {
			continue
		}
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && strings.HasPrefix(exe, f.dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// program lists the processes of the program, and copies of them.
func (f *faulted) program() []int {
	return slices.DeleteFunc(f.processes(), func(pid int) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err != nil || strings.TrimSuffix(exe, " (deleted)") != f.exe
	})
}

// alone is program when all copies have ended, for which no checkpoint waits.
func (f *faulted) alone() []int {
	f.Helper()
	f.await("the end of the copies", func() bool { return len(f.copies()) == 0 })
	return f.program()
}

// remain makes sure that the processes are those that were, when all copies have ended: one that
// was in the making has the program's name still.
func (f *faulted) remain(step string, before []int) {
	f.Helper()
	f.await(fmt.Sprintf("the processes %v and no others at the step %q", before, step), func() bool { return slices.Equal(f.alone(), before) })
}

// unharmed makes sure that the program goes on, and that nobody holds it.
func (f *faulted) unharmed() {
	f.Helper()
	f.advance(2)
	for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
		held := ""
		for _, pid := range f.program() {
			tids, _ := procfs.Tasks(pid)
			for _, tid := range tids {
				s, err := procfs.ReadTaskStatus(pid, tid)
				if err == nil && (s.TracerPid != 0 || s.State == 't' || s.State == 'T') {
					held = fmt.Sprintf("pid %d tid %d: state %c, traced by %d", pid, tid, s.State, s.TracerPid)
				}
			}
		}
		if held == "" {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("still held: %s", held)
		}
	}
}

// nothingLeft waits until all processes are gone, and looks for what stays.
func (f *faulted) nothingLeft() {
	f.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
		left := f.left()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			for _, pid := range left {
				s, err := procfs.ReadStatus(pid)
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				f.Logf("pid %d %s: state %c, parent %d, tracer %d, %q (%v)", pid, s.Name, s.State, s.PPid, s.TracerPid, cmdline, err)
			}
			f.Fatalf("processes are left: %v", left)
		}
	}
	f.order()
	f.must("list") // removes what dead coordinators have left
	if names, err := os.ReadDir(f.path("run/hiatus")); err != nil && !errors.Is(err, fs.ErrNotExist) || len(names) > 0 {
		f.Errorf("left in the runtime directory: %v (%v)", names, err)
	}
}

// tidy makes sure that no temporary file is left where images are.
func (f *faulted) tidy() {
	f.Helper()
	for _, pattern := range []string{"images/*/.tmp-*", "images/*/*/lock", "images/.*", "images/*/*/.*"} {
		found, err := filepath.Glob(f.path(pattern))
		if err != nil {
			f.Fatal(err)
		}
		if len(found) > 0 {
			f.Errorf("left: %v", found)
		}
	}
}

// killProgram ends the program, whose agent is gone or ends with it.
func (f *faulted) killProgram() {
	f.Helper()
	f.killAll(f.program)
	f.nothingLeft()
}

// killAll ends processes until list finds none. They are stopped before, so that none
// sees the end of another, and children are killed before their parents: the end of
// one whose children are stopped would have them continue (kill_orphaned_pgrp of the
// kernel: SIGHUP and SIGCONT).
func (f *faulted) killAll(list func() []int) {
	f.Helper()
	stopping := list()
	for _, pid := range stopping {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, pid := range stopping {
		f.await("a stop", func() bool {
			s, err := procfs.ReadStatus(pid)
			return err != nil || strings.ContainsRune("TtZX", rune(s.State))
		})
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
		pids := list()
		if len(pids) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("cannot be killed: %v", pids)
		}
		for _, pid := range childrenFirst(pids) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// childrenFirst sorts processes by how many of the others they descend from.
func childrenFirst(pids []int) []int {
	parents, depth := map[int]int{}, map[int]int{}
	for _, pid := range pids {
		if st, err := procfs.ReadStat(pid); err == nil {
			parents[pid] = st.PPID
		}
	}
	for _, pid := range pids {
		for up, ok := parents[pid]; ok && depth[pid] <= len(pids); up, ok = parents[up] {
			depth[pid]++
		}
	}
	return slices.SortedFunc(slices.Values(pids), func(a, b int) int { return depth[b] - depth[a] })
}

// suspendFaulty leaves of the program its image and nothing else.
func (f *faulted) suspendFaulty() {
	f.Helper()
	f.launchFaulty()
	f.must("checkpoint", f.name, "--kill")
	f.wait(f.front)
	f.nothingLeft()
}

// newest is the number of the newest generation, 0 without one.
func (f *faulted) newest() int {
	f.Helper()
	newest := 0
	for _, path := range f.generations() {
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil { // not in a temporary folder
			newest = max(newest, n)
		}
	}
	return newest
}

// orphaned notes that the agent is dead, by SIGKILL.
func (f *faulted) orphaned() {
	f.Helper()
	f.ends(f.front, 128+9)
	f.front = nil
}

// saysOK checks the program's output, which is in a file.
func (f *faulted) endWell() {
	f.Helper()
	f.order()
	f.write("stop", "")
	f.ends(f.front, 0)
	if out := f.read("stdout"); !strings.HasSuffix(out, "ok\n") {
		f.Errorf("the program did not print ok, but %q", out)
	}
	f.nothingLeft()
	f.tidy()
}
