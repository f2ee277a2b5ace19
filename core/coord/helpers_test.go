package coord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/image"
)

// childSocket names the environment variable that makes the test binary
// connect to a socket, as another user, and tell what happens.
const childSocket = "HIATUS_COORD_TEST_SOCKET"

// childServes names the environment variable that makes the test binary serve a
// coordinator in a runtime directory until its standard input ends.
const childServes = "HIATUS_COORD_TEST_SERVES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childServes); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if path := os.Getenv(childSocket); path != "" {
		fmt.Println(knock(path))
		return
	}
	os.Exit(m.Run())
}

const testComputation = "00112233445566778899aabbccddeeff"

// shortDir makes a private directory with a path short enough for a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "coord")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// testConfig is a configuration that works.
func testConfig(t testing.TB) Config {
	t.Helper()
	store, err := image.OpenStore(t.TempDir(), "job")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Name: "job", Computation: testComputation, Store: store, Keep: 2,
		Manifest: func() image.Manifest {
			return image.Manifest{Command: []string{"true"}, Arch: "amd64", Settings: image.Settings{Compress: "zstd"}}
		},
		Log:        zerolog.New(zerolog.NewTestWriter(t)),
		RuntimeDir: shortDir(t),
	}
}

// startServer serves cfg until the test ends.
func startServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("Close:", err)
		}
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
	})
	return s
}

func startClient(t *testing.T, s *Server) *Client {
	t.Helper()
	c, err := dialIn(t.Context(), []string{s.cfg.RuntimeDir}, s.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// outcomeSeen is a call of Finish.
type outcomeSeen struct {
	order     Order
	committed bool
	reason    string
}

// testAgent is a Handler. Its Checkpoint calls work, then writes an image.
type testAgent struct {
	work   func(ctx context.Context, m *Member, order Order) error
	finish func(outcomeSeen) error // nil: nothing
	check  []Refusal
	checks func(context.Context) ([]Refusal, error) // nil: check

	joined   chan struct{}
	member   *Member
	outcomes chan outcomeSeen
	signals  chan syscall.Signal
	active   sync.Mutex // held from Checkpoint to Finish
}

// startAgent joins an agent that leaves when the test ends.
func startAgent(t *testing.T, s *Server, h Hello, work func(context.Context, *Member, Order) error) *testAgent {
	t.Helper()
	a := &testAgent{work: work}
	a.join(t, s, h)
	return a
}

func (a *testAgent) join(t *testing.T, s *Server, h Hello) {
	t.Helper()
	a.joined = make(chan struct{})
	a.outcomes = make(chan outcomeSeen, 1000)
	a.signals = make(chan syscall.Signal, 10)
	m, err := Join(t.Context(), s.Addr(), h, a, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	a.member = m
	close(a.joined)
	t.Cleanup(func() {
		m.Close()
		<-m.Done()
	})
}

func (a *testAgent) Checkpoint(ctx context.Context, order Order) (AgentResult, error) {
	if !a.active.TryLock() {
		return AgentResult{}, errors.New("test: Checkpoint before Finish")
	}
	<-a.joined
	if a.work != nil {
		if err := a.work(ctx, a.member, order); err != nil {
			return AgentResult{}, err
		}
	}
	return writeImage(ctx, order.Dir)
}

// writeImage makes a real, empty image.
func writeImage(ctx context.Context, dir string) (AgentResult, error) {
	w, err := image.Create(dir, image.Options{Stripes: 1})
	if err != nil {
		return AgentResult{}, err
	}
	sum, err := w.Close(ctx)
	if err != nil {
		w.Abort()
		return AgentResult{}, err
	}
	return AgentResult{
		Files: sum.Files, Bytes: sum.Bytes, RawBytes: 10, Pause: 5 * time.Millisecond, Total: time.Second,
		Processes: 2, Threads: 3, Timings: []Timing{{"file", "save", time.Millisecond}},
	}, nil
}

func (a *testAgent) Finish(_ context.Context, order Order, committed bool, reason string) error {
	if a.active.TryLock() {
		reason = "test: Finish without Checkpoint"
	}
	a.active.Unlock()
	seen := outcomeSeen{order, committed, reason}
	a.outcomes <- seen
	if a.finish != nil {
		return a.finish(seen)
	}
	return nil
}

func (a *testAgent) Status(context.Context) (AgentStatus, error) {
	return AgentStatus{Processes: []ProcessStatus{{PID: 1, HostPID: 101, Threads: 3, State: "S", Command: "true"}}}, nil
}

func (a *testAgent) Check(ctx context.Context) ([]Refusal, error) {
	if a.checks != nil {
		return a.checks(ctx)
	}
	return a.check, nil
}

func (a *testAgent) Kill(_ context.Context, sig syscall.Signal) error {
	a.signals <- sig
	return nil
}

func hello(id string) Hello {
	return Hello{ID: id, Host: "h-" + id, PID: 42, Plugins: []PluginInfo{{Name: "file", State: 1, Barriers: []string{"drained"}}}}
}

// noGenerations checks that nothing was committed and nothing is left.
func noGenerations(t *testing.T, s *Server) {
	t.Helper()
	entries, err := os.ReadDir(s.cfg.Store.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			t.Errorf("%s is left in the store", entry.Name())
		}
	}
}

// alive checks that the server still answers.
func alive(t *testing.T, s *Server) Status {
	t.Helper()
	st, err := startClient(t, s).Status(t.Context())
	if err != nil {
		t.Fatal("the server does not answer:", err)
	}
	return st
}

func wantError(t *testing.T, err, is error, contains string) {
	t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), contains) {
		t.Fatalf("error is %v, want one that matches %q and contains %q", err, is, contains)
	}
}

// serveChild says "ready" when the coordinator is there.
func serveChild(dir string) error {
	store, err := image.OpenStore(dir, "job")
	if err != nil {
		return err
	}
	s, err := Listen(Config{Name: "job", Computation: testComputation, Store: store, Keep: 1, Log: zerolog.Nop(), RuntimeDir: dir})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return errors.Join(s.Close(), <-served)
}
