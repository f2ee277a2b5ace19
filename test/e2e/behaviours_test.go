package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// behaviour is one thing that users rely on, shown with a small program.
type behaviour struct {
	name  string
	needs []string
	run   func(*trial)
}

func behaviours() []behaviour {
	gcc := []string{"gcc"}
	return []behaviour{
		{"exit codes", nil, exitCodes},
		{"waits for the whole tree", nil, wholeTree},
		{"signals reach the program", nil, signalsReach},
		{"ten generations", gcc, tenGenerations},
		{"killed with SIGKILL", gcc, killedHard},
		{"restarted twice at once", gcc, twins},
		{"shared memory restarted twice at once", gcc, sharedTwins},
		{"clocks leave the downtime out", gcc, downtime},
		{"clocks jump between generations", []string{"gcc", "unshare"}, jumpingClocks},
		{"refused: userfaultfd", gcc, func(tr *trial) { refused(tr, "userfaultfd") }},
		{"refused: tcp", gcc, func(tr *trial) { refused(tr, "tcp") }},
		{"refused: udp", gcc, func(tr *trial) { refused(tr, "udp") }},
		{"refused: not dumpable", gcc, notDumpable},
		{"refused: tcp to outside", gcc, tcpOutsideRefused},
		{"refused: unix to outside", gcc, unixOutsideRefused},
		{"refused: more open files than a restart may have", []string{"python3", "prlimit"}, tooManyFiles},
		{"soft limits raised by the program", []string{"python3", "prlimit"}, raisedLimits},
		{"warned: parent-death signal of a thread", []string{"python3"}, childOfThread},
		{"warned: control group", nil, controlGroup},
		{"locked memory without access", []string{"python3"}, lockedWithoutAccess},
		{"named memory", []string{"python3"}, namedMemory},
		{"named memory of before", []string{"python3"}, namedMemoryGone},
		{"named memory and saved files", []string{"python3"}, namedMemorySaved},
		{"named memory in use", []string{"python3"}, namedMemoryUsed},
		{"named memory replaced", []string{"python3"}, namedMemoryReplaced},
		{"named memory only read", []string{"python3"}, namedMemoryRead},
		{"named memory read by its writer", []string{"python3"}, namedMemoryReadByWriter},
		{"named memory that was cut", []string{"python3"}, namedMemoryCut},
		{"tcp to outside closed", gcc, func(tr *trial) { tcpOutsideClosed(tr, "tcp") }},
		{"tcp6 to outside closed", gcc, func(tr *trial) { tcpOutsideClosed(tr, "tcp6") }},
		{"snapshot: not possible", gcc, noSnapshot},
		{"keep", gcc, keep},
		{"older generation", gcc, olderGeneration},
		{"interval", gcc, interval},
		{"compressed", gcc, compressed},
		{"incremental", gcc, func(tr *trial) { incremental(tr) }},
		{"incremental alone", gcc, func(tr *trial) { incremental(tr, "alone") }},
		{"incremental keep", gcc, incrementalKeep},
		{"incremental, nothing tracked", []string{"python3"}, incrementalFull},
		{"a restart keeps the settings", gcc, settings},
		{"damaged image", gcc, damaged},
		{"foreign image", gcc, foreign},
		{"images from elsewhere", gcc, elsewhere},
		{"detached", gcc, detached},
		{"status and list", gcc, statusAndList},
		{"changed files", nil, changedFiles},
		{"changed library", gcc, changedLibrary},
		{"grown files", nil, grownFiles},
		{"rotated log", nil, rotatedLog},
		{"memfds where none is executed", []string{"python3", "unshare"}, memfdNoExec},
		{"asks itself", nil, asksItself},
		{"mapped files", []string{"python3"}, mappedFiles},
		{"here-document", nil, hereDocument},
		{"files of an earlier restart", nil, restartedFiles},
		{"saved files", nil, savedFiles},
		{"saved and mapped file", []string{"python3"}, savedAndMapped},
		{"saved and mapped since", []string{"python3"}, savedAndMappedSince},
		{"saved and mapped only", []string{"python3"}, savedAndMappedOnly},
		{"missing address", []string{"python3"}, missingAddress},
		{"mapped by two", []string{"python3"}, mappedByTwo},
		{"workplace gone", nil, workplaceGone},
		{"advice all the time", []string{"python3"}, adviceAllTheTime},
		{"a write cut short", []string{"python3"}, cutShort},
		{"self-contained beside a written file", []string{"python3"}, carriedBesideWritten},
		{"saved and watched file", []string{"tail"}, savedAndWatched},
		{"deleted file of a subvolume", []string{"python3", "mkfs.btrfs"}, subvolume},
		{"closed descriptors", nil, closedDescriptors},
		{"pipe from outside", nil, pipeOutside},
		{"read-only mount", []string{"unshare", "mount"}, readOnlyMount},
		{"refused: covered working directory", []string{"unshare", "mount"}, coveredDirectory},
		{"refused: unmounted working directory", []string{"unshare", "mount"}, unmountedDirectory},
		{"refused: covered mapped file", []string{"unshare", "mount", "python3"}, coveredFile},
		{"refused: covered program", []string{"unshare", "mount", "sh"}, coveredProgram},
		{"directory of queues", []string{"unshare", "mount"}, mqueueMount},
		{"terminal", []string{"bash"}, terminal},
		{"terminal of another size", []string{"perl"}, resized},
		{"suspended with ^Z", gcc, suspended},
		{"readme tour", []string{"python3"}, readmeTour},
	}
}

