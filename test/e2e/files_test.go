package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// changedFiles changes a file between checkpoint and restart: the user hears
// of it, and decides.
func changedFiles(tr *trial) {
	tr.write("input", "0123456789\n")
	tr.launch("sh", "-c", "exec 3<input; echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; cat <&3")
	tr.reach(1)
	tr.suspend()
	tr.write("input", "changed and longer\n")
	o := tr.hiatus("restart", tr.images())
	for _, want := range []string{tr.path("input"), "has changed since the checkpoint", "--allow-changed-files"} {
		if o.code != 99 || !strings.Contains(o.stderr, want) {
			tr.Fatalf("restart: %s: want exit code 99 and %q", o, want)
		}
	}
	tr.gone()
	tr.restart("--allow-changed-files")
	tr.running()
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	if got := tr.front.stdout.String(); got != "changed and longer\n" {
		tr.Errorf("read %q", got)
	}
}

// grownFiles lets the program run on after the checkpoint, until it crashes:
// its own output has grown, which is no reason to refuse.
func grownFiles(tr *trial) {
	tr.launch("sh", "-c", "exec >out; echo first; echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo last; echo 2 >progress; sleep 1000")
	tr.reach(1)
	tr.checkpoint()
	tr.write("out", "cut")
	if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "has changed since the checkpoint") ||
		!strings.Contains(o.stderr, "the computation that the image is of, or another restart of it, lives") {
		tr.Errorf("restart beside the computation itself: %s", o)
	}
	tr.write("out", "first\n")
	tr.write("stop", "")
	tr.await("more output", func() bool { return tr.progress() == 2 })
	tr.killAll()
	if got := tr.read("out"); got != "first\nlast\n" {
		tr.Fatalf("wrote %q", got)
	}
	tr.write("progress", "1")
	tr.restart()
	tr.await("the same again", func() bool { return tr.progress() == 2 })
	if got := tr.read("out"); got != "first\nlast\n" {
		tr.Errorf("wrote %q", got)
	}
}

// rotatedLog takes away a file that the program only appends to: a restart says so, and goes on with
// a new one where it may. One that it writes elsewhere has to be put back.
func rotatedLog(tr *trial) {
	tr.launch("sh", "-c", "exec >>log; n=0; while [ ! -e stop ]; do n=$((n+1)); echo line $n; echo $n >new; mv new progress; sleep 0.02; done; echo ok")
	tr.reach(2)
	tr.suspend()
	lines := tr.read("log")
	for _, name := range []string{"log", "progress"} {
		if err := os.Rename(tr.path(name), tr.path(name+".1")); err != nil {
			tr.Fatal(err)
		}
	}
	if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "go on with a new one by --allow-changed-files") {
		tr.Errorf("restart without the log: %s", o)
	}
	tr.restart("--allow-changed-files")
	tr.reach(1)
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	if all := lines + tr.read("log"); strings.Count(all, "line 1\n") != 1 || !strings.HasSuffix(all, "ok\n") || tr.read("log.1") != lines {
		tr.Errorf("the logs have %q", all)
	}
	for i, line := range strings.Split(strings.TrimSuffix(lines+tr.read("log"), "ok\n"), "\n") {
		if want := fmt.Sprintf("line %d", i+1); line != want && line != "" {
			tr.Errorf("%q is line %d of the logs", line, i+1)
			break
		}
	}
}

