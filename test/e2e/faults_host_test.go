package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// disk puts a tmpfs where images go.
func (f *faulted) disk(options string) {
	f.Helper()
	if os.Geteuid() != 0 {
		f.Skip("only root may mount")
	}
	if err := os.Mkdir(f.images(), 0o700); err != nil {
		f.Fatal(err)
	}
	f.mounts("-t", "tmpfs", "-o", fmt.Sprintf("uid=%d,gid=%d,mode=0700,%s", f.id.uid, f.id.gid, options), "none", f.images())
	f.Cleanup(func() { _ = unix.Unmount(f.images(), unix.MNT_DETACH) })
}

func (f *faulted) mounts(args ...string) {
	f.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		f.Fatalf("mount %q: %v\n%s", args, err, out)
	}
}

// refusedFor makes sure that a checkpoint fails with an errno's text, and that
// nothing else has happened.
func (f *faulted) refusedFor(reason string) {
	f.Helper()
	f.order()
	want := f.newest()
	o := f.hiatus("checkpoint", f.name)
	if o.code != 1 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, reason) {
		f.Errorf("checkpoint: %s: want exit code 1 and one line with %q", o, reason)
	}
	if got := f.newest(); got != want {
		f.Errorf("the newest generation is %d, want %d", got, want)
	}
	f.unharmed()
}