func exitCodes(tr *trial) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{[]string{"/does/not/exist"}, 99},
		{[]string{tr.dir}, 99},
	} {
		args := append([]string{"launch", "--ckptdir", tr.images(), "--"}, c.args...)
		if o := tr.hiatus(args...); o.code != c.want {
			tr.Errorf("launch %q: %s, want %d", c.args, o, c.want)
		}
	}
	if o := tr.hiatus("restart", tr.path("nothing")); o.code != 99 {
		tr.Errorf("restart of nothing: %s, want 99", o)
	}
	// The code is the program's after a restart, too.
	tr.launch("sh", "-c", "echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; exit 7")
	tr.reach(1)
	tr.suspend()
	tr.restart()
	tr.write("stop", "")
	tr.ends(tr.front, 7)
	tr.gone()
}

func wholeTree(tr *trial) {
	tr.launch("sh", "-c", "(while [ ! -e stop ]; do sleep 0.02; done; echo done >orphan) & echo 1 >progress; exit 3")
	tr.reach(1)
	tr.checkpoint()
	if tr.front.hasEnded() {
		tr.Fatal("hiatus ended before the last process")
	}
	tr.suspend()
	tr.restart()
	tr.running()
	tr.write("stop", "")
	tr.ends(tr.front, 3)
	if got := tr.read("orphan"); got != "done\n" {
		tr.Errorf("the orphan wrote %q", got)
	}
}

func signalsReach(tr *trial) {
	const program = `trap 'echo 2 >progress' USR1; trap 'exit 5' TERM; echo 1 >progress; while :; do sleep 0.02; done`
	tr.launch("sh", "-c", program)
	tr.reach(1)
	tr.signalUntil(syscall.SIGUSR1, 2)
	tr.suspend()
	tr.write("progress", "1\n")
	tr.restart()
	tr.running()
	tr.signalUntil(syscall.SIGUSR1, 2)
	tr.signal(syscall.SIGTERM)
	tr.ends(tr.front, 5)
	tr.gone()
}

// running waits until the computation answers, with processes.
func (tr *trial) running() {
	tr.Helper()
	tr.await("an answer", func() bool {
		o := tr.hiatus("status", tr.name, "--json")
		return o.code == 0 && strings.Contains(o.stdout, "host_pid")
	})
}

func (tr *trial) signal(sig syscall.Signal) {
	tr.Helper()
	if err := tr.front.cmd.Process.Signal(sig); err != nil {
		tr.Fatal(err)
	}
}

// signalUntil sends a signal to hiatus, which hands it on.
func (tr *trial) signalUntil(sig syscall.Signal, progress int64) {
	tr.Helper()
	tr.signal(sig)
	tr.await("the signal's effect", func() bool { return tr.progress() == progress })
}

func tenGenerations(tr *trial) {
	tr.launch(tr.suite.fixture("threads"))
	for range 10 {
		tr.advance(2)
		tr.suspend()
		tr.restart()
	}
	tr.advance(2)
	tr.finish()
}

func killedHard(tr *trial) {
	tr.launch(tr.suite.fixture("memory"))
	for range 3 {
		tr.advance(2)
		tr.checkpoint()
		tr.advance(2)
		tr.killAll()
		tr.restart()
	}
	tr.advance(2)
	tr.finish()
}

// twins runs one image twice at once, while the original still runs: in
// namespaces, the same process ids exist three times.
func twins(tr *trial) { tr.twins(nil, "threads") }

