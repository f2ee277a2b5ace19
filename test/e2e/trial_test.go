package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
)

// patience bounds every wait for an event. It is no measure of speed: a host under load
// may take long, and an emulated one (HT_SLACK) several times that.
var patience = map[bool]time.Duration{false: 90 * time.Second, true: 5 * time.Minute}[os.Getenv("HT_SLACK") != ""]

const (
	// pollEvery is how often a file that a program writes is looked at.
	pollEvery = 3 * time.Millisecond
	// searchPath has the system's commands only: what stands elsewhere may be
	// closed to an ordinary user.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// lookPath finds a command in searchPath, or in the PATH of the tests where
// that has it only.
func lookPath(name string) (string, error) {
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return exec.LookPath(name)
}

// trial is one run of one program by one identity.
type trial struct {
	*testing.T
	suite *suite
	id    identity
	dir   string // HT_DIR
	name  string // of the computation
	env   []string

	front  *front   // the one that the next command is about
	fronts []*front // all

	commands int // run to their end

	under  []string   // a command that runs each hiatus in front
	passed []*os.File // descriptors 3 and up of each hiatus in front
	stdin  *os.File   // of the next, unless it is nil
}

// front is a hiatus that stays in front of its program. Standard output is a
// pipe, which a restart gives the program anew; standard error is a regular
// file, which stays the same.
type front struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has ended
	stdout *transcript
}

// transcript collects what is written to it.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// newTrial makes the directory, and cleans up everything at the end.
func (s *suite) newTrial(t *testing.T, id identity) *trial {
	tr := &trial{T: t, suite: s, id: id, name: "trial", dir: tempDir(t, 0o700)}
	t.Cleanup(tr.cleanUp)
	for _, sub := range []string{"run", "tmp"} {
		if err := os.Mkdir(tr.path(sub), 0o700); err != nil {
			t.Fatal(err)
		}
		tr.own(tr.path(sub))
	}
	tr.own(tr.dir)
	tr.env = []string{
		"HT_DIR=" + tr.dir, "HT_SLACK=" + os.Getenv("HT_SLACK"), "HOME=" + id.home, "USER=" + id.login, "LOGNAME=" + id.login,
		"PATH=" + searchPath, "LANG=C.UTF-8", "SHELL=/bin/bash", "TERM=xterm",
		"TMPDIR=" + tr.path("tmp"), "XDG_RUNTIME_DIR=" + tr.path("run"), "XDG_CONFIG_HOME=" + tr.path("config"),
		"HIATUS_LOG_FILE=" + tr.path("hiatus.log"), "HIATUS_LOG_LEVEL=debug",
	}
	return tr
}

func (tr *trial) path(name string) string { return filepath.Join(tr.dir, name) }

// images is the --ckptdir.
func (tr *trial) images() string { return tr.path("images") }

// own gives a file to the identity.
func (tr *trial) own(path string) {
	if err := os.Lchown(path, tr.id.uid, tr.id.gid); err != nil {
		tr.Fatal(err)
	}
}

// write makes a file of the identity's.
func (tr *trial) write(name, content string) {
	if err := os.WriteFile(tr.path(name), []byte(content), 0o644); err != nil {
		tr.Fatal(err)
	}
	tr.own(tr.path(name))
}

// read returns a file's content, "" where there is none.
func (tr *trial) read(name string) string {
	data, err := os.ReadFile(tr.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tr.Fatal(err)
	}
	return string(data)
}

func (tr *trial) exists(name string) bool {
	_, err := os.Lstat(tr.path(name))
	return err == nil
}

// command prepares a command of the identity in the trial's directory.
func (tr *trial) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = tr.dir, tr.env, tr.id.sysProcAttr()
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// outcome is how a command ended.
type outcome struct {
	stdout, stderr string
	code           int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %sstderr: %s", o.code, o.stdout, o.stderr)
}

// exec runs a command to its end. Its output goes to files: what it leaves in
// the background may go on to write.
func (tr *trial) exec(name string, args ...string) outcome {
	tr.Helper()
	tr.commands++
	out, errs := fmt.Sprintf("tmp/%d.out", tr.commands), fmt.Sprintf("tmp/%d.err", tr.commands)
	stdout, stderr := tr.create(out), tr.create(errs)
	defer stdout.Close()
	defer stderr.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := tr.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		tr.Fatalf("%s %q: not done after %v\n%s%s", name, args, patience, tr.read(out), tr.read(errs))
	}
	if err != nil && cmd.ProcessState == nil {
		tr.Fatalf("%s: %v", name, err)
	}
	return outcome{tr.read(out), tr.read(errs), exitCode(cmd.ProcessState)}
}

// hiatus runs a command of hiatus to its end.
func (tr *trial) hiatus(args ...string) outcome {
	tr.Helper()
	return tr.exec(tr.suite.hiatus(), args...)
}

