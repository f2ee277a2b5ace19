package coord

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/plugin"
)

func TestOneAgent(t *testing.T) {
	s := startServer(t, testConfig(t))
	a := startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
		m.Progress(5, 10)
		m.Progress(10, 10)
		return m.Barrier(ctx, o.Generation, "suspended")
	})
	c := startClient(t, s)
	s.SetInterval(time.Hour)
	var last atomic.Pointer[Progress]
	for generation := uint64(1); generation <= 3; generation++ {
		r, err := c.Checkpoint(t.Context(), CheckpointRequest{}, func(p Progress) { last.Store(&p) })
		if err != nil {
			t.Fatal(err)
		}
		if r.Name != "job" || r.Generation != generation || r.Processes != 2 || r.Threads != 3 || r.RawBytes != 10 ||
			r.Pause != 5*time.Millisecond || r.Total <= 0 || len(r.Timings) != 1 || r.Bytes == 0 {
			t.Errorf("result is %+v", r)
		}
		m, err := image.ReadManifest(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		if m.Computation != testComputation || m.Name != "job" || m.Generation != generation || len(m.Agents) != 1 ||
			m.Agents[0].ID != "a" || m.Agents[0].Host != "h-a" || m.Agents[0].Write != time.Second-5*time.Millisecond {
			t.Errorf("manifest is %+v", m)
		}
		if want := (image.Settings{Interval: time.Hour, Keep: 2, Compress: "zstd"}); !reflect.DeepEqual(m.Settings, want) {
			t.Errorf("settings are %+v, want %+v", m.Settings, want)
		}
		got := <-a.outcomes
		if !got.committed || got.order.Generation != generation || filepath.Base(got.order.Dir) != m.Agents[0].Folder {
			t.Errorf("Finish was told %+v", got)
		}
	}
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Generation != 3 || !slices.Equal(st.Generations, []uint64{2, 3}) || st.State != StateRunning || st.LastError != "" ||
		st.LastPause != 5*time.Millisecond || st.LastTime.IsZero() || st.Dir != s.cfg.Store.Path() ||
		len(st.Agents) != 1 || st.Agents[0].PID != 42 || st.Agents[0].Processes[0].HostPID != 101 {
		t.Errorf("status is %+v", st)
	}
}

// TestProgress relies on the relay's delivering what came last.
func TestProgress(t *testing.T) {
	s := startServer(t, testConfig(t))
	seen := make(chan Progress, 100)
	startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
		m.Progress(3, 10)
		return m.Barrier(ctx, o.Generation, "reported")
	})
	startAgent(t, s, hello("b"), func(ctx context.Context, m *Member, o Order) error {
		m.Progress(4, 20)
		for p := (Progress{}); p != (Progress{7, 30}); {
			select {
			case p = <-seen:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return m.Barrier(ctx, o.Generation, "reported")
	})
	_, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{}, func(p Progress) { seen <- p })
	if err != nil {
		t.Fatal(err)
	}
}