// sharedTwins have System V objects of their own, and one file in /dev/shm, if the user
// wants it so.
func sharedTwins(tr *trial) {
	name := filepath.Base(tr.dir)
	tr.Cleanup(func() { _ = os.Remove("/dev/shm/" + name) })
	tr.twins([]string{"--allow-changed-files"}, "shared", "/"+name)
}

func (tr *trial) twins(flags []string, fixture string, args ...string) {
	tr.launch(append([]string{tr.suite.fixture(fixture)}, args...)...)
	tr.advance(2)
	tr.checkpoint()
	original := tr.front
	var copies []*front
	for _, name := range []string{"first", "second"} {
		tr.restart(append(flags, "--name", name)...)
		copies = append(copies, tr.front)
		tr.await(name, func() bool { return tr.hiatus("status", name).code == 0 })
	}
	for _, name := range []string{tr.name, "first", "second"} {
		tr.must("checkpoint", name)
	}
	tr.advance(10)
	tr.write("stop", "")
	for _, f := range append(copies, original) {
		tr.ends(f, 0)
		tr.saysOK(f)
	}
	tr.gone()
}

// downtime leaves the program away for longer than the largest step of a
// clock that it accepts. Only a time namespace can do that.
func downtime(tr *trial) {
	tr.launch(tr.suite.fixture("downtime"))
	tr.advance(2)
	tr.suspend()
	time.Sleep(5 * time.Second) // the time away is what is tested
	tr.restart("--namespaces", "always")
	tr.advance(2)
	tr.finish()
}

// jumpingClocks: at each restart the clocks that cannot be set stand elsewhere, as
// on another host or behind a reboot: time_namespaces(7). The program's go on.
func jumpingClocks(tr *trial) {
	flags := []string{"--time", "--fork"}
	if tr.id.name != "root" {
		flags = append(flags, "--map-current-user")
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		tr.Fatal(err)
	}
	for _, fixture := range []string{"downtime", "clocks"} {
		tr.write("progress", "")
		tr.under = nil
		tr.launch(tr.suite.fixture(fixture))
		for _, jump := range []int64{1_000_000, -now.Sec / 2, now.Sec / 2} {
			tr.advance(3)
			tr.suspend()
			by := fmt.Sprint(jump)
			tr.under = slices.Concat([]string{"unshare"}, flags, []string{"--monotonic", by, "--boottime", by, "--"})
			tr.restart("--namespaces", "always")
		}
		tr.advance(3)
		tr.finish()
		tr.gone()
		for _, name := range []string{"images", "stop"} {
			if err := os.RemoveAll(tr.path(name)); err != nil {
				tr.Fatal(err)
			}
		}
	}
}

// refused holds an object that cannot be kept: the user reads which, and the
// program runs on.
func refused(tr *trial, kind string) {
	tr.launch(tr.suite.fixture("refused"), kind)
	tr.advance(2)
	var found []struct {
		PID    int
		FD     int
		Object string
		Reason string
	}
	o := tr.hiatus("check", tr.name, "--json")
	if err := json.Unmarshal([]byte(o.stdout), &found); err != nil || o.code != 1 || len(found) != 1 {
		tr.Fatalf("check: %s: want exit code 1 and one object (%v)", o, err)
	}
	if found[0].PID == 0 || found[0].FD < 3 || found[0].Object == "" || found[0].Reason == "" {
		tr.Errorf("check: want pid, descriptor, object and reason, got %+v", found[0])
	}
	o = tr.hiatus("checkpoint", tr.name)
	want := fmt.Sprintf("pid %d fd %d: %s", found[0].PID, found[0].FD, found[0].Object)
	if o.code != 1 || !strings.Contains(o.stderr, want) {
		tr.Errorf("checkpoint: %s: want exit code 1 and %q", o, want)
	}
	if g := tr.generations(); len(g) != 0 {
		tr.Errorf("a generation was committed: %v", g)
	}
	tr.advance(2)
	tr.finish()
}