// fullDisk runs out of blocks, of inodes, and becomes read-only.
func fullDisk(f *faulted) {
	f.disk("size=16m")
	f.launchFaulty()
	f.checkpoint()
	var fs unix.Statfs_t
	if err := unix.Statfs(f.images(), &fs); err != nil {
		f.Fatal(err)
	}
	used := (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	for _, c := range []struct{ options, reason string }{
		{fmt.Sprintf("size=%d", used), "no space left on device"},
		{fmt.Sprintf("size=%d", used+1_000_000), "no space left on device"}, // some stripes are written
		{"ro", "read-only file system"},
		{fmt.Sprintf("rw,size=%d", used+2_000_000), "no space left on device"},
	} {
		f.mounts("-o", "remount,"+c.options, f.images())
		f.refusedFor(c.reason)
		f.tidy()
	}
	f.mounts("-o", "remount,rw,size=16m", f.images())
	f.checkpoint()
	f.killProgram()
	f.again()
	f.endWell()
}

// fewInodes has no room for another file.
func fewInodes(f *faulted) {
	f.disk("nr_inodes=8") // of its root, the store, its lock, and of one generation's folders
	f.launchFaulty()
	f.refusedFor("no space left on device")
	f.tidy()
	f.mounts("-o", "remount,nr_inodes=100", f.images())
	f.checkpoint()
	f.endWell()
}

// goneFolder takes the folder of images away in the middle of a checkpoint, and
// between two.
func goneFolder(f *faulted) {
	f.launchFaulty()
	for i, step := range []faultpoint.Step{faultpoint.Asked, faultpoint.Begun, faultpoint.ImageCreated, faultpoint.MemoryWritten,
		faultpoint.ImageSynced, faultpoint.ManifestWriting, faultpoint.Renaming} {
		o := f.at(step, func(*front) {
			if err := os.RemoveAll(f.images()); err != nil {
				f.Fatal(err)
			}
		})
		if (o.code == 0) != (step == faultpoint.Asked) || o.code != 0 && strings.Count(o.stderr, "\n") != 1 {
			f.Errorf("%s: checkpoint: %s", step, o)
		}
		f.unharmed()
		f.order()
		f.checkpoint()
		f.tidy()
		if i%3 == 0 {
			f.killProgram()
			f.again()
		}
	}
	f.endWell()
}

// fileSize and fewFiles run under limits of getrlimit(2).
func fileSizeLimit(f *faulted) {
	f.limited("--fsize=200000")
	f.refusedFor("file too large")
	f.tidy()
	f.endWell()
}

// fewFiles gives the agent too few descriptors, or just enough: it never
// stops half-way.
func fewFiles(f *faulted) {
	for n := 12; n < 40; n += 3 {
		f.limited(fmt.Sprintf("--nofile=%d", n))
		if f.front == nil {
			continue // too few to launch
		}
		f.order()
		o := f.hiatus("checkpoint", f.name)
		if o.code != 0 && (o.code != 1 || !strings.Contains(o.stderr, "too many open files")) {
			f.Errorf("%d descriptors: checkpoint: %s", n, o)
		}
		f.unharmed()
		f.endWell()
		for _, name := range []string{"stop", "stdout"} {
			_ = os.Remove(f.path(name))
		}
	}
}

// limited launches the program under prlimit(1). f.front is nil where hiatus
// says that it cannot.
func (f *faulted) limited(limit string) {
	f.Helper()
	fr := &front{cmd: f.command(context.Background(), "prlimit", limit, f.suite.hiatus(), "launch", "--name", f.name, "--ckptdir", f.images(),
		"--", f.suite.fixture("faulty")), stdout: &transcript{}}
	stdout, stderr := f.create("stdout"), f.create("stderr")
	defer stdout.Close()
	defer stderr.Close()
	fr.cmd.Stdout, fr.cmd.Stderr = stdout, stderr
	_ = os.Remove(f.path("progress"))
	f.front = nil
	f.begin(fr)
	f.await("the program", func() bool { return f.progress() > 0 || fr.hasEnded() })
	if !fr.hasEnded() {
		f.front = fr
	} else if code := f.wait(fr); code != 99 {
		f.Errorf("launch with %s: exit code %d: %s", limit, code, f.read("stderr"))
	}
}

// twoAtOnce asks for a checkpoint during one.
func twoAtOnce(f *faulted) {
	f.launchFaulty()
	for _, step := range []faultpoint.Step{faultpoint.Begun, faultpoint.ThreadSeized, faultpoint.Saved, faultpoint.Resumed, faultpoint.Committed} {
		want := f.newest() + 1
		o := f.at(step, func(*front) {
			if o := f.outcomeOf(f.ask()); o.code != 1 || !strings.Contains(o.stderr, "in progress") {
				f.Errorf("%s: a second checkpoint: %s: want exit code 1, and that one is in progress", step, o)
			}
		})
		if o.code != 0 || f.newest() != want {
			f.Errorf("%s: checkpoint: %s; the newest generation is %d, want %d", step, o, f.newest(), want)
		}
		f.unharmed()
	}
	f.endWell()
}

// duringRestart asks for a checkpoint of what is being restarted.
func duringRestart(f *faulted) {
	f.launchFaulty()
	f.must("checkpoint", f.name, "--kill")
	f.wait(f.front)
	for _, step := range []faultpoint.Step{faultpoint.RestartJoined, faultpoint.RestartTree, faultpoint.RestartMemory, faultpoint.RestartRestored} {
		fifo := f.fifo()
		f.order(fmt.Sprintf("%s: wait %s", step, fifo))
		f.restarting("--namespaces", "always")
		w := f.meet(fifo)
		if o := f.outcomeOf(f.ask()); o.code != 1 || !strings.Contains(o.stderr, "restart") {
			f.Errorf("%s: checkpoint: %s: want exit code 1, and that it is being restarted", step, o)
		}
		w.Close()
		f.running()
		f.unharmed()
		f.must("checkpoint", f.name, "--kill")
		f.wait(f.front)
		f.nothingLeft()
	}
	f.again()
	f.endWell()
}

// fullPipe gives the agent a standard error that nobody reads and that is full:
// the program does not wait for its log, and the log not for ever.
func fullPipe(f *faulted) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		f.Fatal(err)
	}
	reader, writer := os.NewFile(uintptr(p[0]), "reader"), os.NewFile(uintptr(p[1]), "writer")
	defer reader.Close()
	fill(f, writer)
	f.env = append(f.env, "HIATUS_LOG_FILE=", "HIATUS_LOG_LEVEL=trace")
	f.front = f.withErrors(writer)
	writer.Close()
	f.advance(1)
	for range 3 {
		f.checkpoint()
		f.unharmed()
	}
	f.endWell()
}

// brokenPipe gives the agent a standard error whose reader is gone.
func brokenPipe(f *faulted) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		f.Fatal(err)
	}
	writer := os.NewFile(uintptr(p[1]), "writer")
	f.env = append(f.env, "HIATUS_LOG_FILE=", "HIATUS_LOG_LEVEL=trace")
	f.front = f.withErrors(writer)
	writer.Close()
	f.advance(1)
	unix.Close(p[0])
	for range 3 {
		f.checkpoint()
		f.unharmed()
	}
	f.endWell()
}

// withErrors launches the program with a standard error.
func (f *faulted) withErrors(stderr *os.File) *front {
	f.Helper()
	fr := &front{cmd: f.command(context.Background(), f.suite.hiatus(), "launch", "--name", f.name, "--ckptdir", f.images(), "--keep", "2",
		"--", "sh", "-c", "exec "+f.suite.fixture("faulty")+" 2>/dev/null"), stdout: &transcript{}}
	stdout := f.create("stdout")
	defer stdout.Close()
	fr.cmd.Stdout, fr.cmd.Stderr = stdout, stderr
	f.begin(fr)
	return fr
}