func TestThreeAgents(t *testing.T) {
	s := startServer(t, testConfig(t))
	ids := []string{"a", "b", "c"}
	work := func(id string) func(context.Context, *Member, Order) error {
		return func(ctx context.Context, m *Member, o Order) error {
			for round := range 3 {
				key := func(id string) string { return fmt.Sprintf("addr/%s/%d", id, round) }
				if err := m.Publish(ctx, key(id), []byte(id)); err != nil {
					return err
				}
				if _, err := m.Lookup(ctx, key(id)); !errors.Is(err, ErrNotFound) {
					return fmt.Errorf("lookup before the barrier: %v", err)
				}
				if err := m.Barrier(ctx, o.Generation, "drained"); err != nil {
					return err
				}
				for _, other := range ids {
					val, err := m.Lookup(ctx, key(other))
					if err != nil || string(val) != other {
						return fmt.Errorf("lookup of %s: %q, %v", key(other), val, err)
					}
				}
				// So that nobody publishes for the next round too early.
				if err := m.Barrier(ctx, o.Generation, "looked up"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	agents := make([]*testAgent, len(ids))
	for i, id := range ids {
		agents[i] = startAgent(t, s, hello(id), work(id))
	}
	for range 2 { // what was published for the first is gone in the second
		r, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Processes != 6 || r.Pause != 5*time.Millisecond || len(r.Timings) != 1 {
			t.Errorf("result is %+v", r)
		}
	}
	for _, a := range agents {
		for range 2 {
			if got := <-a.outcomes; !got.committed {
				t.Errorf("Finish was told %+v", got)
			}
		}
	}
}

// TestGivenUp lets one of three agents fail in each way, while or before the
// others wait for it at a barrier.
func TestGivenUp(t *testing.T) {
	refusal := &plugin.RefusalError{PID: 7, FD: 3, Object: "socket:[1]", Reason: "raw sockets are not kept"}
	tests := []struct {
		name   string
		work   func(ctx context.Context, m *Member, o Order) error
		reason string
		refuse bool
	}{
		{"error", func(context.Context, *Member, Order) error {
			return fmt.Errorf("plugin socket: %w", refusal)
		}, "agent c: plugin socket: pid 7 fd 3: socket:[1]: raw sockets are not kept", true},
		{"connection lost", func(ctx context.Context, m *Member, _ Order) error {
			m.conn.nc.Close()
			<-ctx.Done()
			return context.Cause(ctx)
		}, "agent c: connection lost", false},
		{"other barrier", func(ctx context.Context, m *Member, o Order) error {
			return m.Barrier(ctx, o.Generation, "elsewhere")
		}, `agent c waits at barrier "elsewhere"`, false},
		{"no barrier", func(context.Context, *Member, Order) error { return nil },
			"agent c has finished", false},
		{"own deadline", func(ctx context.Context, m *Member, o Order) error {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			return m.Barrier(ctx, o.Generation, "never together")
		}, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := startServer(t, testConfig(t))
			errs := make(chan error, 2)
			wait := func(ctx context.Context, m *Member, o Order) error {
				err := m.Barrier(ctx, o.Generation, "suspended")
				errs <- err
				return err
			}
			a := startAgent(t, s, hello("a"), wait)
			b := startAgent(t, s, hello("b"), wait)
			c := startAgent(t, s, hello("c"), test.work)
			_, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{}, nil)
			wantError(t, err, ErrGivenUp, test.reason)
			var got *plugin.RefusalError
			if test.refuse && (!errors.As(err, &got) || *got != *refusal) {
				t.Errorf("refusal is %+v", got)
			}
			for range 2 {
				wantError(t, <-errs, ErrGivenUp, "given up")
			}
			for _, agent := range []*testAgent{a, b, c} {
				if got := <-agent.outcomes; got.committed || got.reason == "" {
					t.Errorf("Finish was told %+v", got)
				}
			}
			noGenerations(t, s)
			if st := alive(t, s); st.State != StateRunning || st.LastError == "" || st.Generation != 0 {
				t.Errorf("status is %+v", st)
			}
		})
	}
}

// TestNextAfterGivenUp also sends a late barrier into the next session.
func TestNextAfterGivenUp(t *testing.T) {
	s := startServer(t, testConfig(t))
	fail := errors.New("disk full")
	a := startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
		if err := m.Barrier(ctx, o.Generation+7, "late"); !errors.Is(err, ErrGivenUp) {
			return fmt.Errorf("barrier of another generation: %v", err)
		}
		return fail
	})
	_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrGivenUp, "checkpoint 1: given up: disk full")
	<-a.outcomes
	wantError(t, a.member.Barrier(t.Context(), 1, "late"), ErrGivenUp, "not in progress")
	wantError(t, a.member.Publish(t.Context(), "k", nil), ErrGivenUp, "not in progress")
	fail = nil
	if r, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil || r.Generation != 1 {
		t.Fatalf("next checkpoint: %+v, %v", r, err)
	}
	if st := alive(t, s); st.LastError != "" {
		t.Errorf("LastError is still %q", st.LastError)
	}
}

