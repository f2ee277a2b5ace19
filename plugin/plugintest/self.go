package plugintest

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// scratchSize is what Scratch offers, no more than the engine does.
const scratchSize = 64 << 10

// Process is the test process as a [plugin.Process]. Its memory is reached
// through /proc/self/mem, and its system calls are really made, in order, on
// one thread that does nothing else.
type Process struct {
	mem     *os.File
	scratch []byte
	calls   chan request
	tid     int

	mu   sync.Mutex
	fail map[uintptr]syscall.Errno
}

type request struct {
	nr    uintptr
	args  [6]uintptr
	reply chan<- reply
}

type reply struct {
	ret uintptr
	err syscall.Errno
}

// Self returns the test process. Its thread and its scratch memory go when
// the test ends, and with the thread what the calls have set for it alone.
func Self(t testing.TB) *Process {
	t.Helper()
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := unix.Mmap(-1, 0, scratchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatalf("mmap of scratch memory: %v", err)
	}
	p := &Process{mem: mem, scratch: scratch, calls: make(chan request), fail: map[uintptr]syscall.Errno{}}
	tid, done := make(chan int), make(chan struct{})
	go func() {
		defer close(done)
		p.serve(tid)
	}()
	p.tid = <-tid
	t.Cleanup(func() {
		close(p.calls)
		<-done
		if err := unix.Munmap(scratch); err != nil {
			t.Errorf("munmap of scratch memory: %v", err)
		}
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// serve makes the calls. It never unlocks its thread, so that the runtime
// ends the thread instead of using it again.
func (p *Process) serve(tid chan<- int) {
	runtime.LockOSThread()
	tid <- unix.Gettid()
	for r := range p.calls {
		a := r.args
		ret, _, errno := unix.Syscall6(r.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		r.reply <- reply{ret, errno}
	}
}

// FailCall makes every further system call nr fail with errno, without being
// made; errno 0 undoes that.
func (p *Process) FailCall(nr uintptr, errno syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail[nr] = errno
}

// TID returns the thread that makes the system calls.
func (p *Process) TID() int { return p.tid }

// PID returns the pid of the test process.
func (p *Process) PID() int { return os.Getpid() }

// HostPID is the same as PID.
func (p *Process) HostPID() int { return os.Getpid() }

// Threads returns the threads of the test process, the leader first.
func (p *Process) Threads() []plugin.Thread {
	threads := []plugin.Thread{{TID: os.Getpid(), HostTID: os.Getpid()}}
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return threads
	}
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil && tid != os.Getpid() {
			threads = append(threads, plugin.Thread{TID: tid, HostTID: tid})
		}
	}
	return threads
}

// PendingSignals tells of none: only a tracer sees them.
func (p *Process) PendingSignals() ([][]byte, error) { return nil, nil }

// ReadAt reads the memory of the test process at the address off.
func (p *Process) ReadAt(b []byte, off int64) (int, error) { return p.mem.ReadAt(b, off) }

// WriteAt writes the memory of the test process at the address off.
func (p *Process) WriteAt(b []byte, off int64) (int, error) { return p.mem.WriteAt(b, off) }

// Scratch returns memory outside the Go heap, the same for the whole test.
func (p *Process) Scratch() (addr uint64, size int) {
	return address(p.scratch), len(p.scratch)
}

// Syscall makes one system call. When ctx ends first it returns at once, and
// the call goes on.
func (p *Process) Syscall(ctx context.Context, nr uintptr, args ...uintptr) (uintptr, error) {
	r := request{nr: nr}
	if len(args) > len(r.args) {
		return 0, fmt.Errorf("system call %d: %d arguments, at most %d", nr, len(args), len(r.args))
	}
	copy(r.args[:], args)
	got, err := p.do(ctx, r)
	if err != nil {
		return 0, err
	}
	if got.err != 0 {
		return got.ret, got.err
	}
	return got.ret, nil
}

// Batch makes the calls in order, as the contract says.
func (p *Process) Batch(ctx context.Context, calls []plugin.Call) error {
	for i := range calls {
		c := &calls[i]
		args := c.Args
		for _, s := range c.Sources {
			v, err := p.source(calls[:i], s)
			if err != nil {
				return fmt.Errorf("call %d of the batch: %w", i, err)
			}
			args[s.Arg] = v
		}
		if c.Nr == plugin.SiftRing {
			if err := p.siftRing(int64(args[0]), uint64(args[1]), uint32(args[2])); err != nil {
				return fmt.Errorf("call %d of the batch: %w", i, err)
			}
			continue
		}
		got, err := p.do(ctx, request{nr: c.Nr, args: args})
		if err != nil {
			return err
		}
		c.Ret, c.Err = got.ret, got.err
		if c.Err != 0 && !c.MayFail {
			return fmt.Errorf("pid %d: call %d of the batch, system call %d: %w", p.PID(), i, c.Nr, c.Err)
		}
	}
	return nil
}

// siftRing is plugin.SiftRing.
func (p *Process) siftRing(ring int64, iocb uint64, slots uint32) error {
	const event, head, tail, obj = 32, 8, 12, 8
	b, order := make([]byte, event*(int(slots)+1)), binary.NativeEndian
	if _, err := p.ReadAt(b, ring); err != nil {
		return err
	}
	to := order.Uint32(b[tail:])
	for from := to; from != order.Uint32(b[head:]); {
		from = (from + slots - 1) % slots
		if e := b[event*(from+1):][:event]; order.Uint64(e[obj:]) != iocb {
			to = (to + slots - 1) % slots
			copy(b[event*(to+1):], e)
		}
	}
	if _, err := p.WriteAt(b[event:], ring+event); err != nil {
		return err
	}
	_, err := p.WriteAt(order.AppendUint32(nil, to), ring+head)
	return err
}

// source returns the argument that s tells of, behind the calls done.
func (p *Process) source(done []plugin.Call, s plugin.Source) (uintptr, error) {
	if s.Addr == 0 {
		if s.Result < 0 || s.Result >= len(done) {
			return 0, fmt.Errorf("wants the result of call %d", s.Result)
		}
		return done[s.Result].Ret, nil
	}
	var b [8]byte
	if _, err := p.ReadAt(b[:], int64(s.Addr)); err != nil {
		return 0, err
	}
	return uintptr(binary.NativeEndian.Uint64(b[:])), nil
}

func (p *Process) do(ctx context.Context, r request) (reply, error) {
	if err := ctx.Err(); err != nil {
		return reply{}, fmt.Errorf("pid %d: system call %d: %w", p.PID(), r.nr, err)
	}
	p.mu.Lock()
	errno := p.fail[r.nr]
	p.mu.Unlock()
	if errno != 0 {
		return reply{ret: ^uintptr(0), err: errno}, nil
	}
	answer := make(chan reply, 1)
	r.reply = answer
	select {
	case p.calls <- r:
	case <-ctx.Done():
		return reply{}, fmt.Errorf("pid %d: system call %d: %w", p.PID(), r.nr, ctx.Err())
	}
	select {
	case got := <-answer:
		return got, nil
	case <-ctx.Done():
		return reply{}, fmt.Errorf("pid %d: system call %d: %w", p.PID(), r.nr, ctx.Err())
	}
}

var _ plugin.Process = (*Process)(nil)