// restartedFiles crashes a program that was restarted from its last generation, made with
// --kill: its own output has grown since, as after any crash. Before that nobody may have.
func restartedFiles(tr *trial) {
	tr.launch("sh", "-c", "exec >out; echo first; echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo last; echo 2 >progress; sleep 1000")
	tr.reach(1)
	tr.suspend()
	tr.write("out", "first\nforeign\n")
	if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "has changed since the checkpoint") {
		tr.Fatalf("restart with foreign output: %s", o)
	}
	tr.restart("--allow-changed-files")
	tr.write("stop", "")
	for range 2 {
		tr.await("more output", func() bool { return tr.progress() == 2 })
		if got := tr.read("out"); got != "first\nlast\ngn\n" {
			tr.Errorf("wrote %q", got)
		}
		tr.await("the mark of the restart", func() bool { return tr.exists(filepath.Join("images", tr.name, "00001", "restarted")) })
		if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "has changed since the checkpoint") ||
			!strings.Contains(o.stderr, "another restart of it, lives") {
			tr.Errorf("restart beside one that runs: %s", o)
		}
		tr.killAll()
		tr.write("progress", "1")
		tr.restart()
	}
	tr.await("more output", func() bool { return tr.progress() == 2 })
	tr.killAll()
	tr.write("new", "first\nforeign\nand more\n")
	if err := os.Rename(tr.path("new"), tr.path("out")); err != nil {
		tr.Fatal(err)
	}
	if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, "it is another file") {
		tr.Errorf("restart with another file of the name: %s", o)
	}
}

// hereDocument ends a program that has not read all of its standard input, a pipe: where nobody is left to
// write to it what is in it comes back, else a restart says that it does not.
func hereDocument(tr *trial) {
	const program = `while read n; do echo $n >>out; echo $n >progress; while [ $n = 1 ] && [ ! -e go ]; do sleep 0.02; done; done; echo end >>out`
	for _, written := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			tr.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		if _, err := w.WriteString("1\n2\n3\n"); err != nil {
			tr.Fatal(err)
		}
		want := "1\nend\n"
		if written {
			w.Close()
			want = "1\n2\n3\nend\n"
		}
		tr.write("progress", "0")
		tr.write("out", "")
		tr.stdin = r
		tr.launch("sh", "-c", program)
		tr.stdin = nil
		tr.reach(1)
		tr.suspend()
		r.Close()
		tr.write("go", "")
		tr.restart()
		tr.ends(tr.front, 0)
		if got := tr.read("out"); got != want {
			tr.Errorf("it read %q, want %q", got, want)
		}
		const told = "not read yet from the launching command"
		if log := tr.read("stderr"); strings.Contains(log, told) == written {
			tr.Errorf("told:\n%s", log)
		}
		for _, name := range []string{"go", "stderr"} {
			tr.removeAll(name)
		}
	}
}

// mappedFiles has a program write to a file that it has mapped, and not open any more: what it has
// written behind the checkpoint stays, and a restart says so.
func mappedFiles(tr *trial) {
	tr.write("map", strings.Repeat("0", 8192))
	tr.launch("python3", "-c", `
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open("map", os.O_RDWR)
at = libc.mmap(None, 8192, 3, 1, fd, ctypes.c_long(0))
os.close(fd)
n = 0
while True:
    n += 1
    ctypes.memmove(at, b"%d" % n, 1)
    open("new", "w").write(str(n))
    os.rename("new", "progress")
    while not os.path.exists("go%d" % n):
        time.sleep(0.01)
`)
	const told = "was mapped, and has changed since the checkpoint"
	tr.reach(1)
	tr.suspend()
	tr.restart()
	tr.running()
	if log := tr.read("stderr"); strings.Contains(log, told) {
		tr.Errorf("told of a file that has not changed:\n%s", log)
	}
	tr.write("go1", "")
	tr.await("more", func() bool { return tr.progress() == 2 })
	tr.killAll()
	tr.restart()
	tr.running()
	want := 1
	var fs unix.Statfs_t
	if err := unix.Statfs(tr.path("map"), &fs); err != nil {
		tr.Fatal(err)
	} else if fs.Type == unix.TMPFS_MAGIC { // which keeps no time of what is written through memory
		want = 0
	}
	if log := tr.read("stderr"); strings.Count(log, told) != want || want > 0 && !strings.Contains(log, tr.path("map")) {
		tr.Errorf("told:\n%s", log)
	}
	tr.killAll()
}

// asksItself asks for a checkpoint of the computation that the command is of.
func asksItself(tr *trial) {
	tr.launch("sh", "-c", `for c in checkpoint check; do "$0" $c "$1" 2>&1; echo $?; done`, tr.suite.hiatus(), tr.name)
	tr.ends(tr.front, 0)
	const told = "is of the computation itself"
	if got := tr.front.stdout.String(); strings.Count(got, told) != 2 || strings.Count(got, "\n1\n") != 2 {
		tr.Errorf("told:\n%s", got)
	}
}

