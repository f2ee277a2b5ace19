package proc

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// injectHere runs calls in the first thread of the only process of tree.
func injectHere(t *testing.T, tree *Tree, calls []call) error {
	t.Helper()
	p := tree.Procs()[0]
	return tree.tr.Do(func() error { return p.run(soon(t), p.threads[0], calls) })
}

func getpids(n int) []call {
	calls := make([]call, n)
	for i := range calls {
		calls[i] = sys(unix.SYS_GETPID)
	}
	return calls
}

// TestBatchKeepsSignals injects in a program with every kind of disposition
// and with pending signals: no handler may run, nothing may get lost.
func TestBatchKeepsSignals(t *testing.T) {
	for _, tc := range []struct {
		arg, disposition, pending, handled string
	}{
		{"handlers", "handler", "trap 0 urg 0 winch 0 rt 0", "trap 0 urg 0 winch 0 rt 0"},
		{"ignored", "ignored", "trap 0 urg 0 winch 0 rt 0", "trap 0 urg 0 winch 0 rt 0"},
		{"blocked", "handler", "trap 0 urg 0 winch 0 rt 0", "trap 0 urg 0 winch 0 rt 0"},
		{"blocked ignored", "ignored", "trap 0 urg 0 winch 0 rt 0", "trap 0 urg 0 winch 0 rt 0"},
		{"pending", "handler", "trap 1 urg 1 winch 1 rt 1", "trap 77 urg 1 winch 1 rt 3"},
	} {
		t.Run(tc.arg, func(t *testing.T) {
			tr := newTracer(t)
			x := launch(t, tr, program(t, "signals"), tc.arg)
			for range 5 {
				tree := x.freeze()
				mask := tree.Procs()[0].threads[0].Mask
				x.open(tree)
				calls := getpids(3)
				if err := injectHere(t, tree, calls); err != nil {
					t.Fatal(err)
				}
				for _, c := range calls {
					if int(c.ret) != x.pid {
						t.Errorf("getpid: %d, want %d", c.ret, x.pid)
					}
				}
				if got, err := getSigmaskOf(tree); err != nil || got != mask {
					t.Errorf("signal mask %#x, %v; want %#x", got, err, mask)
				}
				x.release(tree)
			}
			if got := x.ask("disposition"); got != tc.disposition {
				t.Errorf("disposition of SIGTRAP: %s, want %s", got, tc.disposition)
			}
			if got := x.ask("pending"); got != tc.pending {
				t.Errorf("pending signals: %s, want %s", got, tc.pending)
			}
			if got := x.ask("handled"); got != tc.handled {
				t.Errorf("handled signals: %s, want %s", got, tc.handled)
			}
		})
	}
}

func getSigmaskOf(tree *Tree) (mask uint64, err error) {
	err = tree.tr.Do(func() (err error) {
		mask, err = getSigmask(tree.Procs()[0].threads[0].HostTID)
		return err
	})
	return mask, err
}

// frozenShell is a process that is open for injection.
func frozenShell(t *testing.T) (*target, *Tree) {
	t.Helper()
	x := launch(t, newTracer(t), "/bin/sh", "-c", "echo ready; read x; echo goes on")
	tree := x.freeze()
	x.open(tree)
	t.Cleanup(func() {
		x.release(tree)
		if got := x.ask(""); got != "goes on" {
			t.Errorf("the program says %q", got)
		}
	})
	return x, tree
}

func TestBatchStopsAtTheFirstError(t *testing.T) {
	x, tree := frozenShell(t)
	calls := []call{sys(unix.SYS_GETPID), sys(unix.SYS_CLOSE, 12345).as("close 12345"), sys(unix.SYS_GETPID)}
	err := injectHere(t, tree, calls)
	if !errors.Is(err, unix.EBADF) {
		t.Errorf("batch: %v, want EBADF", err)
	}
	if int(calls[0].ret) != x.pid || calls[1].ret != -int64(unix.EBADF) || calls[2].ret != recordPending {
		t.Errorf("results %d, %d, %d", calls[0].ret, calls[1].ret, calls[2].ret)
	}
}

