package proc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// semaphores makes a System V set that waits join processes of a tree by.
func semaphores(t *testing.T, n int) (id uint64) {
	t.Helper()
	got, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, uintptr(n), 0o600)
	if errno != 0 {
		t.Fatal("semget:", errno)
	}
	t.Cleanup(func() { _, _, _ = unix.Syscall(unix.SYS_SEMCTL, got, 0, 0) })
	return uint64(got)
}

// semop changes one semaphore of a set, or waits until that is possible.
func semop(b *args, id uint64, num, op int16) call {
	ops := [3]int16{num, op, 0}
	return sys(unix.SYS_SEMOP, id, b.put(unsafe.Slice((*byte)(unsafe.Pointer(&ops)), len(ops)*2)), 1).as("semop")
}

// Each process waits in its calls for the one that is begun after it.
func TestEachRunsSideBySide(t *testing.T) {
	const processes = 5
	tr := newTracer(t)
	x := launch(t, tr, program(t, "threads"), "1", "5", "0")
	tree := x.freeze()
	x.open(tree)
	procs := tree.Procs()
	if len(procs) != processes {
		t.Fatalf("%d processes, want %d", len(procs), processes)
	}
	id, ctx := semaphores(t, processes), soon(t)
	err := tr.Do(func() error {
		return tr.each(procs, func(p *Process) error {
			i := slices.Index(procs, p)
			b := newArgs(p)
			var calls []call
			if i+1 < processes {
				calls = append(calls, semop(b, id, int16(i), -1))
			}
			if i > 0 {
				calls = append(calls, semop(b, id, int16(i-1), 1))
			}
			return b.flush(ctx, p.threads[0], calls)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	x.release(tree)
	x.assertUntraced()
}

// Calls that do not return in time are broken off, and the rest is done all the same.
func TestEachEndsInTime(t *testing.T) {
	tr := newTracer(t)
	x := launch(t, tr, program(t, "threads"), "1", "8", "0")
	tree := x.freeze()
	x.open(tree)
	procs := tree.Procs()
	id := semaphores(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	tried := 0
	err := tr.Do(func() error {
		return tr.each(procs, func(p *Process) error {
			tried++
			b := newArgs(p)
			return b.flush(ctx, p.threads[0], []call{semop(b, id, 0, -1)})
		})
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that the time is over", err)
	}
	if tried != len(procs) {
		t.Errorf("%d processes were tried, want %d", tried, len(procs))
	}
	for _, p := range procs { // all work as before
		calls := getpids(1)
		if err := tr.Do(func() error { return p.run(soon(t), p.threads[0], calls) }); err != nil || int(calls[0].ret) != p.pid {
			t.Errorf("getpid in %d: %d, %v", p.pid, calls[0].ret, err)
		}
	}
	x.release(tree)
	x.assertUntraced()
}
