package coord

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// A coordinator that is stopped, with its program, is said to be: to who comes
// and to who waits.
func TestStoppedCoordinator(t *testing.T) {
	dir := shortDir(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childServes+"="+dir)
	cmd.Stderr = os.Stderr
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
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
		t.Fatalf("the coordinator says %q, %v", l, err)
	}
	c, err := dialIn(t.Context(), []string{dir}, "job")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGCONT) }()
	for st, err := procfs.ReadStat(cmd.Process.Pid); st.State != 'T'; st, err = procfs.ReadStat(cmd.Process.Pid) {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("Status: %v, want ErrStopped", err)
	}
	if err := c.Ended(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("Ended: %v, want ErrStopped", err)
	}
	if _, err := dialIn(t.Context(), []string{dir}, "job"); !errors.Is(err, ErrStopped) {
		t.Errorf("Dial: %v, want ErrStopped", err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	again, err := dialIn(t.Context(), []string{dir}, "job")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if st, err := again.Status(t.Context()); err != nil || st.Name != "job" {
		t.Errorf("Status: %+v, %v", st, err)
	}
}

// Who waits for the end of a computation finds its name free.
func TestEnded(t *testing.T) {
	s := startServer(t, testConfig(t))
	c := startClient(t, s)
	ended := make(chan error)
	go func() { ended <- c.Ended(t.Context()) }()
	startAgent(t, s, hello("a"), nil)
	if _, err := c.Checkpoint(t.Context(), CheckpointRequest{Kill: true}, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("Ended: %v, while the coordinator runs", err)
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := dialIn(t.Context(), []string{s.cfg.RuntimeDir}, s.Name()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial: %v, want ErrNotRunning", err)
	}
}