func TestTimeout(t *testing.T) {
	block := func(ctx context.Context, _ *Member, o Order) error {
		if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(o.Deadline) {
			return fmt.Errorf("deadline is %v, want %v", deadline, o.Deadline)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	t.Run("of the request", func(t *testing.T) {
		s := startServer(t, testConfig(t))
		a := startAgent(t, s, hello("a"), block)
		_, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{Timeout: 20 * time.Millisecond}, nil)
		wantError(t, err, ErrGivenUp, "")
		wantError(t, err, context.DeadlineExceeded, "")
		if got := <-a.outcomes; got.committed {
			t.Errorf("Finish was told %+v", got)
		}
		noGenerations(t, s)
	})
	t.Run("of the caller", func(t *testing.T) {
		s := startServer(t, testConfig(t))
		ctx, cancel := context.WithCancelCause(t.Context())
		a := startAgent(t, s, hello("a"), func(hctx context.Context, m *Member, o Order) error {
			cancel(errors.New("no longer wanted"))
			return block(hctx, m, o)
		})
		_, err := s.Checkpoint(ctx, CheckpointRequest{}, nil)
		wantError(t, err, ErrGivenUp, "no longer wanted")
		if got := <-a.outcomes; got.reason != "no longer wanted" {
			t.Errorf("Finish was told %+v", got)
		}
	})
}

func TestClientGone(t *testing.T) {
	s := startServer(t, testConfig(t))
	begun, gone := make(chan struct{}), make(chan struct{})
	a := startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
		close(begun)
		<-gone
		return m.Barrier(ctx, o.Generation, "suspended")
	})
	c := startClient(t, s)
	failed := make(chan error)
	go func() {
		_, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
		failed <- err
	}()
	<-begun
	c.Close()
	wantError(t, <-failed, ErrConnectionLost, "")
	close(gone)
	if got := <-a.outcomes; !got.committed {
		t.Errorf("Finish was told %+v", got)
	}
}

func TestBusy(t *testing.T) {
	s := startServer(t, testConfig(t))
	begun, release := make(chan struct{}), make(chan struct{})
	startAgent(t, s, hello("a"), func(context.Context, *Member, Order) error {
		close(begun)
		<-release
		return nil
	})
	first := make(chan error)
	go func() {
		_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
		first <- err
	}()
	<-begun
	c := startClient(t, s)
	_, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrBusy, "a checkpoint is in progress")
	if st := alive(t, s); st.State != StateCheckpointing {
		t.Errorf("state is %q", st.State)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestBusyByTimer: a checkpoint that was asked for comes behind a periodic one that is in progress.
func TestBusyByTimer(t *testing.T) {
	s := startServer(t, testConfig(t))
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	startAgent(t, s, hello("a"), func(context.Context, *Member, Order) error {
		once.Do(func() { close(begun) })
		<-release
		return nil
	})
	s.SetInterval(time.Millisecond)
	<-begun
	s.SetInterval(0)
	c := startClient(t, s)
	_, err := c.Checkpoint(t.Context(), CheckpointRequest{Timeout: time.Millisecond}, nil)
	wantError(t, err, ErrBusy, "a checkpoint is in progress")
	gone, waits := startClient(t, s), make(chan error)
	go func() {
		_, err := gone.Checkpoint(t.Context(), CheckpointRequest{Kill: true}, nil)
		waits <- err
	}()
	untilAwaited := func(want bool) {
		for awaited := !want; awaited != want; alive(t, s) {
			s.mu.Lock()
			awaited = s.awaited
			s.mu.Unlock()
		}
	}
	untilAwaited(true)
	_, err = c.Checkpoint(t.Context(), CheckpointRequest{}, nil) // behind another that waits
	wantError(t, err, ErrBusy, "a checkpoint is in progress")
	gone.Close() // and with it what it has asked for
	wantError(t, <-waits, ErrConnectionLost, "")
	untilAwaited(false)
	second := make(chan CheckpointResult)
	go func() {
		r, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
		if err != nil {
			t.Error(err)
		}
		second <- r
	}()
	close(release)
	if r := <-second; r.Generation != 2 {
		t.Errorf("generation %d, want 2, behind the periodic one", r.Generation)
	}
}

func TestNoAgent(t *testing.T) {
	s := startServer(t, testConfig(t))
	c := startClient(t, s)
	_, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrNoAgent, "")
	_, err = c.Check(t.Context())
	wantError(t, err, ErrNoAgent, "")
	a := startAgent(t, s, hello("a"), nil)
	a.member.Close()
	<-a.member.Done()
	for len(s.list()) > 0 { // until the server has seen it
		alive(t, s)
	}
	_, err = c.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrNoAgent, "")
}

