package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

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
	f.does("mount", args...)
}

// does runs a command that has to succeed.
func (f *faulted) does(name string, args ...string) {
	f.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		f.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (f *faulted) require(command string) {
	f.Helper()
	f.suite.require(f.T, command)
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

// badDisk has a file system of a real kind, on a device that fails: all behind a block
// of it is an error, first to write and then to read.
func badDisk(f *faulted) {
	f.require("mkfs.ext4")
	device := f.path("device")
	const size = 64 << 20
	// Without a journal it goes on as soon as the device does. Folders need no blocks:
	// mkdir(2) has ENOMEM for one that is behind the end of the device.
	f.device(device, size, "mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal,inline_data", "-E", fmt.Sprintf("root_owner=%d:%d", f.id.uid, f.id.gid))
	f.launchFaulty()
	f.checkpoint()
	f.cutDevice(device, f.stripes()[1]) // what is behind is free
	f.refusedFor("input/output error")
	f.tidy()
	f.cutDevice(device, size)
	f.checkpoint()
	f.killProgram()

	whole := f.settled(device)
	f.cutDevice(device, f.stripes()[0])
	f.order()
	if o := f.hiatus("restart", f.images()); o.code != 99 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "input/output error") {
		f.Errorf("restart: %s: want exit code 99 and one line with the reason", o)
	}
	if o := f.hiatus("verify", f.images()); o.code != 1 || !strings.Contains(o.stderr, "input/output error") {
		f.Errorf("verify: %s: want exit code 1 and the reason", o)
	}
	f.nothingLeft()
	if err := os.WriteFile(device, whole, 0o600); err != nil {
		f.Fatal(err)
	}
	f.cutDevice(device, size)
	f.again()
	f.endWell()
}

// settled writes all back to a device, and returns what is on it.
func (f *faulted) settled(device string) []byte {
	f.Helper()
	dir, err := os.Open(f.images())
	if err != nil {
		f.Fatal(err)
	}
	defer dir.Close()
	_ = unix.Syncfs(int(dir.Fd())) // tells of the errors before, once
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(device)
	if err != nil {
		f.Fatal(err)
	}
	return whole
}

// cutDevice has the device of a file end, or end again, at a size.
func (f *faulted) cutDevice(path string, size int64) {
	f.Helper()
	if err := os.Truncate(path, size); err != nil {
		f.Fatal(err)
	}
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", path).Output()
	if err != nil {
		f.Fatal(err)
	}
	f.does("losetup", "-c", strings.TrimSpace(string(out)))
}

// stripes is where the stripes of the newest generation begin on their device, and where
// all ends. They are not in the page cache any more.
func (f *faulted) stripes() (place [2]int64) {
	f.Helper()
	const fibmap = 1 // FIBMAP of linux/fs.h
	place[0] = math.MaxInt64
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(slices.Max(f.generations())), "agent-0", "pages.*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			f.Fatal(err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			f.Fatal(err)
		}
		for n := range (info.Size() + 4095) / 4096 {
			block := int32(n)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), fibmap, uintptr(unsafe.Pointer(&block))); errno != 0 {
				f.Fatalf("FIBMAP of %s: %v", path, errno)
			}
			place[0], place[1] = min(place[0], int64(block)*4096), max(place[1], int64(block+1)*4096)
		}
		if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			f.Fatal(err)
		}
	}
	return place
}

// quota is one of btrfs, for a subvolume, which root has to heed too. It is set from
// outside of it: within it that, too, would be too much.
func quota(f *faulted) {
	f.require("mkfs.btrfs")
	device := f.path("device")
	f.device(device, 128<<20, "mkfs.btrfs", "-q")
	top, images := f.path("top"), f.images()
	f.does("btrfs", "quota", "enable", images)
	f.does("btrfs", "subvolume", "create", filepath.Join(images, "sub"))
	if err := os.Mkdir(top, 0o700); err != nil {
		f.Fatal(err)
	}
	f.unmount()
	f.mounts("-o", "loop", device, top)
	f.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
	f.mounts("--bind", filepath.Join(top, "sub"), images)
	f.own(images)
	f.launchFaulty()
	f.checkpoint()
	f.does("btrfs", "filesystem", "sync", top)
	subvolume := f.subvolume(filepath.Join(top, "sub"))
	used := int64(0)
	for _, name := range imageFiles(f.trial, images) {
		used += fileSize(f.trial, filepath.Join("images", name))
	}
	for _, more := range []int64{0, 600_000} { // nothing, or some stripes are written
		f.does("btrfs", "qgroup", "limit", fmt.Sprint(used+more), subvolume, top)
		f.refusedFor("disk quota exceeded")
		f.does("btrfs", "qgroup", "limit", "none", subvolume, top)
		f.tidy()
	}
	f.checkpoint()
	f.killProgram()
	f.again()
	f.endWell()
}

// subvolume is the quota group of a subvolume.
func (f *faulted) subvolume(path string) string {
	f.Helper()
	out, err := exec.Command("btrfs", "inspect-internal", "rootid", path).Output()
	if err != nil {
		f.Fatal(err)
	}
	return "0/" + strings.TrimSpace(string(out))
}

// device makes a file of a size, a file system in it, and puts that where images go.
func (f *faulted) device(path string, size int64, mkfs ...string) {
	f.Helper()
	if os.Geteuid() != 0 {
		f.Skip("only root may mount")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		f.Fatal(err)
	}
	f.does(mkfs[0], append(mkfs[1:], path)...)
	if err := os.Mkdir(f.images(), 0o700); err != nil {
		f.Fatal(err)
	}
	f.own(f.images())
	f.mounts("-o", "loop", path, f.images())
	f.Cleanup(func() { _ = unix.Unmount(f.images(), unix.MNT_DETACH) })
}

func (f *faulted) unmount() {
	f.Helper()
	if err := unix.Unmount(f.images(), 0); err != nil {
		f.Fatalf("umount: %v", err)
	}
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