// savedFiles removes and changes a file whose content is in the image.
func savedFiles(tr *trial) {
	const content = "0123456789\n"
	is := func(want string) {
		tr.Helper()
		if got := tr.read("sub/data"); got != want {
			tr.Fatalf("the file has %q, want %q", got, want)
		}
	}
	const program = "mkdir sub; exec 3<>sub/data; echo 0123456789 >&3; echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo more >&3"
	tr.front = tr.start("launch", "--name", tr.name, "--ckptdir", tr.images(), "--ckpt-open-files", "--", "sh", "-c", program)
	tr.reach(1)
	tr.suspend()
	tr.removeAll("sub")
	tr.restart()
	tr.running()
	is(content)
	tr.must("checkpoint", tr.name, "--kill", "--ckpt-open-files")
	tr.wait(tr.front)
	tr.gone()
	tr.write("sub/data", "somebody's own\n")
	o := tr.hiatus("restart", tr.images())
	if o.code != 99 || !strings.Contains(o.stderr, tr.path("sub/data")) || !strings.Contains(o.stderr, "--allow-file-overwrite") {
		tr.Fatalf("restart: %s: want exit code 99, the file and the flag", o)
	}
	is("somebody's own\n")
	tr.gone()
	tr.restart("--allow-file-overwrite")
	tr.running()
	is(content)
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	is(content + "more\n")
	if left, err := os.ReadDir(tr.path("sub")); err != nil || len(left) != 1 {
		tr.Errorf("left behind: %v, %v", left, err)
	}
}