// must runs a command of hiatus that has to succeed, and returns its output.
func (tr *trial) must(args ...string) string {
	tr.Helper()
	o := tr.hiatus(args...)
	if o.code != 0 {
		tr.Fatalf("hiatus %s: %s", strings.Join(args, " "), o)
	}
	return o.stdout
}

// exitCode is as a shell has it.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// start starts a hiatus that stays in front.
func (tr *trial) start(args ...string) *front {
	tr.Helper()
	command := slices.Concat(tr.under, []string{tr.suite.hiatus()}, args)
	f := &front{cmd: tr.command(context.Background(), command[0], command[1:]...), stdout: &transcript{}}
	f.cmd.ExtraFiles = tr.passed
	if tr.stdin != nil {
		f.cmd.Stdin = tr.stdin
	}
	stderr := tr.create("stderr")
	defer stderr.Close()
	f.cmd.Stdout, f.cmd.Stderr = f.stdout, stderr
	tr.begin(f)
	return f
}

// begin starts the prepared command of f.
func (tr *trial) begin(f *front) {
	tr.Helper()
	tr.fronts = append(tr.fronts, f)
	f.ended = make(chan struct{})
	if err := f.cmd.Start(); err != nil {
		tr.Fatal(err)
	}
	go func() {
		defer close(f.ended)
		// How it ended stands in cmd.ProcessState.
		_ = f.cmd.Wait()
	}()
}

// create opens a file of the identity's for appending.
func (tr *trial) create(name string) *os.File {
	if !tr.exists(name) {
		tr.write(name, "")
	}
	f, err := os.OpenFile(tr.path(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		tr.Fatal(err)
	}
	return f
}

// launch starts a program under hiatus.
func (tr *trial) launch(args ...string) {
	tr.Helper()
	tr.launchWith(nil, args...)
}

// launchWith is launch with flags of hiatus.
func (tr *trial) launchWith(flags []string, args ...string) {
	tr.Helper()
	command := append([]string{"launch", "--name", tr.name, "--ckptdir", tr.images()}, flags...)
	tr.front = tr.start(append(append(command, "--"), args...)...)
}

// restart starts it again from its newest generation.
func (tr *trial) restart(flags ...string) {
	tr.Helper()
	tr.front = tr.start(append([]string{"restart", tr.images()}, flags...)...)
}

// checkpoint makes a generation and lets the program run on.
func (tr *trial) checkpoint() {
	tr.Helper()
	tr.must("checkpoint", tr.name)
}

// suspend makes a generation and ends the program.
func (tr *trial) suspend() {
	tr.Helper()
	tr.must("checkpoint", tr.name, "--kill")
	tr.wait(tr.front)
	tr.gone()
}

// wait returns the exit code of a hiatus in front.
func (tr *trial) wait(f *front) int {
	tr.Helper()
	select {
	case <-f.ended:
	case <-time.After(patience):
		tr.Fatalf("hiatus %q: not ended after %v", f.cmd.Args[1:], patience)
	}
	return exitCode(f.cmd.ProcessState)
}

func (f *front) hasEnded() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// await waits until cond holds. A program that has failed or ended meanwhile
// is a failure.
func (tr *trial) await(what string, cond func() bool) {
	tr.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if text := tr.read("failed"); text != "" {
			tr.Fatalf("waiting for %s: the program failed: %s", what, text)
		}
		if tr.front != nil && tr.front.hasEnded() && !cond() {
			tr.Fatalf("waiting for %s: hiatus %q ended with %d", what, tr.front.cmd.Args[1:], exitCode(tr.front.cmd.ProcessState))
		}
		if time.Now().After(deadline) {
			tr.Fatalf("waiting for %s: nothing after %v", what, patience)
		}
		time.Sleep(pollEvery)
	}
}