// tooManyFiles is a tree each of whose processes has fewer files than it may, and all
// together more: a restart makes them in one process. What just goes is restarted.
func tooManyFiles(tr *trial) {
	const limit = 200
	tr.write("connections.py", progresses+`
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
kept = []
def connect():
    for _ in range(int(sys.argv[1])):
        kept.append((socket.create_connection(listener.getsockname()), listener.accept()[0]))
parent = len(sys.argv) < 3 or os.fork()
connect()
if not parent:
    open("forked", "w").close()
n = 0
while not os.path.exists("stop"):
    for a, b in kept:
        a.send(b"x")
        assert b.recv(1) == b"x"
    if parent:
        n += 1
        progress(n)
    time.sleep(0.02)
if parent:
    print("ok", flush=True)
`)
	tr.under = []string{"prlimit", fmt.Sprint("--nofile=", limit)}
	tr.launch("python3", "connections.py", fmt.Sprint(limit/2-30), "forked")
	tr.await("the second process", func() bool { return tr.exists("forked") })
	tr.advance(1)
	o := tr.hiatus("checkpoint", tr.name)
	if o.code != 1 || strings.Count(o.stderr, "too many open files") != 1 || !strings.Contains(o.stderr, "RLIMIT_NOFILE") {
		tr.Errorf("checkpoint: %s: want one refusal that names the limit", o)
	}
	tr.advance(2)
	tr.finish()
	for _, name := range []string{"stop", "progress"} {
		if err := os.Remove(tr.path(name)); err != nil {
			tr.Fatal(err)
		}
	}
	tr.launch("python3", "connections.py", fmt.Sprint(limit/2-14))
	tr.advance(1)
	tr.suspend()
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// childOfThread has a child whose PR_SET_PDEATHSIG is for the end of a thread: a restart,
// which cannot make it again by that thread, says so.
func childOfThread(tr *trial) {
	tr.write("thread.py", progresses+`
import ctypes, os, signal, threading, time
children = []
def make():
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        while True:
            time.sleep(1)
    children.append(pid)
    threading.Event().wait()
threading.Thread(target=make, daemon=True).start()
n = 0
while not os.path.exists("stop"):
    if children:
        assert os.waitpid(children[0], os.WNOHANG) == (0, 0)
        n += 1
        progress(n)
    time.sleep(0.02)
os.kill(children[0], signal.SIGKILL)
os.waitpid(children[0], 0)
print("ok", flush=True)
os._exit(0)
`)
	tr.launch("python3", "thread.py")
	tr.advance(2)
	tr.suspend()
	tr.restart()
	tr.advance(2)
	if said := tr.read("stderr"); strings.Count(said, "PR_SET_PDEATHSIG") != 1 {
		tr.Errorf("want one warning of PR_SET_PDEATHSIG, got %q", said)
	}
	tr.finish()
}

// raisedLimits is a program that has more than the soft limits allow under which it
// was started, and is restarted.
func raisedLimits(tr *trial) {
	tr.write("limits.py", progresses+`
import ctypes, mmap, os, resource, time
limits = [getattr(resource, "RLIMIT_" + name) for name in ("AS", "DATA", "MEMLOCK")]
before = resource.getrlimit(resource.RLIMIT_NPROC)
for limit in limits:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (hard, hard))
kept = [resource.getrlimit(limit) for limit in limits]
memory = mmap.mmap(-1, 600 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
locked = mmap.mmap(-1, 1 << 20)
assert ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(locked)), ctypes.c_size_t(1 << 20)) == 0
n = 0
while not os.path.exists("stop"):
    assert [resource.getrlimit(limit) for limit in limits] == kept
    assert resource.getrlimit(resource.RLIMIT_NPROC) == before
    assert "VmLck:\t    1024 kB" in open("/proc/self/status").read()
    n += 1
    progress(n)
    time.sleep(0.02)
print("ok", flush=True)
os._exit(0)
`)
	tr.under = []string{"prlimit", "--as=4000000000:8000000000", "--data=400000000:2000000000", "--memlock=65536:8388608", "--nproc=5000:6000"}
	tr.launch("python3", "limits.py")
	tr.advance(2)
	for range 2 {
		tr.suspend()
		tr.restart()
		tr.advance(2)
	}
	tr.finish()
}

// controlGroup is a program that has gone to a control group of its own: a checkpoint
// tells once that a restart has it in another.
func controlGroup(tr *trial) {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		tr.Fatal(err)
	}
	group := ""
	for line := range strings.Lines(string(mounts)) {
		if w := strings.Fields(line); len(w) > 2 && w[2] == "cgroup2" {
			group = filepath.Join(w[1], filepath.Base(tr.dir))
		}
	}
	if group == "" || os.Mkdir(group, 0o755) != nil || tr.id.uid != 0 {
		_ = os.Remove(group)
		tr.Skip("no control group (cgroups(7)) can be made")
	}
	tr.Cleanup(func() { _ = os.Remove(group) }) // it is in use where the test has failed
	tr.launch("sh", "-c", `echo 0 >"$0/cgroup.procs" || exit 9; n=0; while [ ! -e stop ]; do n=$((n+1)); echo $n >new; mv new progress; sleep 0.02; done; echo ok`, group)
	tr.advance(2)
	tr.checkpoint()
	tr.checkpoint()
	if said := tr.read("stderr"); strings.Count(said, "control group 0::/") != 1 {
		tr.Errorf("want one warning of the control group, got %q", said)
	}
	tr.suspend()
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// notDumpable is a program that only root may trace, ptrace(2).
func notDumpable(tr *trial) {
	if tr.id.uid == 0 {
		tr.Skip("root may trace it")
	}
	tr.launch(tr.suite.fixture("refused"), "not-dumpable")
	tr.advance(2)
	for _, command := range []string{"check", "checkpoint"} {
		if o := tr.hiatus(command, tr.name); o.code != 1 || !strings.Contains(o.stdout+o.stderr, "not dumpable") {
			tr.Errorf("%s: %s: want exit code 1 and the reason", command, o)
		}
	}
	tr.advance(2)
	tr.finish()
}

func keep(tr *trial) {
	for _, n := range []int{1, 3} {
		tr.name = fmt.Sprintf("keep%d", n)
		_ = os.Remove(tr.path("stop"))
		tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--keep", fmt.Sprint(n), "--", tr.suite.fixture("self"), "one", "", "two words")
		for range 5 {
			tr.advance(1)
			tr.checkpoint()
		}
		if g := tr.generations(); len(g) != n || filepath.Base(filepath.Dir(g[n-1])) != "00005" {
			tr.Errorf("--keep %d: %v", n, g)
		}
		tr.finish()
		if err := os.RemoveAll(tr.path("cwd")); err != nil {
			tr.Fatal(err)
		}
	}
}

func olderGeneration(tr *trial) {
	const program = `n=0; while [ ! -e stop ]; do n=$((n + 1)); echo $n >progress; while [ ! -e go.$n ] && [ ! -e stop ]; do sleep 0.01; done; done; echo $n`
	tr.launch("sh", "-c", program)
	for n := 1; n <= 2; n++ {
		tr.await("a step", func() bool { return tr.progress() == int64(n) })
		tr.checkpoint()
		tr.write(fmt.Sprintf("go.%d", n), "")
	}
	tr.await("a step", func() bool { return tr.progress() == 3 })
	tr.must("kill", tr.name)
	tr.wait(tr.front)
	tr.gone()
	for _, g := range []string{"1", "2"} {
		_ = os.Remove(tr.path("stop"))
		_ = os.Remove(tr.path("go." + g))
		tr.restart("--generation", g)
		tr.running()
		tr.write("stop", "")
		tr.ends(tr.front, 0)
		if out := tr.front.stdout.String(); out != g+"\n" {
			tr.Errorf("generation %s counted to %q", g, out)
		}
	}
}

func interval(tr *trial) {
	tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--interval", "50ms", "--", tr.suite.fixture("threads"))
	tr.await("a third generation", func() bool {
		g := tr.generations()
		return len(g) > 0 && filepath.Base(filepath.Dir(slices.Max(g))) >= "00003"
	})
	tr.must("interval", tr.name, "0")
	tr.advance(2)
	tr.finish()
}

func compressed(tr *trial) {
	tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--compress", "zstd", "--", tr.suite.fixture("memory"))
	for _, compress := range []string{"s2", "lz4", "zstd:9", "auto"} {
		tr.advance(2)
		tr.suspend()
		tr.restart("--compress", compress)
	}
	tr.advance(2)
	tr.finish()
}

// chainOf returns the generations that the memory of one comes from.
func chainOf(tr *trial, path string) (chain []int) {
	var report struct {
		Agents []struct {
			Chain  []struct{ Generation int }
			Memory struct{ Inherited int64 }
		}
	}
	if err := json.Unmarshal([]byte(tr.must("inspect", "--json", path)), &report); err != nil {
		tr.Fatal(err)
	}
	if a := report.Agents[0]; len(a.Chain) > 1 && a.Memory.Inherited == 0 {
		tr.Errorf("%s inherits nothing", path)
	}
	for _, c := range report.Agents[0].Chain {
		chain = append(chain, c.Generation)
	}
	return chain
}

// incremental restarts from every generation of a chain, and goes on from one.
func incremental(tr *trial, args ...string) {
	tr.front = tr.start(append([]string{"launch", "--name", tr.name, "--ckptdir", tr.images(), "--incremental", "--full-every", "4", "--keep", "50",
		"--compress", "s2", "--", tr.suite.fixture("dirty")}, args...)...)
	for range 6 {
		tr.advance(2)
		tr.checkpoint()
	}
	if got, want := fmt.Sprint(chainOf(tr, tr.generations()[3]), chainOf(tr, tr.generations()[5])), "[4 3 2 1] [6 5]"; got != want {
		tr.Errorf("chains %s, want %s", got, want)
	}
	tr.must("kill", tr.name)
	tr.wait(tr.front)
	tr.gone()
	for g := range 6 {
		tr.restart("--generation", fmt.Sprint(g+1), "--allow-changed-files")
		tr.running()
		tr.advance(2)
		if g == 3 { // whose successors are not those of the first life
			tr.checkpoint()
			tr.advance(1)
			tr.checkpoint()
			all := tr.generations()
			if got := fmt.Sprint(chainOf(tr, all[6]), chainOf(tr, all[7])); got != "[7] [8 7]" {
				tr.Errorf("chains after a restart %s", got)
			}
		}
		tr.must("kill", tr.name)
		tr.wait(tr.front)
		tr.gone()
	}
	tr.restart("--generation", "8", "--allow-changed-files")
	tr.running()
	tr.advance(2)
	tr.finish()
}

// incrementalKeep keeps what kept generations build on, and says what is
// missing when it is gone all the same.
func incrementalKeep(tr *trial) {
	tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--incremental", "--full-every", "3", "--keep", "2",
		"--", tr.suite.fixture("dirty"))
	for n, want := range []int{1, 2, 3, 4, 2, 3} { // 5 builds on 4 alone, and 3 is not needed any more
		tr.advance(1)
		tr.checkpoint()
		if g := tr.generations(); len(g) != want {
			tr.Errorf("after %d checkpoints: %v", n+1, g)
		}
	}
	tr.must("kill", tr.name)
	tr.wait(tr.front)
	tr.gone()
	first := filepath.Dir(tr.generations()[0])
	if err := os.RemoveAll(first); err != nil {
		tr.Fatal(err)
	}
	const missing = "generation 4, on which generation 5 builds, is missing"
	for _, args := range [][]string{{"verify", tr.images()}, {"inspect", tr.images()}, {"restart", tr.images()}} {
		if o := tr.hiatus(args...); o.code == 0 || !strings.Contains(o.stderr, missing) {
			tr.Errorf("%s: %v, want %q", args[0], o, missing)
		}
	}
}