// savedAndMapped changes a file whose content is in the image through the memory
// of the program, after the checkpoint: its time of change does not tell.
func savedAndMapped(tr *trial) {
	tr.launchWith([]string{"--ckpt-open-files"}, "python3", "-c", `
import mmap, os, time
f = os.open("data", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(f, 8192)
m = mmap.mmap(f, 8192)
for step, sign in enumerate(["go", "stop"]):
    m[0] = m[5000] = ord("1") + step
    with open("progress.new", "w") as p:
        p.write(str(step + 1))
    os.rename("progress.new", "progress")
    while not os.path.exists(sign):
        time.sleep(0.02)
print("ok")
`)
	tr.reach(1)
	tr.checkpoint()
	info, err := os.Stat(tr.path("data"))
	if err != nil {
		tr.Fatal(err)
	}
	changed, warns := "2", true
	var fs unix.Statfs_t
	if err := unix.Statfs(tr.dir, &fs); err != nil {
		tr.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC { // the file is memory, which comes back
		changed, warns = "1", false
	}
	for _, c := range []struct{ flag, want string }{
		{"--allow-changed-files", changed},
		{"", changed},
		{"--allow-file-overwrite", "1"},
	} {
		tr.write("go", "")
		tr.reach(2)
		tr.killAll()
		tr.write("progress", "1")
		err := errors.Join(os.Remove(tr.path("go")), os.Remove(tr.path("hiatus.log")), os.Chtimes(tr.path("data"), info.ModTime(), info.ModTime()))
		if err != nil {
			tr.Fatal(err)
		}
		tr.restart(strings.Fields(c.flag)...)
		tr.running()
		if data := tr.read("data"); data[:1] != c.want || data[5000:5001] != c.want {
			tr.Errorf("restart %s: the file has %q and %q, want %s", c.flag, data[:1], data[5000:5001], c.want)
		}
		if warned := strings.Contains(tr.read("hiatus.log"), "was mapped"); warned != (warns && c.flag == "") {
			tr.Errorf("restart %s: a warning: %t", c.flag, warned)
		}
	}
	tr.write("go", "")
	tr.reach(2)
	if data := tr.read("data"); data[:1] != "2" {
		tr.Errorf("the mapping is not the file's: it has %q", data[:1])
	}
	tr.write("stop", "")
	tr.ends(tr.front, 0)
}

// workplaceGone takes away the directory in which the program works, with all in it and above it.
func workplaceGone(tr *trial) {
	tr.launchWith([]string{"--ckpt-open-files"}, "sh", "-c", `umask 0; mkdir -p sub; mkdir -m 2770 sub/work; cd sub/work; exec 3<>data 4<.; echo one >&3
echo 1 >../../progress; while [ ! -e ../../stop ]; do sleep 0.02; done; echo two >&3; cat data; pwd`)
	tr.reach(1)
	tr.suspend()
	tr.removeAll("sub")
	tr.restart()
	tr.running()
	if info, err := os.Stat(tr.path("sub/work")); err != nil || info.Mode() != 0o770|os.ModeDir|os.ModeSetgid {
		tr.Errorf("its directory: %v, %v", info, err)
	}
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	if got, want := tr.front.stdout.String(), "one\ntwo\n"+tr.path("sub/work")+"\n"; got != want {
		tr.Errorf("it said %q, want %q", got, want)
	}
}

// shut is a function in Python that closes all descriptors of a file. mmap.mmap keeps one.
const shut = `
import os
def shut(name):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink("/proc/self/fd/%d" % fd).endswith(name):
                os.close(fd)
        except FileNotFoundError:
            pass
`

// mappedByTwo has a small file that one process writes to through its memory and another reads so: it
// is as it is now where the program ran on, and made again where it is gone with its directory.
func mappedByTwo(tr *trial) {
	tr.launch("python3", "-c", shut+`
import mmap, os, time
os.mkdir("sub", 0o750)
f = os.open("sub/data", os.O_RDWR | os.O_CREAT, 0o640)
os.ftruncate(f, 8192)
reads = mmap.mmap(f, 4096, prot=mmap.PROT_READ)
asks, asked = os.pipe()
tells, told = os.pipe()
if os.fork() == 0:
    writes = mmap.mmap(f, 8192)
    shut("sub/data")
    os.close(asked)
    while n := os.read(asks, 8):
        writes[70:78] = n
        os.write(told, b".")
    os._exit(0)
shut("sub/data")
progress = os.open("progress", os.O_RDWR | os.O_CREAT, 0o600)
n, said = 0, "ok"
while not os.path.exists("stop"):
    n += 1
    os.write(asked, b"%08d" % n)
    os.read(tells, 1)
    if int(reads[70:78]) != n:
        said = "%s, not %d" % (reads[70:78], n)
    os.pwrite(progress, b"%08d" % n, 0)
    time.sleep(0.02)
print(said, flush=True)
`)
	tr.advance(2)
	tr.checkpoint()
	tr.advance(3)
	tr.crash()
	tr.restart()
	tr.advance(3)
	tr.checkpoint()
	tr.crash()
	tr.removeAll("sub")
	tr.restart()
	tr.advance(3)
	tr.hasModes(map[string]os.FileMode{"sub/data": 0o640, "sub": 0o750 | os.ModeDir})
	tr.finish()
}

// savedAndMappedOnly has files whose directory is removed, as a system's start does with that of an
// Open MPI session: one is mapped by two processes, larger than what an image has of it without being
// asked, and not open; and there is a FIFO.
func savedAndMappedOnly(tr *trial) {
	tr.launchWith([]string{"--ckpt-open-files"}, "python3", "-c", shut+progresses+`
import mmap, os, time
os.mkdir("sub", 0o710)
os.mkfifo("sub/fifo", 0o640)
fifo = os.open("sub/fifo", os.O_RDWR)
os.write(fifo, b"in the FIFO")
f = os.open("sub/data", os.O_RDWR | os.O_CREAT, 0o440)
os.ftruncate(f, 1 << 20)
reads = mmap.mmap(f, 1 << 20, prot=mmap.PROT_READ)
asks, asked = os.pipe()
tells, told = os.pipe()
if os.fork() == 0:
    writes = mmap.mmap(f, 1 << 20)
    shut("sub/data")
    os.close(asked)
    while n := os.read(asks, 8):
        writes[700000:700008] = n
        os.write(told, b".")
    os._exit(0)
shut("sub/data")
n, said = 0, "ok"
while not os.path.exists("stop"):
    if int(reads[700000:700008].strip(b"\0") or b"0") != n:
        said = "%s, not %d" % (reads[700000:700008], n)
    n += 1
    os.write(asked, b"%08d" % n)
    os.read(tells, 1)
    progress(n)
    time.sleep(0.02)
print(said, os.read(fifo, 64).decode(), flush=True)
`)
	tr.advance(2)
	tr.suspend()
	tr.removeAll("sub")
	tr.restart()
	tr.running()
	tr.advance(3)
	tr.hasModes(map[string]os.FileMode{"sub/data": 0o440, "sub/fifo": 0o640 | os.ModeNamedPipe, "sub": 0o710 | os.ModeDir})
	tr.must("checkpoint", tr.name)
	tr.advance(3)
	tr.crash()
	tr.restart("--allow-file-overwrite")
	tr.advance(3)
	if got := strings.Trim(tr.read("sub/data")[700000:700008], "0"); got == "" || got == "\x00" {
		tr.Errorf("the mapping is not the file's: it has %q", got)
	}
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	if got := tr.front.stdout.String(); got != "ok in the FIFO\n" {
		tr.Errorf("it said %q", got)
	}
}

// cutShort has calls that write wait for their reader: that a stop ends them is told.
func cutShort(tr *trial) {
	for call, how := range map[string]string{
		"write":   "os.pipe(); done = os.write(w, bytes(500000))",
		"writev":  "socket.socketpair(); done = os.writev(w.fileno(), [bytes(250000)] * 2)",
		"send":    "socket.socketpair(); done = w.send(bytes(500000))",
		"sendmsg": "socket.socketpair(); done = w.sendmsg([bytes(100000), bytes(400000)])",
	} {
		pair, how, _ := strings.Cut(how, "; ")
		tr.write("pid", "")
		tr.launch("python3", "-c", `
import os, socket
if not os.path.exists("go"):
    os.mkfifo("go")
r, w = `+pair+`
number = lambda x: x if type(x) is int else x.fileno()
if type(w) is not int:
    w.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
if os.fork() == 0:
    os.close(number(w))
    go = os.open("go", os.O_RDONLY)
    os.read(go, 1)
    while os.read(number(r), 1 << 20):
        pass
    os._exit(0)
os.close(number(r))
open("new", "w").write(str(os.getpid()))
os.rename("new", "pid")
`+how+`
print(done, number(w), flush=True)
os._exit(0)
`)
		tr.await("its pid", func() bool { return tr.read("pid") != "" })
		tr.await("the call", func() bool {
			wchan, err := os.ReadFile("/proc/" + tr.read("pid") + "/wchan")
			return err == nil && (strings.Contains(string(wchan), "sock") || strings.Contains(string(wchan), "pipe"))
		})
		tr.must("check", tr.name)
		tr.write("go", "!")
		tr.ends(tr.front, 0)
		var done, fd int
		if _, err := fmt.Sscan(tr.front.stdout.String(), &done, &fd); err != nil {
			tr.Fatal(err)
		}
		told := fmt.Sprintf("fd %d: the stop has ended a %s of 500000 bytes when %d were done", fd, call, done)
		if log := tr.read("stderr"); done >= 500000 || strings.Count(log, told) != 1 {
			tr.Errorf("it wrote %d bytes; told:\n%s\nwant %q", done, log, told)
		}
	}
}

// savedAndWatched removes a file that is made again, and that tail(1) watches:
// its name is there before the watch.
func savedAndWatched(tr *trial) {
	add := func(line, all string) {
		tr.Helper()
		f, err := os.OpenFile(tr.path("log"), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(line)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			tr.Fatal(err)
		}
		tr.await("the line "+line, func() bool { return tr.read("out") == all })
	}
	tr.write("log", "one\n")
	tr.launchWith([]string{"--ckpt-open-files"}, "sh", "-c", "exec >out; exec tail -n +1 -f log")
	tr.await("the first line", func() bool { return tr.read("out") == "one\n" })
	add("two\n", "one\ntwo\n") // from here on it waits for events
	tr.suspend()
	if err := os.Remove(tr.path("log")); err != nil {
		tr.Fatal(err)
	}
	tr.restart("--ckpt-open-files")
	tr.running()
	add("three\n", "one\ntwo\nthree\n")
	tr.killAll()
}

// subvolume has a deleted file open and mapped on btrfs, where stat(2) and
// /proc/PID/maps show different devices: it is one file to the program. So is one
// that is mapped only, by a name that it has lost.
func subvolume(tr *trial) {
	if os.Geteuid() != 0 {
		tr.Skip("only root may mount")
	}
	if filesystems, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(filesystems), "\tbtrfs\n") {
		tr.Skip("the kernel has no btrfs")
	}
	device, volume := tr.path("device"), tr.path("volume")
	err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, 128<<20), os.Mkdir(volume, 0o755))
	if err != nil {
		tr.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.btrfs", "-q", device}, {"mount", "-o", "loop", device, volume}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			tr.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	tr.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	tr.own(volume)
	tr.launch("python3", "-c", `
import ctypes, mmap, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
g = os.open("volume/g.new", os.O_RDWR | os.O_CREAT)
os.ftruncate(g, 8192)
linked = (ctypes.c_char * 8192).from_address(libc.mmap(None, ctypes.c_size_t(8192), 3, mmap.MAP_SHARED, g, ctypes.c_long(0)))
os.close(g)
os.link("volume/g.new", "volume/g")
os.unlink("volume/g.new")
f = os.open("volume/f", os.O_RDWR | os.O_CREAT)
os.write(f, b"content".ljust(8192))
os.unlink("volume/f")
m = mmap.mmap(f, 8192)
w = os.open("/proc/self/fd/%d" % f, os.O_WRONLY)
step = 0
while not os.path.exists("stop"):
    step += 1
    os.pwrite(w, b"%7d" % step, 0)
    assert m[:7] == b"%7d" % step, m[:7]
    m[4096:4103] = b"%7d" % step
    assert os.pread(f, 7, 4096) == b"%7d" % step
    linked[:7] = b"%7d" % step
    with open("volume/g", "rb") as again:
        assert again.read(7) == b"%7d" % step
    with open("progress.new", "w") as p:
        p.write("1")
    os.rename("progress.new", "progress")
    time.sleep(0.02)
print("ok")
`)
	tr.reach(1)
	for range 2 {
		tr.suspend()
		tr.write("progress", "0")
		tr.restart()
		tr.running()
		tr.reach(1)
	}
	tr.finish()
}

