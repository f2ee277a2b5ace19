package procfs

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startChild starts cat(1), which waits for its input to end, in a directory
// and with an environment of its own.
func startChild(t *testing.T) (pid int, dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat", "-", "")
	cmd.Dir, cmd.Env = dir, []string{"A=1", "EMPTY="}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait() // fails, as it must: "" is no file
	})
	// An echoed line shows that execve(2) is over and that cat runs.
	if _, err := in.Write([]byte("ready\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, dir
}

func TestReadChild(t *testing.T) {
	pid, dir := startChild(t)

	args, err := Cmdline(pid)
	if want := []string{"cat", "-", ""}; err != nil || !slices.Equal(args, want) {
		t.Errorf("arguments %q, %v; want %q", args, err, want)
	}
	env, err := Environ(pid)
	if err != nil || !slices.Contains(env, "A=1") || !slices.Contains(env, "EMPTY=") {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := Cwd(pid); err != nil || cwd != dir {
		t.Errorf("working directory %q, %v; want %q", cwd, err, dir)
	}
	if root, err := RootDir(pid); err != nil || root != "/" {
		t.Errorf("root %q, %v", root, err)
	}
	if exe, err := Exe(pid); err != nil || !filepath.IsAbs(exe) {
		t.Errorf("exe %q, %v", exe, err)
	}
	if comm, err := Comm(pid, pid); err != nil || comm != "cat" {
		t.Errorf("name %q, %v", comm, err)
	}
	if auxv, err := Auxv(pid); err != nil || len(auxv) == 0 || len(auxv)%16 != 0 {
		t.Errorf("auxv of %d bytes, %v", len(auxv), err)
	}
	if _, err := Wchan(pid, pid); err != nil {
		t.Error(err)
	}
	if tids, err := Tasks(pid); err != nil || !slices.Equal(tids, []int{pid}) {
		t.Errorf("threads %v, %v; want %d", tids, err, pid)
	}
	if fds, err := FDs(pid); err != nil || len(fds) < 3 || !slices.Equal(fds[:3], []int{0, 1, 2}) {
		t.Errorf("descriptors %v, %v", fds, err)
	}
	if list, err := Children(os.Getpid()); err != nil || !slices.Contains(list, pid) {
		t.Errorf("children %v, %v; want %d", list, err, pid)
	}
}

func TestZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer cmd.Wait()
	var info unix.Siginfo
	if err := waitExited(pid, &info); err != nil {
		t.Fatal(err)
	}

	if s, err := ReadStat(pid); err != nil || s.State != 'Z' {
		t.Errorf("stat: %+v, %v", s, err)
	}
	if s, err := ReadStatus(pid); err != nil || s.State != 'Z' || s.InnerPID() != pid {
		t.Errorf("status: %+v, %v", s, err)
	}
	if vmas, err := ReadMaps(pid); err != nil || len(vmas) != 0 {
		t.Errorf("maps: %v, %v", vmas, err)
	}
	if args, err := Cmdline(pid); err != nil || args != nil {
		t.Errorf("arguments %q, %v", args, err)
	}
}

// waitExited waits until the child is a zombie, and leaves it one.
func waitExited(pid int, info *unix.Siginfo) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func TestTasks(t *testing.T) {
	tid := make(chan int)
	done := make(chan struct{})
	defer close(done)
	for range 3 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tid <- unix.Gettid()
			<-done
		}()
	}
	want := []int{<-tid, <-tid, <-tid}
	got, err := Tasks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(got) || got[0] != os.Getpid() && len(got) < 4 {
		t.Errorf("threads %v", got)
	}
	for _, n := range want {
		if !slices.Contains(got, n) {
			t.Errorf("no thread %d in %v", n, got)
		}
	}
}

func TestGone(t *testing.T) {
	const nobody = 1<<22 + 1 // above the kernel's PID_MAX_LIMIT
	reads := map[string]func() error{
		"stat":     func() error { _, err := ReadStat(nobody); return err },
		"status":   func() error { _, err := ReadStatus(nobody); return err },
		"maps":     func() error { _, err := ReadMaps(nobody); return err },
		"tasks":    func() error { _, err := Tasks(nobody); return err },
		"children": func() error { _, err := Children(nobody); return err },
		"fds":      func() error { _, err := FDs(nobody); return err },
		"fdinfo":   func() error { _, _, err := ReadFDInfo(nobody, 0); return err },
		"exe":      func() error { _, err := Exe(nobody); return err },
		"comm":     func() error { _, err := Comm(nobody, nobody); return err },
		"timens":   func() error { _, _, err := ReadTimensOffsets(nobody); return err },
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			if err := read(); !IsGone(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	if IsGone(nil) || IsGone(fs.ErrPermission) {
		t.Error("IsGone of another error")
	}
}

func TestParseSched(t *testing.T) {
	got, err := parseSched(sample(t, "sched"))
	if want := (Sched{ExecStart: 1103172750115 * time.Nanosecond, Waits: 12}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "se.exec_start : x\n", "se.exec_start\n", "se.exec_start : 1.5\n",
		"se.exec_start : 1.5\nnr_voluntary_switches : x\n", "nr_voluntary_switches : 3\n"} {
		if got, err := parseSched([]byte(bad)); err == nil {
			t.Errorf("%q: %v, no error", bad, got)
		}
	}
}

func TestLiveSched(t *testing.T) {
	pid, _ := startChild(t)
	child, err := ReadSched(pid, pid)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no /proc/PID/sched")
	}
	if err != nil {
		t.Fatal(err)
	}
	// The child ran before it echoed; this thread runs now.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := ReadSched(os.Getpid(), unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	if child.ExecStart <= 0 || own.ExecStart <= 0 { // it may not have waited yet
		t.Errorf("child %v, own %v", child, own)
	}
}

func TestParseStrings(t *testing.T) {
	tests := []struct {
		raw  string
		want []string
	}{
		{"", nil},
		{"a\x00", []string{"a"}},
		{"a\x00\x00b\x00", []string{"a", "", "b"}},
		{"a\x00\x00", []string{"a", ""}},
		{"title", []string{"title"}},
		{"\x00", []string{""}},
	}
	for _, tt := range tests {
		if got, err := parseStrings([]byte(tt.raw)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v; want %q", tt.raw, got, err, tt.want)
		}
	}
}