func TestBatchGoesOnAfterCallsThatMayFail(t *testing.T) {
	x, tree := frozenShell(t)
	calls := []plugin.Call{{Nr: unix.SYS_CLOSE, Args: [6]uintptr{12345}, MayFail: true}, {Nr: unix.SYS_GETPID},
		{Nr: unix.SYS_CLOSE, Args: [6]uintptr{12345}}, {Nr: unix.SYS_GETPID}}
	err := tree.Procs()[0].Batch(soon(t), calls)
	if !errors.Is(err, unix.EBADF) {
		t.Errorf("batch: %v, want EBADF", err)
	}
	if calls[0].Err != unix.EBADF || int(calls[1].Ret) != x.pid || calls[2].Err != unix.EBADF || calls[3].Ret != 0 || calls[3].Err != 0 {
		t.Errorf("results %+v", calls)
	}
}

func TestBatchPassesKeptResultsOn(t *testing.T) {
	_, tree := frozenShell(t)
	p := tree.Procs()[0]
	path := p.inj.scratch()
	if _, err := p.WriteAt([]byte("/dev/null\x00"), int64(path)); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // the descriptor as argument 0 and, by the size of a read that fails, as argument 2
		calls := []call{
			sys(unix.SYS_OPENAT, atFdcwd, path, unix.O_RDONLY, 0).keep(),
			sys(unix.SYS_FCNTL, 0, unix.F_DUPFD, 100).fromKept(0),
			sys(unix.SYS_FCNTL, 0, unix.F_DUPFD, 0).fromKept(2 * i).may(),
			sys(unix.SYS_CLOSE, 0).fromKept(0),
			sys(unix.SYS_CLOSE, 100),
		}
		calls[2].args[0] = calls[0].args[3] // stdin
		if err := injectHere(t, tree, calls); err != nil {
			t.Fatal(err)
		}
		fd, dup := calls[0].ret, calls[2].ret
		if calls[1].ret != 100 {
			t.Errorf("fcntl of the kept descriptor: %d, want 100", calls[1].ret)
		}
		if i == 1 && dup <= fd {
			t.Errorf("F_DUPFD from %d: %d", fd, dup)
		}
		if err := injectHere(t, tree, []call{sys(unix.SYS_CLOSE, uint64(dup))}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBatchOfMoreThanOneChunk(t *testing.T) {
	x, tree := frozenShell(t)
	for _, n := range []int{0, 1, maxRecords - 1, maxRecords, maxRecords + 1, 2*maxRecords + 7} {
		calls := getpids(n)
		if err := injectHere(t, tree, calls); err != nil {
			t.Fatalf("%d calls: %v", n, err)
		}
		if i := slices.IndexFunc(calls, func(c call) bool { return int(c.ret) != x.pid }); i >= 0 {
			t.Errorf("%d calls: number %d returns %d", n, i, calls[i].ret)
		}
	}
	calls := getpids(maxRecords + 10)
	calls[maxRecords+5] = sys(unix.SYS_CLOSE, 12345)
	if err := injectHere(t, tree, calls); !errors.Is(err, unix.EBADF) || calls[maxRecords+6].ret != recordPending {
		t.Errorf("error in the second chunk: %v, then %d", err, calls[maxRecords+6].ret)
	}
}

// TestInjectionsLeaveNoTraceInThreads injects a thousand times in each thread
// of a program that watches its registers, vectors, mask and dispositions.
func TestInjectionsLeaveNoTraceInThreads(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "steady"), "handler")
	for range 10 {
		tree := x.freeze()
		x.open(tree)
		p := tree.Procs()[0]
		err := tr.Do(func() error {
			for _, th := range p.threads {
				before, err := threadState(th)
				if err != nil {
					return err
				}
				for range 100 {
					if err := p.run(soon(t), th, getpids(2)); err != nil {
						return err
					}
				}
				after, err := threadState(th)
				if err != nil {
					return err
				}
				if !slices.Equal(before, after) {
					t.Errorf("thread %d: registers, mask or xstate differ after injection", th.TID)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		x.release(tree)
		if got := x.ask("?"); got != "steady" {
			t.Fatalf("the program says %q", got)
		}
	}
}

// threadState returns all that ptrace(2) shows of a thread.
func threadState(th *Thread) ([]byte, error) {
	r, err := getRegs(th.HostTID)
	if err != nil {
		return nil, err
	}
	mask, err := getSigmask(th.HostTID)
	if err != nil {
		return nil, err
	}
	out := le.AppendUint64(slices.Clone(r.bytes()), mask)
	sets, err := readRegsets(th.HostTID)
	for _, s := range sets {
		out = append(out, s.Data...)
	}
	return out, err
}