// closedDescriptors starts with a descriptor that nobody has asked for.
func closedDescriptors(tr *trial) {
	for flag, want := range map[string]int{"": 0, " --close-fds": 1} {
		o := tr.exec("sh", "-c", "exec 7</dev/null; exec "+tr.suite.hiatus()+" launch --ckptdir "+tr.images()+flag+" -- test -e /proc/self/fd/7")
		if o.code != want {
			tr.Errorf("launch%s: %s: want exit code %d", flag, o, want)
		}
	}
}

// pipeOutside passes ends of a pipe above the standard descriptors, as make(1)
// does both of its own: the tests hold them too, so that they have no place in
// an image, and the user reads so.
func pipeOutside(tr *trial) {
	for n, reason := range []string{"its write end is held by a process outside the computation", "its read end is held by a process outside the computation",
		"the launching command has inherited both of its ends"} {
		tr.name = fmt.Sprintf("end%d", n)
		r, w, err := os.Pipe()
		if err != nil {
			tr.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		tr.passed = [][]*os.File{{r}, {w}, {r, w}}[n]
		tr.write("progress", "")
		_ = os.Remove(tr.path("stop"))
		tr.launch("sh", "-c", "echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo ok")
		tr.reach(1)
		for _, command := range []string{"check", "checkpoint"} {
			o := tr.hiatus(command, tr.name)
			if out := o.stdout + o.stderr; o.code != 1 || !strings.Contains(out, reason) || !strings.Contains(out, "fd 3") {
				tr.Errorf("%s: %s: want fd 3 and %q", command, o, reason)
			}
		}
		tr.finish()
	}
	// --close-fds leaves it to whoever launched.
	tr.name = "closed"
	_ = os.Remove(tr.path("stop"))
	tr.write("progress", "")
	tr.launchWith([]string{"--close-fds"}, "sh", "-c", "echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo ok")
	tr.reach(1)
	tr.suspend()
	tr.restart()
	tr.running()
	tr.finish()
}

// privately makes every hiatus in front run in a mount and an IPC namespace of
// its own, in which the script has been run.
func (tr *trial) privately(script string) {
	if tr.id.uid != 0 {
		tr.Skip("only root may mount")
	}
	tr.under = []string{"unshare", "--mount", "--ipc", "sh", "-c", script + ` && exec "$@"`, "sh"}
}

// readOnlyMount reads a file on a read-only mount, which the restart has too.
func readOnlyMount(tr *trial) {
	tr.privately("mount --bind data data && mount -o remount,bind,ro data")
	if err := os.Mkdir(tr.path("data"), 0o755); err != nil {
		tr.Fatal(err)
	}
	tr.write("data/input", "first\nsecond\nthird\nfourth\n")
	const program = "exec 3<data/input 4<data; read line <&3; n=0; while :; do n=$((n+1)); echo $n >progress; " +
		"while [ ! -e go.$n ]; do sleep 0.02; done; read line <&3; echo $line; " +
		"if (echo >data/new) 2>/dev/null; then exit 9; fi; if [ -e stop ]; then echo ok; exit; fi; done"
	tr.launch("sh", "-c", program)
	tr.reach(1)
	for n := range int64(2) {
		tr.suspend()
		tr.restart()
		tr.running()
		tr.write(fmt.Sprintf("go.%d", n+1), "")
		tr.await("the next line", func() bool { return tr.progress() == n+2 })
	}
	tr.write("stop", "")
	tr.write("go.3", "")
	tr.ends(tr.front, 0)
	if got := tr.front.stdout.String(); got != "third\nfourth\nok\n" {
		tr.Errorf("read %q", got)
	}
}

// coveredDirectory is the working directory of a program that has mounted another
// file system on it.
func coveredDirectory(tr *trial) {
	misplaced(tr, `cd data && mount -t tmpfs other "$PWD"`)
}

// unmountedDirectory is one of a file system that was unmounted, umount(2) with
// MNT_DETACH.
func unmountedDirectory(tr *trial) {
	misplaced(tr, `mount -t tmpfs other data && mkdir data/etc && cd data/etc && umount -l "$OLDPWD/data"`)
}

// coveredFile is mapped, and another file system is mounted on its directory, with
// a file of its name and its size.
func coveredFile(tr *trial) {
	tr.privately(":")
	tr.write("data.py", `
import ctypes, os, subprocess, time
os.mkdir("data")
def make(text):
    with open("data/file", "w") as f:
        f.write(text)
make("first")
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
with open("data/file") as f: # mmap.mmap would keep a descriptor
    memory = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, f.fileno(), ctypes.c_long(0))
subprocess.run(["mount", "-t", "tmpfs", "other", os.path.realpath("data")], check=True)
make("other")
open("progress", "w").write("1")
while not os.path.exists("stop"):
    time.sleep(0.02)
assert ctypes.string_at(memory) == b"first"
print("ok", flush=True)
os._exit(0)
`)
	tr.launch("python3", "data.py")
	tr.reach(1)
	tr.isRefused(object{refused: "another file has taken its name"})
	tr.finish()
}

// coveredProgram is one on whose directory another file system is mounted, with a
// file of its name.
func coveredProgram(tr *trial) {
	tr.privately("mkdir data && cp $(command -v sh) data/program")
	tr.launch("data/program", "-c", `mount -t tmpfs other "$PWD/data" && cp /bin/true data/program || exit 9
echo 1 >progress; while [ ! -e stop ]; do sleep 0.02; done; echo ok`)
	tr.reach(1)
	tr.isRefused(object{refused: "its name leads elsewhere"})
	tr.finish()
}

// misplaced is refused a checkpoint for the working directory to which it went.
func misplaced(tr *trial, enter string) {
	tr.privately(":")
	if err := os.Mkdir(tr.path("data"), 0o777); err != nil {
		tr.Fatal(err)
	}
	tr.own(tr.path("data"))
	tr.launch("sh", "-c", enter+` || exit 9; echo 1 >"$0/progress"; while [ ! -e "$0/stop" ]; do sleep 0.02; done; echo ok`, tr.dir)
	tr.reach(1)
	tr.isRefused(object{refused: "its name leads elsewhere"})
	tr.finish()
}

// changedLibrary changes a library and a program between checkpoint and restart:
// other bytes are refused, and a self-contained image needs neither.
func changedLibrary(tr *trial) {
	library, program := tr.path("libanswer.so"), tr.path("program")
	gcc := func(args ...string) {
		tr.Helper()
		if err := buildOne(append([]string{"gcc", "-O1"}, args...)); err != nil {
			tr.Fatal(err)
		}
	}
	build := func(answer int) {
		tr.Helper()
		if err := os.RemoveAll(library); err != nil {
			tr.Fatal(err)
		}
		gcc("-shared", "-fPIC", fmt.Sprintf("-DANSWER=%d", answer), "-o", library, tr.suite.source("library/library.c"))
		tr.own(library)
	}
	build(41)
	gcc("-o", program, tr.suite.source("library/program.c"), library)
	tr.own(program)
	info, err := os.Stat(library)
	if err != nil {
		tr.Fatal(err)
	}
	bytes := tr.read("libanswer.so")
	setTime := func(t time.Time) {
		tr.Helper()
		if err := os.Chtimes(library, t, t); err != nil {
			tr.Fatal(err)
		}
	}
	goOn := func() {
		tr.Helper()
		tr.restart()
		tr.running()
		tr.advance(3)
	}
	tr.launch(program)
	tr.advance(3)
	tr.suspend()
	setTime(info.ModTime().Add(time.Hour)) // the same bytes
	goOn()

	tr.suspend()
	build(42)
	setTime(info.ModTime().Add(time.Hour))
	o := tr.hiatus("restart", tr.images())
	for _, want := range []string{library, "changed", "--self-contained"} {
		if o.code != 99 || !strings.Contains(o.stderr, want) {
			tr.Fatalf("restart: %s: want exit code 99 and %q", o, want)
		}
	}
	tr.gone()
	tr.write("libanswer.so", bytes)
	goOn()

	selfContained := func() {
		tr.Helper()
		tr.must("checkpoint", tr.name, "--kill", "--self-contained")
		tr.wait(tr.front)
		tr.gone()
	}
	remove := func(name string) {
		tr.Helper()
		if err := os.Remove(name); err != nil {
			tr.Fatal(err)
		}
	}
	selfContained()
	build(42)
	goOn()
	tr.suspend()
	remove(library)
	goOn()
	selfContained()
	remove(program)
	goOn()
	if tr.exists("program") {
		tr.Error("the restart has left a program")
	}
	tr.suspend()
	goOn()
	tr.finish()
}

// memfdNoExec restarts a program with memfds where vm.memfd_noexec keeps new ones from being
// executed, as it was not where they were made.
func memfdNoExec(tr *trial) {
	tr.write("memfds.py", `import fcntl, os, time
fds = [os.memfd_create("plain", 0), os.memfd_create("sealed", 8)]
def state():
    return [(oct(os.fstat(fd).st_mode), fcntl.fcntl(fd, 1034)) for fd in fds]
was = state()
n = 0
while not os.path.exists("stop"):
    n += 1
    open("progress.new", "w").write(str(n))
    os.rename("progress.new", "progress")
    time.sleep(0.02)
assert state() == was, (was, state())
print("ok", flush=True)
`)
	tr.launch("python3", "memfds.py")
	tr.advance(1)
	tr.suspend()
	if tr.id.name == "root" { // who alone may set it
		tr.under = []string{"unshare", "-pf", "--mount-proc", "sh", "-c", `echo 1 >/proc/sys/vm/memfd_noexec && exec "$@"`, "sh"}
	}
	tr.restart()
	tr.advance(1)
	tr.finish()
}
