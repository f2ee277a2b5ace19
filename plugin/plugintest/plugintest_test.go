package plugintest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// counter is a small whole plugin: it keeps eventfds.
type counter struct {
	host plugin.Host
	held []int // duplicates, kept until Resume
	state
}

type state struct {
	Counts map[int]uint64 `json:"counts"` // by OpenFile.ID
}

func definition() plugin.Definition {
	return plugin.Definition{
		Name:     "counter",
		Summary:  "eventfds, for the test of the tests",
		State:    2,
		Oldest:   1,
		Kinds:    []plugin.Kind{plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		Barriers: []string{"drained"},
		New: func(h plugin.Host) (plugin.Plugin, error) {
			var config struct{ Limit int }
			if err := h.Config(&config); err != nil {
				return nil, err
			}
			return &counter{host: h}, nil
		},
	}
}

func (c *counter) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		c.Counts = map[int]uint64{}
		return c.host.Barrier(ctx, "drained")
	case plugin.Resume:
		for _, fd := range c.held {
			unix.Close(fd)
		}
		c.held = nil
	}
	return nil
}

func (c *counter) ClaimFile(ctx context.Context, f plugin.OpenFile) error {
	if f.Link != "anon_inode:[eventfd]" {
		return plugin.ErrNotMine
	}
	fd, err := f.Dup()
	if err != nil {
		return err
	}
	c.held = append(c.held, fd)
	for line := range strings.Lines(string(f.FDInfo)) {
		if n, ok := strings.CutPrefix(line, "eventfd-count:"); ok {
			var count uint64
			if _, err := fmt.Sscanf(n, "%x", &count); err != nil {
				return err
			}
			c.Counts[f.ID] = count
		}
	}
	return nil
}

func (c *counter) ReopenFile(ctx context.Context, f plugin.OpenFile) (int, error) {
	if f.Dup != nil || f.FDInfo != nil {
		return -1, errors.New("a reopened file has no FDInfo and no Dup")
	}
	return unix.Eventfd(uint(c.Counts[f.ID]), unix.EFD_CLOEXEC)
}

func (c *counter) Save(ctx context.Context, w io.Writer) error {
	return json.NewEncoder(w).Encode(c.state)
}

func (c *counter) Load(ctx context.Context, format uint16, r io.Reader) error {
	if format < 1 || format > 2 {
		return fmt.Errorf("format %d", format)
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&c.state); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes behind the state")
	}
	if _, ok := c.Counts[0]; ok {
		return errors.New("id 0")
	}
	return nil
}

func suite() Suite {
	return Suite{
		Config: `{"limit": 3}`,
		Fill: func(t *testing.T, p plugin.Plugin, h *Host) {
			f := OpenFile(t, 7, eventfd(t, 41))
			if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		},
		Invalid: map[string]string{"id 0": `{"counts":{"0":1}}`},
		Old:     map[uint16]string{1: `{"counts":{}}`},
	}
}

func eventfd(t *testing.T, count uint) int {
	t.Helper()
	fd, err := unix.Eventfd(count, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestRun(t *testing.T) { Run(t, definition(), suite()) }

func TestRoundTrip(t *testing.T) {
	RoundTrip(t, definition(),
		func(t *testing.T) []int {
			fd := eventfd(t, 5)
			shared, err := unix.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(shared) })
			return []int{fd, eventfd(t, 9), shared}
		},
		func(t *testing.T, fds []int) {
			if same, err := sameDescription(fds[0], fds[2]); err != nil || !same {
				t.Errorf("the duplicate is a description of its own (%v)", err)
			}
			for i, want := range map[int]uint64{0: 5, 1: 9} {
				var b [8]byte
				if _, err := unix.Read(fds[i], b[:]); err != nil {
					t.Fatal(err)
				}
				if got := binary.NativeEndian.Uint64(b[:]); got != want {
					t.Errorf("eventfd %d counts %d, want %d", i, got, want)
				}
			}
			for i, want := range map[int]int{0: unix.FD_CLOEXEC, 2: 0} {
				if got, err := unix.FcntlInt(uintptr(fds[i]), unix.F_GETFD, 0); err != nil || got != want {
					t.Errorf("descriptor flags of file %d: %d, %v, want %d", i, got, err, want)
				}
			}
		})
}