// progress is the number of steps made, 0 where none was.
func (tr *trial) progress() int64 {
	// A program may just be writing the file anew: then it is empty.
	n, err := strconv.ParseInt(strings.TrimLeft(strings.TrimSpace(tr.read("progress")), "0"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// advance waits until the program has made so many steps more than by now.
func (tr *trial) advance(steps int64) {
	tr.Helper()
	tr.reach(tr.progress() + steps)
}

// progresses is a function in Python that tells how far a program has come, without a file that is open at a
// checkpoint. After a restart the run before may have renamed it.
const progresses = `
import os
def progress(n):
    open("new", "w").write(str(n))
    try:
        os.rename("new", "progress")
    except FileNotFoundError:
        pass
`

// removeAll takes away a file or a folder of the trial's, with all in it.
func (tr *trial) removeAll(name string) {
	tr.Helper()
	if err := os.RemoveAll(tr.path(name)); err != nil {
		tr.Fatal(err)
	}
}

// hasModes compares the modes of files.
func (tr *trial) hasModes(want map[string]os.FileMode) {
	tr.Helper()
	for name, mode := range want {
		if info, err := os.Stat(tr.path(name)); err != nil || info.Mode() != mode {
			tr.Errorf("%s: %v, %v, want mode %v", name, info, err, mode)
		}
	}
}

// reach waits for a step. It is for programs that make few, some of which
// they may have made by now.
func (tr *trial) reach(step int64) {
	tr.Helper()
	tr.await(fmt.Sprintf("step %d", step), func() bool { return tr.progress() >= step })
}

// finish asks the program to end, and checks how it ended.
func (tr *trial) finish() {
	tr.Helper()
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	tr.saysOK(tr.front)
}

// ends waits for the end of a hiatus in front, which has the exit code want.
func (tr *trial) ends(f *front, want int) {
	tr.Helper()
	if code := tr.wait(f); code != want {
		tr.Fatalf("hiatus %q ended with %d, want %d", f.cmd.Args[1:], code, want)
	}
}

// saysOK checks the last line of a program's output.
func (tr *trial) saysOK(f *front) {
	tr.Helper()
	if text := tr.read("failed"); text != "" {
		tr.Fatalf("the program failed: %s", text)
	}
	if out := f.stdout.String(); !strings.HasSuffix("\n"+out, "\nok\n") {
		tr.Fatalf("the program did not print ok, but %q", out)
	}
}

// generations returns the committed generations, by their manifests.
func (tr *trial) generations() []string {
	found, err := filepath.Glob(filepath.Join(tr.images(), tr.name, "*", "manifest.json"))
	if err != nil {
		tr.Fatal(err)
	}
	return found
}

// processes returns the ids of all processes of the trial that have not
// ended, supervisors among them.
func (tr *trial) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		tr.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && tr.belongs(e.Name()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// belongs says whether a process was started by the trial, or by what the
// trial started. Where its first thread has ended, another one tells.
func (tr *trial) belongs(pid string) bool {
	mark := []byte("\x00HT_DIR=" + tr.dir + "\x00")
	env := environ(filepath.Join("/proc", pid, "environ"))
	if len(env) == 0 {
		// The pattern is a valid one.
		tasks, _ := filepath.Glob(filepath.Join("/proc", pid, "task/*/environ"))
		for i := len(tasks) - 1; i >= 0 && len(env) == 0; i-- {
			env = environ(tasks[i])
		}
	}
	return bytes.Contains(append([]byte{0}, env...), mark)
}

// environ reads an environment, empty where the thread has ended.
func environ(path string) []byte {
	env, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return env
}

// gone waits until nothing of the trial is left.
func (tr *trial) gone() {
	tr.Helper()
	var left []int
	deadline := time.Now().Add(patience)
	for left = tr.processes(); len(left) > 0; left = tr.processes() {
		if time.Now().After(deadline) {
			tr.Fatalf("still there: %v", left)
		}
		time.Sleep(pollEvery)
	}
}

// killAll ends the program's processes with SIGKILL, one by one, and leaves
// the supervisor to notice.
func (tr *trial) killAll() {
	tr.Helper()
	for deadline := time.Now().Add(patience); !tr.front.hasEnded(); {
		if time.Now().After(deadline) {
			tr.Fatalf("the program was killed, and hiatus has not ended after %v", patience)
		}
		for _, pid := range tr.processes() {
			if pid != tr.front.cmd.Process.Pid {
				// It may have ended meanwhile.
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(pollEvery)
	}
	tr.gone()
}

// cleanUp ends all that the trial started, and tells why it failed.
func (tr *trial) cleanUp() {
	if tr.Failed() {
		tr.explain()
	}
	deadline := time.Now().Add(patience)
	for left := tr.processes(); len(left) > 0; left = tr.processes() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			tr.Errorf("cannot be killed: %v", left)
			return
		}
		time.Sleep(pollEvery)
	}
}

// explain logs what hiatus and the program said last.
func (tr *trial) explain() {
	for i, f := range tr.fronts {
		state := "runs"
		if f.hasEnded() {
			state = fmt.Sprintf("ended with %d", exitCode(f.cmd.ProcessState))
		}
		tr.Logf("hiatus, run %d: %q: %s; it printed %q", i, f.cmd.Args[1:], state, tail(f.stdout.String()))
	}
	if text := tr.read("stderr"); text != "" {
		tr.Logf("stderr: %s", printable(tail(text)))
	}
	if text := tr.read("hiatus.log"); text != "" {
		tr.Logf("hiatus.log: %s", printable(tail(text)))
	}
}

// printable keeps control characters from the log.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

func tail(text string) string {
	const most = 3000
	if len(text) > most {
		return "..." + text[len(text)-most:]
	}
	return text
}