// incrementalFull makes generations of a program whose changes cannot be tracked, for want of a
// descriptor: each is full, and needs none of the others.
func incrementalFull(tr *trial) {
	tr.write("full.py", `import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
to = os.open("progress", os.O_WRONLY | os.O_CREAT, 0o600)
try:
    while True:
        os.dup(to)
except OSError:
    pass
n = 0
while True:
    n += 1
    os.pwrite(to, b"%d" % n, 0)
    time.sleep(0.02)
`)
	tr.launchWith([]string{"--incremental", "--keep", "2"}, "python3", "full.py")
	tr.advance(1)
	for range 4 {
		tr.checkpoint()
	}
	for _, g := range tr.generations() {
		if chain := chainOf(tr, g); len(chain) != 1 {
			tr.Errorf("chain %v, want a full image", chain)
		}
	}
	if g := tr.generations(); len(g) != 2 {
		tr.Errorf("%d generations are kept, want 2", len(g))
	}
	tr.must("kill", tr.name)
	tr.wait(tr.front)
	tr.gone()
	if err := os.RemoveAll(filepath.Dir(tr.generations()[0])); err != nil {
		tr.Fatal(err)
	}
	tr.restart()
	tr.advance(2)
	tr.must("kill", tr.name)
	tr.gone()
}

