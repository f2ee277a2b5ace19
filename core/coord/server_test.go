package coord

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

// rawFrame is a frame with any payload.
func rawFrame(payload string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))) + payload
}

const helloCommand = `{"id":1,"method":"hello","body":{"protocol":1,"role":"command"}}`

func dialRaw(t *testing.T, s *Server) *net.UnixConn {
	t.Helper()
	nc, _, err := dialSocket(t.Context(), socketPath(s.cfg.RuntimeDir, s.Name()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

// TestNonsense sends what no peer of ours would, and expects to be dropped.
func TestNonsense(t *testing.T) {
	tests := []struct{ name, bytes string }{
		{"garbage", strings.Repeat("\xde\xad\xbe\xef", 1000)},
		{"http", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{"empty frame", "\x00\x00\x00\x00"},
		{"oversized", "\x01\x00\x00\x01" + "{"},
		{"no json", rawFrame("hello")},
		{"array", rawFrame("[1]")},
		{"two objects", rawFrame("{}{}")},
		{"deep", rawFrame(strings.Repeat("[", 1<<20))},
		{"neither id nor method", rawFrame("{}")},
		{"negative id", rawFrame(`{"id":-1,"method":"hello"}`)},
		{"request with error", rawFrame(`{"id":1,"method":"hello","error":{"text":"x"}}`)},
		{"no hello", rawFrame(`{"id":1,"method":"status"}`)},
		{"hello without body", rawFrame(`{"id":1,"method":"hello"}`)},
		{"hello as nobody", rawFrame(`{"id":1,"method":"hello","body":{"protocol":1,"role":"king"}}`)},
		{"hello as agent without one", rawFrame(`{"id":1,"method":"hello","body":{"protocol":1,"role":"agent"}}`)},
		{"reply to nothing", rawFrame(helloCommand) + rawFrame(`{"id":5,"body":{}}`)},
		{"bad body", rawFrame(helloCommand) + rawFrame(`{"id":2,"method":"kill","body":[]}`)},
		{"bad cancel", rawFrame(`{"method":"cancel","body":7}`)},
	}
	s := startServer(t, testConfig(t))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			nc := dialRaw(t, s)
			nc.Write([]byte(test.bytes)) // may fail half-way: that is the point
			// ECONNRESET where something was left unread, unix(7).
			if _, err := io.Copy(io.Discard, nc); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error("not dropped:", err)
			}
			alive(t, s)
		})
	}
}