// broken are plugins that break one rule each, and words of the complaint.
var broken = map[string]struct {
	complaint string
	breakIt   func(*plugin.Definition, *Suite)
}{
	"name":       {"does not match", func(d *plugin.Definition, _ *Suite) { d.Name = "Counter" }},
	"oldest":     {"newer than State", func(d *plugin.Definition, _ *Suite) { d.Oldest = 3 }},
	"kind twice": {"twice", func(d *plugin.Definition, _ *Suite) { d.Kinds = append(d.Kinds, plugin.Exit) }},
	"barrier":    {"is not in Definition.Barriers", func(d *plugin.Definition, _ *Suite) { d.Barriers = nil }},
	"old state":  {"no state in format 1", func(_ *plugin.Definition, s *Suite) { s.Old = nil }},
	"shared": {"the same plugin twice", wrap(func() func(*counter) plugin.Plugin {
		one := &counter{}
		return func(*counter) plugin.Plugin { return one }
	}())},
	"leak":        {"was left open", wrap(func(c *counter) plugin.Plugin { return leaky{c} })},
	"greedy":      {"want ErrNotMine", wrap(func(c *counter) plugin.Plugin { return greedy{c} })},
	"careless":    {"Load accepted", wrap(func(c *counter) plugin.Plugin { return careless{c} })},
	"unstable":    {"Save twice", wrap(func(c *counter) plugin.Plugin { return &unstable{counter: c} })},
	"deaf":        {"cancelled at a barrier", wrap(func(c *counter) plugin.Plugin { return deaf{c} })},
	"own failure": {"wraps context.Canceled", wrap(func(c *counter) plugin.Plugin { return stubborn{c} })},
	"forgetful":   {"checkpoint and Resume: descriptor", wrap(func(c *counter) plugin.Plugin { return forgetful{c} })},
	"wasteful":    {"restart: descriptor", wrap(func(c *counter) plugin.Plugin { return wasteful{c} })},
	"resume once": {"Handle of resume", wrap(func(c *counter) plugin.Plugin { return &once{counter: c} })},
}

func wrap(around func(*counter) plugin.Plugin) func(*plugin.Definition, *Suite) {
	return func(d *plugin.Definition, _ *Suite) {
		d.New = func(h plugin.Host) (plugin.Plugin, error) { return around(&counter{host: h}), nil }
	}
}

type leaky struct{ *counter }

func (leaky) Save(context.Context, io.Writer) error {
	_, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	return err
}

type greedy struct{ *counter }

func (greedy) ClaimFile(context.Context, plugin.OpenFile) error { return nil }

type careless struct{ *counter }

func (c careless) Load(_ context.Context, _ uint16, r io.Reader) error {
	return json.NewDecoder(r).Decode(&c.state)
}

type unstable struct {
	*counter
	saves int
}

func (u *unstable) Save(_ context.Context, w io.Writer) error {
	u.saves++
	_, err := fmt.Fprintf(w, `{"counts":{"1":%d}}`, u.saves)
	return err
}

type deaf struct{ *counter }

func (d deaf) Handle(ctx context.Context, ev plugin.Event) error {
	_ = d.counter.Handle(ctx, ev)
	return nil
}

type stubborn struct{ *counter }

func (s stubborn) Handle(ctx context.Context, ev plugin.Event) error {
	if ctx.Err() != nil {
		return errors.New("something else")
	}
	return s.counter.Handle(ctx, ev)
}

type once struct {
	*counter
	resumed bool
}

func (o *once) Handle(ctx context.Context, ev plugin.Event) error {
	if ev.Kind == plugin.Resume {
		if o.resumed {
			return errors.New("already resumed")
		}
		o.resumed = true
	}
	return o.counter.Handle(ctx, ev)
}

type forgetful struct{ *counter }

func (f forgetful) Handle(ctx context.Context, ev plugin.Event) error {
	if ev.Kind == plugin.Resume {
		f.held = nil
	}
	return f.counter.Handle(ctx, ev)
}

type wasteful struct{ *counter }

func (w wasteful) ReopenFile(ctx context.Context, f plugin.OpenFile) (int, error) {
	if _, err := w.counter.ReopenFile(ctx, f); err != nil {
		return -1, err
	}
	return w.counter.ReopenFile(ctx, f)
}

// TestRunRejects runs the suite and a round trip on each broken plugin in a
// test process of its own, where one must fail.
func TestRunRejects(t *testing.T) {
	const variable = "PLUGINTEST_BROKEN"
	if name := os.Getenv(variable); name != "" {
		def, s := definition(), suite()
		broken[name].breakIt(&def, &s)
		Run(t, def, s)
		RoundTrip(t, def, func(t *testing.T) []int { return []int{eventfd(t, 5)} }, func(*testing.T, []int) {})
		return
	}
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunRejects$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte(b.complaint)) {
				t.Errorf("the suite ended with %v and did not say %q:\n%s", err, b.complaint, out)
			}
		})
	}
}