// settings restarts without and with flags: what is not given is as it was.
func settings(tr *trial) {
	tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--keep", "3", "--interval", "1h", "--compress", "zstd", "--incremental", "--full-every", "7",
		"--self-contained", "--tcp-outside", "close", "--", tr.suite.fixture("memory"))
	tr.advance(1)
	type set struct {
		Interval time.Duration `json:"interval_ns"`
		Keep     int
		Compress string

		Incremental bool
		FullEvery   int `json:"full_every"`
		Flags       map[string]string
	}
	want := set{time.Hour, 3, "zstd", true, 7, map[string]string{"self-contained": "true", "tcp-outside": "close"}}
	for _, again := range []struct {
		order, flags []string
		env          string
		change       func()
	}{
		{nil, nil, "", func() {}},
		{[]string{"interval", tr.name, "2h"}, nil, "", func() { want.Interval = 2 * time.Hour }},
		{nil, []string{"--self-contained=false"}, "HIATUS_KEEP=4", func() { want.Keep, want.Flags = 4, map[string]string{"tcp-outside": "close"} }},
		{nil, []string{"--keep", "1", "--compress", "none", "--interval", "0", "--incremental=false", "--tcp-outside", "refuse"}, "",
			func() { want = set{0, 1, "none", false, 7, map[string]string{"tcp-outside": "refuse"}} }},
	} {
		if again.order != nil {
			tr.must(again.order...)
			again.change()
		}
		tr.suspend()
		env := tr.env
		tr.env = append(tr.env[:len(tr.env):len(tr.env)], again.env)
		tr.restart(again.flags...)
		tr.env = env
		if again.order == nil {
			again.change()
		}
		tr.running()
		tr.checkpoint()
		var report struct{ Manifest struct{ Settings set } }
		if err := json.Unmarshal([]byte(tr.must("inspect", "--json", slices.Max(tr.generations()))), &report); err != nil {
			tr.Fatal(err)
		}
		if got := report.Manifest.Settings; !reflect.DeepEqual(got, want) {
			tr.Errorf("after restart %v: %+v, want %+v", again.flags, got, want)
		}
	}
	if g := tr.generations(); len(g) != 1 {
		tr.Errorf("%d generations are kept, want 1", len(g))
	}
	tr.advance(1)
	tr.finish()
}