// TestPassingRefusal: what is refused for the moment is tried again; what is
// refused for good is not, and neither is anything for ever.
func TestPassingRefusal(t *testing.T) {
	for _, test := range []struct {
		name    string
		refused int // times
		passing bool
		tries   int
		ok      bool
	}{
		{"for a moment", 2, true, 3, true},
		{"for good", 1, false, 1, false},
		{"again and again", 100, true, 5, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startServer(t, testConfig(t))
			tries := 0
			startAgent(t, s, hello("a"), func(context.Context, *Member, Order) error {
				if tries++; tries > test.refused {
					return nil
				}
				return errors.Join(&plugin.RefusalError{PID: 7, FD: 3, Object: "socket", Reason: "in the backlog", Passing: test.passing})
			})
			_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
			if (err == nil) != test.ok || tries != test.tries {
				t.Errorf("%v after %d tries, want %d", err, tries, test.tries)
			}
			if !test.ok {
				wantError(t, err, ErrGivenUp, "pid 7 fd 3: socket: in the backlog")
			}
		})
	}
}

func TestMismatch(t *testing.T) {
	base := []PluginInfo{{Name: "file", State: 1, Barriers: []string{"drained"}}, {Name: "event", State: 2}}
	tests := []struct {
		name    string
		plugins []PluginInfo
		want    string
	}{
		{"same", base, ""},
		{"missing", base[:1], `plugin "event" on the first only`},
		{"more", append(slices.Clone(base), PluginInfo{Name: "shm"}), `plugin "shm" on the second only`},
		{"order", []PluginInfo{base[1], base[0]}, `plugin 1 is "file" on the first, "event" on the second`},
		{"state", []PluginInfo{base[0], {Name: "event", State: 3}}, `plugin "event": state 2 on the first, 3 on the second`},
		{"barriers", []PluginInfo{{Name: "file", State: 1}, base[1]}, `plugin "file": barriers ["drained"] on the first, [] on the second`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := startServer(t, testConfig(t))
			startAgent(t, s, Hello{ID: "a", Plugins: base}, nil)
			m, err := Join(t.Context(), s.Addr(), Hello{ID: "b", Plugins: test.plugins}, &testAgent{}, zerolog.Nop())
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				m.Close()
				<-m.Done()
				return
			}
			wantError(t, err, ErrMismatch, "a and b: "+test.want)
		})
	}
}