func TestOpenFile(t *testing.T) {
	name := t.TempDir() + "/file"
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("four")); err != nil {
		t.Fatal(err)
	}
	f := OpenFile(t, 3, fd)
	if f.ID != 3 || f.Link != name || f.Pos != 4 || f.Stat.Size != 4 || f.Inherited != 0 {
		t.Errorf("got %+v", f)
	}
	if want := unix.O_RDWR | unix.O_APPEND; f.Flags&(unix.O_ACCMODE|unix.O_APPEND|unix.O_CLOEXEC) != want {
		t.Errorf("flags %#o, want %#o", f.Flags, want)
	}
	if want := (plugin.FileRef{PID: os.Getpid(), FD: fd, Cloexec: true}); len(f.Refs) != 1 || f.Refs[0] != want {
		t.Errorf("refs %+v, want %+v", f.Refs, want)
	}
	dup, err := f.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if _, err := describe(1, []int{fd, dup}); err != nil {
		t.Errorf("a file and its duplicate: %v", err)
	}
	if _, err := describe(1, []int{fd, eventfd(t, 0)}); err == nil {
		t.Error("two descriptions were taken for one")
	}
	if r := Reopened(f); r.Dup != nil || r.FDInfo != nil || r.Link != f.Link {
		t.Errorf("reopened: %+v", r)
	}
}

func TestSelf(t *testing.T) {
	p := Self(t)
	ctx := t.Context()
	if pid, err := p.Syscall(ctx, unix.SYS_GETPID); err != nil || int(pid) != p.PID() {
		t.Errorf("getpid: %d, %v", pid, err)
	}
	if _, err := p.Syscall(ctx, unix.SYS_CLOSE, ^uintptr(0)); err != error(unix.EBADF) {
		t.Errorf("close(-1): %v, want EBADF itself", err)
	}
	if threads := p.Threads(); len(threads) < 2 || threads[0].TID != p.PID() {
		t.Errorf("threads: %v", threads)
	}

	addr, size := p.Scratch()
	if size < 4096 {
		t.Fatalf("scratch of %d bytes", size)
	}
	name := append([]byte("/proc/self/exe"), 0)
	if _, err := p.WriteAt(name, int64(addr)); err != nil {
		t.Fatal(err)
	}
	var at = unix.AT_FDCWD
	calls := []plugin.Call{
		{Nr: unix.SYS_READLINKAT, Args: [6]uintptr{uintptr(at), uintptr(addr), uintptr(addr) + 64, 1024}},
		{Nr: unix.SYS_CLOSE, Args: [6]uintptr{^uintptr(0)}, MayFail: true},
		{Nr: unix.SYS_GETTID},
		{Nr: unix.SYS_CLOSE, Args: [6]uintptr{^uintptr(0)}},
		{Nr: unix.SYS_GETPID},
	}
	if err := p.Batch(ctx, calls); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "call 3") {
		t.Errorf("batch: %v", err)
	}
	link := make([]byte, calls[0].Ret)
	if _, err := p.ReadAt(link, int64(addr)+64); err != nil {
		t.Fatal(err)
	}
	if want, _ := os.Readlink("/proc/self/exe"); string(link) != want {
		t.Errorf("readlinkat gave %q, want %q", link, want)
	}
	if calls[1].Err != unix.EBADF || int(calls[2].Ret) != p.TID() || calls[4].Ret != 0 {
		t.Errorf("calls: %+v", calls)
	}

	local := []byte("local")
	got := make([]byte, len(local))
	if _, err := p.ReadAt(got, int64(address(local))); err != nil || !bytes.Equal(got, local) {
		t.Errorf("read of own memory: %q, %v", got, err)
	}

	p.FailCall(unix.SYS_GETPID, syscall.ENOSYS)
	if _, err := p.Syscall(ctx, unix.SYS_GETPID); err != error(syscall.ENOSYS) {
		t.Errorf("failing getpid: %v", err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := p.Syscall(ended, unix.SYS_GETTID); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHost(t *testing.T) {
	h, ctx := NewHost(t), t.Context()
	if _, ok := h.Terminal(); ok || h.Root() != "" || h.Stdio(2) != 2 {
		t.Error("a new host has a terminal, a root or other standard descriptors")
	}
	h.SetTerminal(5)
	h.SetRoot("/proc/1/root")
	h.SetStdio(1, 9)
	if fd, ok := h.Terminal(); fd != 5 || !ok || h.Root() != "/proc/1/root" || h.Stdio(1) != 9 {
		t.Error("what was set is not returned")
	}
	if err := h.Publish(ctx, "key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Lookup(ctx, "key"); err == nil {
		t.Error("published before the barrier")
	}
	if err := h.Barrier(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if val, err := h.Lookup(ctx, "key"); err != nil || string(val) != "value" {
		t.Errorf("lookup: %q, %v", val, err)
	}
	h.Log().Info().Str("object", "pipe").Msg("drained")
	if logged := h.Logged(); !strings.Contains(logged, `"object":"pipe"`) {
		t.Errorf("logged %q", logged)
	}
	var config struct{ Known string }
	h.SetConfig(`{"known":"x"}`)
	if err := h.Config(&config); err != nil || config.Known != "x" {
		t.Errorf("config %+v, %v", config, err)
	}
	h.SetConfig(`{"unknown":"x"}`)
	if err := h.Config(&config); err == nil {
		t.Error("an unknown key was accepted")
	}
}