// damaged changes one byte of each file of an image, and cuts each short: a
// restart says so, and starts nothing.
func damaged(tr *trial) {
	tr.launch(tr.suite.fixture("threads"))
	tr.advance(2)
	tr.suspend()
	whole := tr.images()
	files := imageFiles(tr, whole)
	if len(files) < 2 {
		tr.Fatalf("the image has the files %v only", files)
	}
	for i, file := range files {
		if fileSize(tr, filepath.Join("images", file)) == 0 {
			continue // a stripe without an extent: nothing to damage
		}
		for j, way := range []struct {
			name   string
			damage func([]byte) []byte
		}{
			{"a changed byte", func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b }},
			{"a cut end", func(b []byte) []byte { return b[:len(b)-1] }},
			{"nothing", func([]byte) []byte { return nil }},
		} {
			bad := fmt.Sprintf("%s.%d.%d", whole, i, j)
			copyImage(tr, whole, bad)
			path := filepath.Join(bad, file)
			data, err := os.ReadFile(path)
			if err != nil {
				tr.Fatal(err)
			}
			if err := os.WriteFile(path, way.damage(data), 0o600); err != nil {
				tr.Fatal(err)
			}
			tr.mustNotStart(bad, file+": "+way.name)
		}
	}
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// mustNotStart checks that an image is refused.
func (tr *trial) mustNotStart(images, what string) {
	tr.Helper()
	before := tr.progress()
	if o := tr.hiatus("verify", images); o.code != 1 {
		tr.Errorf("%s: verify: %s, want 1", what, o)
	}
	if o := tr.hiatus("restart", images); o.code != 99 || strings.Count(o.stderr, "\n") != 1 {
		tr.Errorf("%s: restart: %s, want 99 and a reason in a line", what, o)
	}
	if left := tr.processes(); len(left) > 0 || tr.progress() != before {
		tr.Errorf("%s: something was started", what)
	}
}

func imageFiles(tr *trial, dir string) []string {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".") {
			rel, rerr := filepath.Rel(dir, path)
			files, err = append(files, rel), rerr
		}
		return err
	})
	if err != nil {
		tr.Fatal(err)
	}
	return files
}

// copyImage copies with owners and modes: an image of another owner, or that
// others may read, is refused for that.
func copyImage(tr *trial, from, to string) {
	if o := tr.exec("cp", "-a", from, to); o.code != 0 {
		tr.Fatalf("cp: %s", o)
	}
}

// foreign is an image that another user may have written.
func foreign(tr *trial) {
	tr.launch(tr.suite.fixture("threads"))
	tr.advance(2)
	tr.suspend()
	open := tr.images() + ".open"
	copyImage(tr, tr.images(), open)
	files := imageFiles(tr, open)
	if err := os.Chmod(filepath.Join(open, files[0]), 0o646); err != nil {
		tr.Fatal(err)
	}
	if o := tr.hiatus("restart", open); o.code != 99 || !strings.Contains(o.stderr, "everybody may write to it") {
		tr.Errorf("an image to which all may write: %s, want 99", o)
	}
	// Root restarts what it is asked to.
	if tr.id.switched {
		other := tr.images() + ".other"
		copyImage(tr, tr.images(), other)
		for _, file := range imageFiles(tr, other) {
			if err := os.Chown(filepath.Join(other, file), 12345, 12345); err != nil {
				tr.Fatal(err)
			}
		}
		if o := tr.hiatus("restart", other); o.code != 99 {
			tr.Errorf("an image of another user: %s, want 99", o)
		}
		if left := tr.processes(); len(left) > 0 {
			tr.Errorf("something was started: %v", left)
		}
	}
	tr.restart()
	tr.advance(2)
	tr.finish()
}