func TestKill(t *testing.T) {
	t.Run("agent leaves in Finish", func(t *testing.T) {
		s := startServer(t, testConfig(t))
		a := &testAgent{}
		a.finish = func(seen outcomeSeen) error {
			if !seen.order.Kill {
				return errors.New("test: no Kill")
			}
			a.member.Close()
			return nil
		}
		a.join(t, s, hello("a"))
		if _, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{Kill: true}, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("fails", func(t *testing.T) {
		s := startServer(t, testConfig(t))
		a := &testAgent{finish: func(outcomeSeen) error { return syscall.EPERM }}
		a.join(t, s, hello("a"))
		r, err := s.Checkpoint(t.Context(), CheckpointRequest{Kill: true}, nil)
		if err == nil || r.Generation != 1 || errors.Is(err, ErrGivenUp) {
			t.Fatalf("result %+v, error %v", r, err)
		}
	})
	t.Run("signal", func(t *testing.T) {
		s := startServer(t, testConfig(t))
		a := startAgent(t, s, hello("a"), nil)
		c := startClient(t, s)
		if err := c.Kill(t.Context(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if sig := <-a.signals; sig != syscall.SIGTERM {
			t.Errorf("signal is %v", sig)
		}
		if err := c.Kill(t.Context(), 65); err == nil {
			t.Error("signal 65 was sent")
		}
	})
}

func TestCheck(t *testing.T) {
	s := startServer(t, testConfig(t))
	want := Refusal{PID: 3, FD: -1, Object: "io_uring", Reason: "not kept"}
	a := &testAgent{check: []Refusal{want}}
	a.join(t, s, hello("a"))
	startAgent(t, s, hello("b"), nil)
	got, err := startClient(t, s).Check(t.Context())
	if err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("Check: %+v, %v", got, err)
	}
}

// TestCheckMeets: the plugins of several agents meet in a check, and one that
// refuses keeps no other waiting.
func TestCheckMeets(t *testing.T) {
	s := startServer(t, testConfig(t))
	want := Refusal{PID: 3, FD: -1, Object: "io_uring", Reason: "not kept"}
	meet := func(a *testAgent) func(context.Context) ([]Refusal, error) {
		return func(ctx context.Context) ([]Refusal, error) {
			return nil, errors.Join(a.member.Publish(ctx, "key", []byte("x")), a.member.Barrier(ctx, 0, "met"))
		}
	}
	a, b := &testAgent{}, &testAgent{}
	a.checks, b.checks = meet(a), meet(b)
	a.join(t, s, hello("a"))
	b.join(t, s, hello("b"))
	for range 2 {
		if got, err := s.Check(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Check: %+v, %v", got, err)
		}
	}
	b.checks = func(context.Context) ([]Refusal, error) { return []Refusal{want}, nil }
	if got, err := s.Check(t.Context()); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("Check: %+v, %v", got, err)
	}
	b.checks = func(context.Context) ([]Refusal, error) { return nil, errors.New("broken") }
	_, err := s.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("Check: %v", err)
	}
	if _, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
		t.Error(err)
	}
}

// TestInterval lets the second of many periodic checkpoints fail.
func TestInterval(t *testing.T) {
	s := startServer(t, testConfig(t))
	count := 0
	a := startAgent(t, s, hello("a"), func(context.Context, *Member, Order) error {
		if count++; count == 2 {
			return errors.New("not this time")
		}
		return nil
	})
	c := startClient(t, s)
	if err := c.SetInterval(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if got := <-a.outcomes; got.committed != (i != 1) {
			t.Errorf("checkpoint %d: Finish was told %+v", i+1, got)
		}
	}
	if err := c.SetInterval(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if st := alive(t, s); st.Interval != 0 || st.Generation < 3 {
		t.Errorf("status is %+v", st)
	}
}

func TestIntervalFromConfig(t *testing.T) {
	cfg := testConfig(t)
	cfg.Interval = time.Millisecond
	s := startServer(t, cfg) // the first may fail for want of an agent
	a := startAgent(t, s, hello("a"), nil)
	if got := <-a.outcomes; !got.committed {
		t.Errorf("Finish was told %+v", got)
	}
}

// TestRestart meets at barriers before any checkpoint.
func TestRestart(t *testing.T) {
	cfg := testConfig(t)
	cfg.Agents = 2
	s := startServer(t, cfg)
	a := startAgent(t, s, hello("a"), nil)
	met := make(chan error)
	go func() {
		err := a.member.Publish(t.Context(), "addr", []byte("x"))
		met <- errors.Join(err, a.member.Barrier(t.Context(), 9, "restored"))
	}()
	b := startAgent(t, s, hello("b"), nil)
	for { // until a waits
		_, err := b.member.Lookup(t.Context(), "addr")
		wantError(t, err, ErrNotFound, "")
		s.mu.Lock()
		waits := s.session.inUse()
		s.mu.Unlock()
		if waits {
			break
		}
	}
	_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrRestarting, "")
	if err := b.member.Barrier(t.Context(), 9, "restored"); err != nil {
		t.Fatal(err)
	}
	if err := <-met; err != nil {
		t.Fatal(err)
	}
	if val, err := b.member.Lookup(t.Context(), "addr"); err != nil || string(val) != "x" {
		t.Errorf("Lookup: %q, %v", val, err)
	}
	if _, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
		t.Error(err)
	}
	wantError(t, a.member.Barrier(t.Context(), 9, "restored"), ErrGivenUp, "")
}
