package coord

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// stopSoon is a process that has the place of an agent's, and stop stops it.
func stopSoon(t *testing.T) (pid int, stop func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pid = cmd.Process.Pid
	return pid, func() {
		_ = unix.Kill(pid, unix.SIGSTOP)
		for st, err := procfs.ReadStat(pid); err == nil && st.State != 'T'; st, err = procfs.ReadStat(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// An agent that is suspended with its program keeps those of others from standing
// still: before they are asked, and while they wait for it.
func TestSuspendedAgent(t *testing.T) {
	s := startServer(t, testConfig(t))
	pid, stop := stopSoon(t)
	frozen := make(chan struct{}, 1)
	meet := func(ctx context.Context, m *Member, o Order) error {
		frozen <- struct{}{}
		return m.Barrier(ctx, o.Generation, "suspended")
	}
	startAgent(t, s, hello("a"), meet)
	b := hello("b")
	b.Host, _ = os.Hostname()
	b.PID = pid
	startAgent(t, s, b, func(ctx context.Context, m *Member, _ Order) error {
		<-frozen
		stop()
		<-ctx.Done() // as one that stands still does, until it is told
		return ctx.Err()
	})
	c := startClient(t, s)
	for range 2 { // it is stopped meanwhile, and then from the beginning
		_, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
		wantError(t, err, ErrGivenUp, "agent b: "+ErrStopped.Error())
	}
	select {
	case <-frozen:
		t.Error("an agent was asked although another is suspended")
	default:
	}
	if !errors.Is(suspended(pid), ErrStopped) {
		t.Error("it is not stopped")
	}
}