func fill(f *faulted, w *os.File) {
	f.Helper()
	if err := unix.SetNonblock(int(w.Fd()), true); err != nil {
		f.Fatal(err)
	}
	for size := 4096; size > 0; size /= 2 {
		for {
			if _, err := unix.Write(int(w.Fd()), make([]byte, size)); err != nil {
				break
			}
		}
	}
	if err := unix.SetNonblock(int(w.Fd()), false); err != nil {
		f.Fatal(err)
	}
}

// closedTerminal closes the terminal of a launch, before and during a
// checkpoint: its program, which ignores SIGHUP, goes on, and so does the
// checkpoint. What a terminal's end means for the program itself is its own.
func closedTerminal(f *faulted) {
	for i, step := range []faultpoint.Step{"", faultpoint.ThreadSeized, faultpoint.Saved, faultpoint.StripeWriting, faultpoint.Renamed} {
		for _, name := range []string{"stop", "stdout", "progress"} {
			_ = os.Remove(f.path(name))
		}
		f.name = fmt.Sprintf("terminal%d", i)
		f.order()
		term := newPTY(f.trial)
		f.front = f.onTerminal(term, "launch", "--name", f.name, "--ckptdir", f.path("images"), "--",
			"sh", "-c", "trap '' HUP; exec "+f.suite.fixture("faulty")+" hangup >stdout 2>stderr </dev/null")
		f.advance(1)
		want := f.newest() + 1
		hangUp := func(*front) {
			term.slave.Close()
			term.master.Close()
			<-term.done
		}
		if step == "" {
			hangUp(nil)
			f.unharmed()
			f.checkpoint()
		} else if o := f.at(step, hangUp); o.code != 0 {
			f.Errorf("%s: checkpoint: %s", step, o)
		}
		if f.newest() != want {
			f.Errorf("%s: the newest generation is %d, want %d", step, f.newest(), want)
		}
		f.unharmed()
		f.endWell()
	}
}

// otherUsers looks at what another user can see and do.
func otherUsers(f *faulted) {
	if f.id.uid == 0 || os.Geteuid() != 0 {
		f.Skip("needs root, to be somebody else")
	}
	old := syscall.Umask(0)
	syscall.Umask(old)
	f.front = &front{cmd: f.command(context.Background(), "sh", "-c", fmt.Sprintf("umask 0; exec %s launch --name %s --ckptdir %s -- %s",
		f.suite.hiatus(), f.name, f.images(), f.suite.fixture("faulty"))), stdout: &transcript{}}
	f.begin(f.front)
	f.advance(1)
	f.checkpoint()
	for _, top := range []string{f.images(), f.path("run/hiatus")} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 && path != f.images() {
				f.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	// Even where every folder above is open, and the socket's path is known.
	for _, dir := range []string{f.dir, f.path("run"), f.path("run/hiatus")} {
		if err := os.Chmod(dir, 0o777); err != nil {
			f.Fatal(err)
		}
	}
	socket := f.path("run/hiatus/" + f.name + ".sock")
	const stranger = 54321
	ask := func(script string) string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = append(f.env, "HIATUS_LOG_FILE=")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			f.Errorf("another user may do %q: %s", script, out)
		}
		return string(out)
	}
	for _, command := range []string{"status", "checkpoint", "kill"} {
		ask(fmt.Sprintf("%s %s %s", f.suite.hiatus(), command, f.name))
	}
	ask(fmt.Sprintf("%s restart %s", f.suite.hiatus(), f.images()))
	ask("cat " + f.path("images/trial/00001/manifest.json"))
	ask(fmt.Sprintf("kill -0 %d", f.front.cmd.Process.Pid))
	// By the socket itself, opened to all: the kernel's word on the peer counts.
	if err := os.Chmod(socket, 0o777); err != nil {
		f.Fatal(err)
	}
	ask(fmt.Sprintf(`python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
s.connect("%s")
hello = b"{\"id\":1,\"method\":\"hello\",\"body\":{\"protocol\":1,\"role\":\"command\"}}"
s.sendall(len(hello).to_bytes(4, "big") + hello)
assert s.recv(100) != b""
'`, socket))
	// Open to others, the folder is refused, by its owner's commands too.
	if o := f.hiatus("status", f.name); o.code != 1 || !strings.Contains(o.stderr, "lets others in") {
		f.Errorf("status in a folder that is open to all: %s", o)
	}
	for _, dir := range []string{f.path("run/hiatus"), f.path("run")} {
		if err := os.Chmod(dir, 0o700); err != nil {
			f.Fatal(err)
		}
	}
	f.unharmed()
	f.write("stop", "")
	f.ends(f.front, 0)
	f.nothingLeft()
}