// TestHalfOpen leaves connections open in every state of incompleteness.
func TestHalfOpen(t *testing.T) {
	s := startServer(t, testConfig(t))
	startAgent(t, s, hello("a"), nil)
	for range 10 {
		for _, begin := range []string{"", "\x00", "\x00\xff\xff\xff", "\x00\xff\xff\xff{\"id\":", rawFrame(helloCommand) + "\x00\x00"} {
			if _, err := dialRaw(t, s).Write([]byte(begin)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A peer that asks and never reads.
	deaf := dialRaw(t, s)
	fmt.Fprint(deaf, rawFrame(helloCommand))
	for id := range maxServing / 2 {
		fmt.Fprint(deaf, rawFrame(fmt.Sprintf(`{"id":%d,"method":"status","body":{}}`, id+2)))
	}
	if _, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestTooMany opens more connections than are served.
func TestTooMany(t *testing.T) {
	s := startServer(t, testConfig(t))
	open := make([]*net.UnixConn, 0, maxConns)
	for range maxConns {
		open = append(open, dialRaw(t, s))
	}
	if n, err := dialRaw(t, s).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one more than %d was not closed", maxConns)
	}
	for _, nc := range open {
		nc.Close()
	}
	for { // until the server has seen it
		c, err := connect(t.Context(), s.cfg.RuntimeDir, s.Name())
		if err == nil {
			c.Close()
			break
		}
	}
}

func TestHelloRefused(t *testing.T) {
	s := startServer(t, testConfig(t))
	startAgent(t, s, hello("a"), nil)
	tests := []struct{ name, body, want string }{
		{"version", `{"protocol":2,"role":"command"}`, "speaks protocol 1, the peer 2"},
		{"same id", `{"protocol":1,"role":"agent","agent":{"id":"a"}}`, "is taken by another agent"},
		{"path as id", `{"protocol":1,"role":"agent","agent":{"id":"../a"}}`, "agent id"},
		{"other computation", `{"protocol":1,"role":"agent","agent":{"computation":"0"}}`, "another computation"},
		{"restart", `{"protocol":1,"role":"agent","agent":{"restart":1}}`, "no restart is in progress"},
		{"plugins", `{"protocol":1,"role":"agent","agent":{}}`, "agents differ: a and 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			nc := dialRaw(t, s)
			fmt.Fprint(nc, rawFrame(`{"id":1,"method":"hello","body":`+test.body+`}`))
			e, err := readFrame(nc)
			if err != nil || e.Error == nil || !strings.Contains(e.Error.Text, test.want) {
				t.Errorf("reply %+v, error %v", e, err)
			}
		})
	}
	_, err := Join(t.Context(), s.Addr(), hello("a"), &testAgent{}, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "is taken by another agent") {
		t.Errorf("Join: %v", err)
	}
	if _, err := Join(t.Context(), "tcp:localhost", hello("b"), &testAgent{}, zerolog.Nop()); err == nil {
		t.Error("joined over an unknown network")
	}
}

// knock connects to path and says what the other end does.
func knock(path string) string {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return "not connected: " + err.Error()
	}
	defer nc.Close()
	fmt.Fprint(nc, rawFrame(helloCommand))
	if _, err := readFrame(nc); err != nil {
		return "dropped"
	}
	return "welcome"
}

func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a child as another user")
	}
	const other = 65534
	// The binary and the socket are opened to everybody, so that only the
	// credentials stand in the way.
	dir := shortDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(dir, "child")
	if err := errors.Join(os.WriteFile(child, binary, 0o755), os.Chmod(child, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	s := startServer(t, cfg)
	path := socketPath(cfg.RuntimeDir, s.Name())
	run := func(uid uint32) string {
		t.Helper()
		cmd := exec.Command(child)
		cmd.Dir = "/"
		cmd.Env = []string{childSocket + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := run(other); !strings.HasPrefix(got, "not connected") {
		t.Errorf("private directory: uid %d: %s", other, got)
	}
	if err := errors.Join(os.Chmod(cfg.RuntimeDir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	if got := run(other); got != "dropped" {
		t.Errorf("open directory: uid %d: %s", other, got)
	}
	if got := run(0); got != "welcome" {
		t.Errorf("uid 0: %s", got)
	}
	alive(t, s)
}

func TestCloseGivesUp(t *testing.T) {
	s := startServer(t, testConfig(t))
	closed := make(chan error)
	a := startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
		go func() { closed <- s.Close() }()
		<-ctx.Done()
		return context.Cause(ctx)
	})
	_, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrClosed, "checkpoint 1: given up: the coordinator is closing")
	wantError(t, err, ErrGivenUp, "")
	if got := <-a.outcomes; got.committed || !strings.Contains(got.reason, "closing") {
		t.Errorf("Finish was told %+v", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	<-a.member.Done()
	_, err = s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	wantError(t, err, ErrClosed, "")
	noGenerations(t, s)
	entries, err := os.ReadDir(s.cfg.RuntimeDir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the runtime directory: %v, %v", entries, err)
	}
}

// TestCloseAfterCommit closes the server as an agent does whose tree has been
// ended: the command still reads its result.
func TestCloseAfterCommit(t *testing.T) {
	s := startServer(t, testConfig(t))
	closed := make(chan error, 1)
	a := &testAgent{finish: func(outcomeSeen) error {
		go func() { closed <- s.Close() }()
		return nil
	}}
	a.join(t, s, hello("a"))
	r, err := startClient(t, s).Checkpoint(t.Context(), CheckpointRequest{Kill: true}, nil)
	if err != nil || r.Generation != 1 {
		t.Errorf("result %+v, error %v", r, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestCoordinatorLost ends the coordinator's side of the connection while the
// agent waits at a barrier, and between Checkpoint and Finish.
func TestCoordinatorLost(t *testing.T) {
	tests := []struct {
		name string
		wait bool // at a barrier, which b does not come to
	}{{"in a barrier", true}, {"before the outcome", false}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := startServer(t, testConfig(t))
			a := startAgent(t, s, hello("a"), func(ctx context.Context, m *Member, o Order) error {
				if !test.wait {
					return nil
				}
				err := m.Barrier(ctx, o.Generation, "suspended")
				if !errors.Is(err, ErrGivenUp) {
					t.Errorf("Barrier: %v", err)
				}
				return err
			})
			startAgent(t, s, hello("b"), func(ctx context.Context, _ *Member, _ Order) error {
				s.mu.Lock()
				x, m := s.session, s.members["a"]
				s.mu.Unlock()
				want := "has finished"
				if test.wait {
					want = "waits"
				}
				for !strings.Contains(x.place(), "agent a "+want) {
					alive(t, s)
				}
				m.conn.nc.Close()
				<-ctx.Done()
				return context.Cause(ctx)
			})
			_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
			wantError(t, err, ErrGivenUp, "agent a: connection lost")
			<-a.member.Done()
			if got := <-a.outcomes; got.committed || !strings.Contains(got.reason, "lost") {
				t.Errorf("Finish was told %+v", got)
			}
			if len(a.outcomes) != 0 {
				t.Errorf("Finish was called again: %+v", <-a.outcomes)
			}
		})
	}
}

func TestDial(t *testing.T) {
	cfg := testConfig(t)
	_, err := dialIn(t.Context(), []string{cfg.RuntimeDir}, "")
	wantError(t, err, ErrNotRunning, "none is")
	_, err = dialIn(t.Context(), []string{cfg.RuntimeDir}, "job")
	wantError(t, err, ErrNotRunning, `"job"`)
	startServer(t, cfg)
	c, err := dialIn(t.Context(), []string{cfg.RuntimeDir}, "")
	if err != nil || c.Name() != "job" {
		t.Fatal(c, err)
	}
	c.Close()
	cfg.Name = "other"
	startServer(t, cfg)
	_, err = dialIn(t.Context(), []string{cfg.RuntimeDir}, "")
	if err == nil || !strings.Contains(err.Error(), "job, other") {
		t.Errorf("error is %v", err)
	}
	_, err = dialIn(t.Context(), []string{cfg.RuntimeDir}, "third")
	wantError(t, err, ErrNotRunning, "job, other")
}

func TestListRunning(t *testing.T) {
	cfg := testConfig(t)
	startServer(t, cfg)
	cfg.Name = "silent"
	silent, err := Listen(cfg) // never serves
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		// The first to be asked answers; the second leaves us waiting.
		alive := false
		for !alive {
			nc, err := silent.ln.AcceptUnix()
			if err != nil {
				break
			}
			defer nc.Close()
			alive = true
		}
		cancel()
	}()
	list, err := listIn(ctx, []string{cfg.RuntimeDir})
	if err != nil || len(list) != 2 {
		t.Fatalf("list %+v, error %v", list, err)
	}
	if list[1].Name != "silent" || list[1].State != StateUnreachable || list[1].LastError == "" {
		t.Errorf("silent is %+v", list[1])
	}
	list, err = listIn(t.Context(), []string{shortDir(t)})
	if err != nil || len(list) != 0 {
		t.Errorf("empty directory: %+v, %v", list, err)
	}
}

// die leaves what a killed coordinator leaves: the kernel closes its files.
func die(s *Server) {
	s.ln.Close()
	s.slot.lock.Close()
}

// TestLockFileGone removes the lock file of a computation that runs: it is listed,
// and its name taken, also when there is a new file that nobody has locked.
func TestLockFileGone(t *testing.T) {
	cfg := testConfig(t)
	s := startServer(t, cfg)
	lock := lockPath(cfg.RuntimeDir, s.Name())
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if names, err := running(cfg.RuntimeDir); err != nil || !slices.Equal(names, []string{"job"}) {
			t.Fatalf("running: %q, %v", names, err)
		}
		if _, err := Listen(cfg); !errors.Is(err, ErrNameTaken) {
			t.Fatalf("the name was not taken: %v", err)
		}
		if err := os.WriteFile(lock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startClient(t, s)
}

func TestStale(t *testing.T) {
	cfg := testConfig(t)
	left := func() int {
		entries, err := os.ReadDir(cfg.RuntimeDir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	listen := func() *Server {
		s, err := Listen(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	die(listen())
	if left() != 2 {
		t.Fatal("the test leaves nothing")
	}
	list, err := listIn(t.Context(), []string{cfg.RuntimeDir})
	if err != nil || len(list) != 0 || left() != 0 {
		t.Errorf("list %+v, error %v, %d files left", list, err, left())
	}
	die(listen())
	if err := os.Remove(lockPath(cfg.RuntimeDir, cfg.Name)); err != nil {
		t.Fatal(err)
	}
	if _, err := running(cfg.RuntimeDir); err != nil || left() != 0 {
		t.Errorf("socket without lock: %v, %d files left", err, left())
	}
	die(listen())
	s := startServer(t, cfg) // takes the name over
	if s.Name() != cfg.Name {
		t.Errorf("name is %q", s.Name())
	}
	alive(t, s)
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "job-1.x_y+z": true, strings.Repeat("x", maxName): true,
		"": false, ".": false, "..": false, "-x": false, ".x": false, "a/b": false, "a b": false, "ä": false,
		"a\x00": false, "a\n": false, strings.Repeat("x", maxName+1): false,
	} {
		if err := checkName("name", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	cfg := testConfig(t)
	cfg.RuntimeDir = filepath.Join(shortDir(t), strings.Repeat("d", 100))
	if err := os.Mkdir(cfg.RuntimeDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(cfg); err == nil || !strings.Contains(err.Error(), "unix(7) allows") {
		t.Errorf("long path: %v", err)
	}
	entries, err := os.ReadDir(cfg.RuntimeDir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the runtime directory: %v, %v", entries, err)
	}
}

// TestLongNames makes the longest name unique.
func TestLongNames(t *testing.T) {
	cfg := testConfig(t)
	cfg.Name, cfg.Unique = strings.Repeat("x", maxName), true
	startServer(t, cfg)
	s := startServer(t, cfg)
	if want := cfg.Name[:maxName-2] + "-2"; s.Name() != want {
		t.Errorf("name is %q, want %q", s.Name(), want)
	}
	if names, err := running(cfg.RuntimeDir); err != nil || len(names) != 2 {
		t.Errorf("running: %q, %v", names, err)
	}
	cfg.Name = "a/b"
	if _, err := Listen(cfg); err == nil {
		t.Error("a name with a slash was taken")
	}
}

// TestServeContext ends Serve, and with it the server, by its context.
func TestServeContext(t *testing.T) {
	cfg := testConfig(t)
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
	if names, err := running(cfg.RuntimeDir); err != nil || len(names) != 0 {
		t.Errorf("running: %q, %v", names, err)
	}
}

func TestPassing(t *testing.T) {
	accept := func(err error) error { return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)} }
	if !passing(accept(syscall.EMFILE)) || passing(accept(syscall.EINVAL)) {
		t.Error("EMFILE must pass, EINVAL must not")
	}
}

// TestUnknownMethod is answered, in every role: a newer peer may try one.
func TestUnknownMethod(t *testing.T) {
	s := startServer(t, testConfig(t))
	a := startAgent(t, s, hello("a"), nil)
	s.mu.Lock()
	m := s.members["a"]
	s.mu.Unlock()
	for name, c := range map[string]*conn{"command": startClient(t, s).conn, "agent": a.member.conn, "server": m.conn} {
		wantError(t, c.call(t.Context(), "from-the-future", nothing{}, nil), errors.ErrUnsupported, name[:0])
	}
}

// TestNameRace claims one name from many goroutines, while others look around.
func TestNameRace(t *testing.T) {
	for _, unique := range []bool{true, false} {
		t.Run(fmt.Sprintf("unique=%v", unique), func(t *testing.T) {
			const racers = 20
			cfg := testConfig(t)
			cfg.Unique = unique
			servers, errs := make([]*Server, racers), make([]error, racers)
			var wg sync.WaitGroup
			for i := range racers {
				wg.Go(func() { servers[i], errs[i] = Listen(cfg) })
				wg.Go(func() {
					if _, err := running(cfg.RuntimeDir); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			names := make(map[string]bool)
			for i, s := range servers {
				if s == nil {
					wantError(t, errs[i], ErrNameTaken, `"job"`)
					continue
				}
				names[s.Name()] = true
				defer s.Close()
			}
			want := 1
			if unique {
				want = racers
			}
			if len(names) != want || !names["job"] || unique && !names[fmt.Sprintf("job-%d", racers)] {
				t.Errorf("names are %v", names)
			}
		})
	}
}
