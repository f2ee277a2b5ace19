package proc

import (
	"bufio"
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// start runs a program and waits for its first line of output.
func start(t *testing.T, tr *Tracer, args ...string) (pid int, lines *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The tracer's thread need not be the parent: Seize does not ask for it.
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_ = tr.Do(func() error { _, err := tr.wait(context.Background(), pid); return err })
	})
	lines = bufio.NewReader(out)
	if l, err := lines.ReadString('\n'); err != nil || l != "ready\n" {
		t.Fatalf("first line %q, %v", l, err)
	}
	return pid, lines
}

func newTracer(t *testing.T) *Tracer {
	tr := NewTracer()
	t.Cleanup(tr.Close)
	return tr
}

func freeze(t *testing.T, tr *Tracer, pid int) (*Tree, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	tree, err := tr.Freeze(ctx, NewSleeps(), func() ([]int, error) { return []int{pid}, nil })
	if err != nil {
		t.Fatal(err)
	}
	return tree, ctx
}

func openAll(t *testing.T, ctx context.Context, tree *Tree) {
	t.Helper()
	err := tree.tr.Do(func() error {
		for _, p := range tree.Procs() {
			if err := p.open(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBatchRunsCallsAndLeavesNoTrace(t *testing.T) {
	for _, disposition := range []string{"SIG_DFL", "SIG_IGN"} {
		t.Run("SIGTRAP "+disposition, func(t *testing.T) {
			tr := newTracer(t)
			pid, lines := start(t, tr, "/usr/bin/python3", "-c", `
import signal,sys
signal.signal(signal.SIGTRAP, signal.`+disposition+`)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]) # it may come before the wait
before=open('/proc/self/maps').read()
print('ready',flush=True)
signal.sigwait([signal.SIGUSR1])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
print(signal.getsignal(signal.SIGTRAP)==signal.`+disposition+`,flush=True)
print([l for l in open('/proc/self/status') if l.startswith('SigBlk')][0].split()[1],flush=True)
print(before==open('/proc/self/maps').read(),flush=True)
`)
			for range 5 {
				tree, ctx := freeze(t, tr, pid)
				openAll(t, ctx, tree)
				p := tree.Procs()[0]
				got, err := p.Syscall(ctx, unix.SYS_GETPID)
				if err != nil || int(got) != pid {
					t.Fatalf("getpid: %d, %v; want %d", got, err, pid)
				}
				if _, err := p.Syscall(ctx, unix.SYS_CLOSE, 12345); err != unix.EBADF {
					t.Fatalf("close: %v; want EBADF", err)
				}
				addr, _ := p.Scratch()
				if _, err := p.WriteAt([]byte("hello"), int64(addr)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 5)
				if _, err := p.ReadAt(b, int64(addr)); err != nil || !bytes.Equal(b, []byte("hello")) {
					t.Fatalf("read back %q, %v", b, err)
				}
				if err := tree.Release(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"True", strings.Repeat("0", 16), "True"} {
				if l, err := lines.ReadString('\n'); strings.TrimSpace(l) != want {
					t.Errorf("got %q, %v; want %s", l, err, want)
				}
			}
		})
	}
}

func TestBatchIsBrokenOffAtItsDeadline(t *testing.T) {
	tr := newTracer(t)
	pid, _ := start(t, tr, "/bin/sh", "-c", "echo ready; exec sleep 1000")
	tree, ctx := freeze(t, tr, pid)
	openAll(t, ctx, tree)
	p := tree.Procs()[0]
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := p.Syscall(short, unix.SYS_PPOLL); err == nil {
		t.Fatal("ppoll() returned")
	}
	if got, err := p.Syscall(ctx, unix.SYS_GETPID); err != nil || int(got) != pid {
		t.Fatalf("after it: getpid %d, %v", got, err)
	}
	if err := tree.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := procfs.ReadStatus(pid); err != nil || s.TracerPid != 0 {
		t.Fatalf("status %+v, %v", s, err)
	}
}

// TestBlobIsInNobodysWay: what an agent leaves that dies must not keep a mapping with
// MAP_GROWSDOWN from growing.
func TestBlobIsInNobodysWay(t *testing.T) {
	tr := newTracer(t)
	pid, _ := start(t, tr, "/usr/bin/python3", "-c", "import time; print('ready', flush=True); time.sleep(60)")
	tree, ctx := freeze(t, tr, pid)
	openAll(t, ctx, tree)
	maps, err := procfs.ReadMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	base := tree.Procs()[0].inj.base
	i := slices.IndexFunc(maps, func(v procfs.VMA) bool { return v.Start == base })
	if i <= 0 || i+1 == len(maps) {
		t.Fatalf("the blob at %#x is mapping %d of %d", base, i, len(maps))
	}
	const far = 1 << 30
	if below, above := base-maps[i-1].End, maps[i+1].Start-maps[i].End; below < far || above < far {
		t.Errorf("it is %#x above a mapping and %#x below one", below, above)
	}
	if err := tree.Release(ctx); err != nil {
		t.Fatal(err)
	}
}