func detached(tr *trial) {
	// A shell waits for the end of what it substitutes: nothing but the report may have that output.
	o := tr.exec("sh", "-c", `said=$("$@" 2>&1); echo "$said"`, "sh", tr.suite.hiatus(), "launch", "--detach", "--json",
		"--name", tr.name, "--ckptdir", tr.images(), "--", "sh", "-c", `echo to the log; exec "$0"`, tr.suite.fixture("threads")).stdout
	var d struct {
		Name   string
		PID    int
		Output string
	}
	if err := json.Unmarshal([]byte(o), &d); err != nil || d.Name != tr.name || d.PID == 0 {
		tr.Fatalf("launch --detach --json: %q (%v)", o, err)
	}
	tr.advance(2)
	if said, err := os.ReadFile(d.Output); err != nil || string(said) != "to the log\n" {
		tr.Errorf("its output is %q (%v)", said, err)
	}
	tr.must("checkpoint", tr.name, "--kill")
	tr.gone()
	moved := tr.path("moved") // with its output
	if err := os.Rename(tr.images(), moved); err != nil {
		tr.Fatal(err)
	}
	tr.must("restart", moved, "--detach")
	tr.advance(2)
	tr.must("kill", tr.name)
	tr.gone()
	clone := tr.name + "-clone"
	tr.must("restart", moved, "--detach", "--name", clone)
	tr.advance(2)
	var st status
	if err := json.Unmarshal([]byte(tr.must("status", clone, "--json")), &st); err != nil {
		tr.Fatal(err)
	}
	for _, fd := range []int{1, 2} {
		want := filepath.Join(moved, clone, "output.log")
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", st.Agents[0].Processes[0].HostPID, fd)); got != want {
			tr.Errorf("fd %d of the clone: %s (%v), want %s", fd, got, err, want)
		}
	}
	tr.must("kill", clone)
	tr.gone()
	if o := tr.hiatus("status", tr.name); o.code != 1 {
		tr.Errorf("status after the end: %s, want 1", o)
	}
	if left, err := os.ReadDir(tr.path("run/hiatus")); err != nil || len(left) > 0 {
		tr.Errorf("left in the runtime directory: %v (%v)", left, err)
	}
}

// status is the part of `hiatus status --json` that is looked at here.
type status struct {
	Name        string
	State       string
	Generations []uint64
	Agents      []struct {
		Processes []struct {
			PID     int
			HostPID int `json:"host_pid"`
			PPID    int
			Threads int
			Command string
		}
	}
}

func statusAndList(tr *trial) {
	tr.launch(tr.suite.fixture("many"), "processes", "5")
	tr.advance(2)
	before := statusOf(tr)
	tr.suspend()
	tr.restart("--namespaces", "always")
	tr.advance(2)
	after := statusOf(tr)
	if !slices.Equal(before, after) {
		tr.Errorf("process ids %v, want %v", after, before)
	}
	var list []status
	if err := json.Unmarshal([]byte(tr.must("list", "--json")), &list); err != nil || len(list) != 1 || list[0].Name != tr.name {
		tr.Errorf("list: %+v (%v)", list, err)
	}
	if text := tr.must("list"); !strings.Contains(text, tr.name) {
		tr.Errorf("list: %q", text)
	}
	tr.finish()
}

// statusOf checks a status against /proc and returns the inner process ids.
func statusOf(tr *trial) []int {
	tr.Helper()
	var st status
	if err := json.Unmarshal([]byte(tr.must("status", tr.name, "--json")), &st); err != nil {
		tr.Fatal(err)
	}
	if st.Name != tr.name || len(st.Agents) != 1 || len(st.Agents[0].Processes) != 6 {
		tr.Fatalf("status: %+v", st)
	}
	var pids []int
	all := tr.processes()
	for _, p := range st.Agents[0].Processes {
		pids = append(pids, p.PID)
		if !slices.Contains(all, p.HostPID) || p.Threads != 1 || !strings.Contains(p.Command, "many") {
			tr.Errorf("status: %+v; in /proc are %v", p, all)
		}
	}
	slices.Sort(pids)
	return pids
}
