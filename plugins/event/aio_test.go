package event

import (
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// aioSubject is a context of the test process, and one iocb outside of the
// memory that calls of the plugin use.
type aioSubject struct {
	*testing.T
	proc *plugintest.Process
	m    plugin.Mapping
	iocb uint64
}

func newAIOSubject(t *testing.T, requests uintptr) *aioSubject {
	proc := plugintest.Self(t)
	at, _ := proc.Scratch()
	x := &aioSubject{T: t, proc: proc, iocb: at + scratchEvents}
	if _, err := proc.WriteAt(make([]byte, 8), int64(at)); err != nil {
		t.Fatal(err)
	}
	x.call(unix.SYS_IO_SETUP, requests, uintptr(at))
	start := x.word(at)
	t.Cleanup(func() { _, _ = proc.Syscall(context.Background(), unix.SYS_IO_DESTROY, uintptr(start)) })
	header := make([]byte, aioEvent)
	if _, err := proc.ReadAt(header, int64(start)); err != nil {
		t.Fatal(err)
	}
	size := aioEvent * (uint64(binary.NativeEndian.Uint32(header[aioNr:])) + 1)
	x.m = plugin.Mapping{Start: start, End: start + size, Prot: unix.PROT_READ | unix.PROT_WRITE, Shared: true, Path: "/[aio] (deleted)"}
	return x
}

func (x *aioSubject) call(nr uintptr, args ...uintptr) uintptr {
	x.Helper()
	ret, err := x.proc.Syscall(x.Context(), nr, args...)
	if err != nil {
		x.Fatalf("system call %d: %v", nr, err)
	}
	return ret
}

func (x *aioSubject) word(at uint64) uint64 {
	var b [8]byte
	if _, err := x.proc.ReadAt(b[:], int64(at)); err != nil {
		x.Fatal(err)
	}
	return binary.NativeEndian.Uint64(b[:])
}

// poll makes a request that waits for fd.
func (x *aioSubject) poll(fd int, data uint64) {
	b := make([]byte, 72)
	le := binary.NativeEndian
	le.PutUint64(b, data)
	le.PutUint16(b[iocbOpcode:], opcodePoll)
	le.PutUint32(b[iocbFildes:], uint32(fd))
	le.PutUint64(b[iocbEvents:], unix.POLLIN)
	le.PutUint64(b[64:], x.iocb)
	if _, err := x.proc.WriteAt(b, int64(x.iocb)); err != nil {
		x.Fatal(err)
	}
	if n := x.call(unix.SYS_IO_SUBMIT, uintptr(x.m.Start), 1, uintptr(x.iocb+64)); n != 1 {
		x.Fatalf("io_submit: %d", n)
	}
}

// events takes what waits, and returns the data of each.
func (x *aioSubject) events() (data []uint64) {
	at := x.iocb + 72
	for x.call(unix.SYS_IO_GETEVENTS, uintptr(x.m.Start), 0, 1, uintptr(at), 0) == 1 {
		if obj := x.word(at + 8); obj != x.iocb {
			x.Errorf("an event of the iocb %#x, want %#x", obj, x.iocb)
		}
		data = append(data, x.word(at))
	}
	return data
}

func aioPipe(t *testing.T, ready bool) (fd int, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if ready {
		if _, err := w.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	return int(r.Fd()), w
}

// TestAIOIsFoundIdle leaves events unread at every place of the ring, across
// its end too.
func TestAIOIsFoundIdle(t *testing.T) {
	x := newAIOSubject(t, 20)
	ready, _ := aioPipe(t, true)
	p := &Plugin{}
	for round := range uint64(60) {
		for i := range uint64(7) {
			x.poll(ready, 100*round+i)
		}
		policy, err := p.ClaimMap(t.Context(), x.proc, x.m)
		if err != nil || policy != plugin.MapAttach {
			t.Fatalf("round %d: policy %d, %v", round, policy, err)
		}
		if c := p.state.AIO[round]; c.unread() != 7 || uint64(c.Head) != 7*round%uint64(c.slots()) {
			t.Fatalf("round %d: events %d to %d, want 7 that begin at %d", round, c.Head, c.Tail, 7*round%uint64(c.slots()))
		}
		for i, data := range x.events() {
			if data != 100*round+uint64(i) {
				t.Fatalf("round %d: event %d has data %d", round, i, data)
			}
		}
	}
}

// TestAIORequestsAreAwaited has one end while it is waited for, and one that
// does not.
func TestAIORequestsAreAwaited(t *testing.T) {
	x := newAIOSubject(t, 20)
	fd, w := aioPipe(t, false)
	x.poll(fd, 1)
	p := &Plugin{}
	_, err := p.ClaimMap(t.Context(), x.proc, x.m)
	if err == nil || !strings.Contains(err.Error(), "1 of its requests are under way") {
		t.Fatalf("a request under way: %v", err)
	}
	if got := x.events(); len(got) != 0 {
		t.Fatalf("events %d of a context that was refused", got)
	}
	late := time.AfterFunc(aioPatience/4, func() { _, _ = w.Write([]byte{0}) })
	defer late.Stop()
	if _, err := p.ClaimMap(t.Context(), x.proc, x.m); err != nil {
		t.Fatalf("a request that ends soon: %v", err)
	}
	if got := x.events(); len(got) != 1 || got[0] != 1 {
		t.Fatalf("events %d, want one", got)
	}
}

func TestAIOThatIsFullIsRefused(t *testing.T) {
	x := newAIOSubject(t, 1)
	ready, _ := aioPipe(t, true)
	for i := range uint64(x.m.End-x.m.Start)/aioEvent - 40 {
		x.poll(ready, i)
	}
	p := &Plugin{}
	if _, err := p.ClaimMap(t.Context(), x.proc, x.m); err == nil || !strings.Contains(err.Error(), "more events wait") {
		t.Fatalf("a context that is full: %v", err)
	}
}

// TestAIOAgain makes contexts at their old addresses, with their events.
func TestAIOAgain(t *testing.T) {
	for _, place := range []struct{ head, tail uint32 }{{0, 0}, {0, 5}, {100, 3}, {126, 0}, {60, 60}} {
		x := newAIOSubject(t, 20)
		p := &Plugin{}
		p.forget()
		at := uint64(0x7000_0000_0000)
		c := aioContext{PID: x.proc.PID(), Start: at, Size: x.m.End - x.m.Start, Head: place.head, Tail: place.tail}
		p.state.AIO = []aioContext{c}
		m := x.m
		m.Start, m.End = at, at+c.Size
		if err := p.AttachMap(t.Context(), x.proc, m, true); err != nil {
			t.Fatalf("events %d to %d: %v", c.Head, c.Tail, err)
		}
		events := make([]byte, c.Size-aioEvent) // the engine's part: without these the ring has those of the restart
		for i := range c.slots() {
			binary.NativeEndian.PutUint64(events[i*aioEvent+8:], x.iocb)
		}
		if _, err := x.proc.WriteAt(events, int64(at+aioEvent)); err != nil {
			t.Fatal(err)
		}
		if err := p.AttachMap(t.Context(), x.proc, m, false); err != nil {
			t.Fatal(err)
		}
		if _, err := p.ClaimMap(t.Context(), x.proc, m); err != nil {
			t.Fatalf("events %d to %d: %v", c.Head, c.Tail, err)
		}
		if got := p.state.AIO[1]; got != c {
			t.Errorf("%+v comes back as %+v", c, got)
		}
		x.call(unix.SYS_IO_DESTROY, uintptr(at))
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-1": 2, "0-3,8,10-11": 7, "": -1, "3-1": -1, "x": -1, "0-9999999": -1, "-1": -1} {
		got, err := parseCPUs(list)
		if (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("%q: %d, %v", list, got, err)
		}
	}
}
