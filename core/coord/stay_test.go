package coord

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestStay: a computation can be found again where its socket was removed.
func TestStay(t *testing.T) {
	for name, tc := range map[string]struct {
		remove func(dir string) error
		moves  bool
	}{
		"socket": {func(dir string) error { return os.Remove(socketPath(dir, "job")) }, false},
		"socket and lock": {func(dir string) error {
			return errors.Join(os.Remove(lockPath(dir, "job")), os.Remove(socketPath(dir, "job")))
		}, false},
		"directory": {os.RemoveAll, false},
		"session":   {func(dir string) error { return os.RemoveAll(filepath.Dir(dir)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.RuntimeDir = filepath.Join(cfg.RuntimeDir, "hiatus")
			if err := os.Mkdir(cfg.RuntimeDir, 0o700); err != nil {
				t.Fatal(err)
			}
			cfg.lasting, cfg.stayEach = filepath.Join(shortDir(t), "lasting"), time.Millisecond
			s := startServer(t, cfg)
			before := startClient(t, s)
			for range 2 { // the second is watched too
				slot, _ := s.listening()
				remove, dir := tc.remove, slot.dir
				if tc.moves {
					dir = cfg.lasting
				}
				if slot.dir == cfg.lasting {
					remove = os.RemoveAll
				}
				if err := remove(slot.dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) { // it is back already
					t.Fatal(err)
				}
				eventually(t, func() bool {
					c, err := dialIn(t.Context(), []string{dir}, "job")
					if err == nil {
						defer c.Close()
						_, err = c.Status(t.Context())
					}
					return err == nil
				})
				if got := s.Addr(); got != unixScheme+socketPath(dir, "job") {
					t.Errorf("address %s", got)
				}
			}
			if _, err := before.Status(t.Context()); err != nil {
				t.Errorf("a connection that was there: %v", err)
			}
			slot, _ := s.listening()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(slot.dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestStayCloses: a server ends that is about to make its socket again.
func TestStayCloses(t *testing.T) {
	for range 200 {
		cfg := testConfig(t)
		cfg.lasting, cfg.stayEach = filepath.Join(cfg.RuntimeDir, "lasting"), time.Microsecond
		s, err := Listen(cfg)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context()) }()
		slot, _ := s.listening()
		if err := os.Remove(socketPath(slot.dir, "job")); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
		for _, dir := range []string{cfg.RuntimeDir, cfg.lasting} {
			if names, err := running(dir); err == nil && len(names) > 0 {
				t.Errorf("left: %v", names)
			}
		}
	}
}

// TestStayOthers: what has taken the place of a socket that was removed is another's.
func TestStayOthers(t *testing.T) {
	first := testConfig(t)
	first.lasting = filepath.Join(shortDir(t), "lasting")
	s, err := Listen(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(lockPath(first.RuntimeDir, "job")), os.Remove(socketPath(first.RuntimeDir, "job"))); err != nil {
		t.Fatal(err)
	}
	second := testConfig(t)
	second.RuntimeDir = first.RuntimeDir
	other := startServer(t, second)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := startClient(t, other).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// eventually waits for what no event tells the test.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// TestTwoPlaces: commands find computations of the session and those outside of it, whose names are taken.
func TestTwoPlaces(t *testing.T) {
	first, second := testConfig(t), testConfig(t)
	second.Name = "other"
	dirs := []string{first.RuntimeDir, second.RuntimeDir}
	startServer(t, first)
	startServer(t, second)
	list, err := listIn(t.Context(), dirs)
	if err != nil || len(list) != 2 || list[0].Name != "job" || list[1].Name != "other" {
		t.Errorf("list %v, %v", list, err)
	}
	for _, name := range []string{"job", "other"} {
		if c, err := dialIn(t.Context(), dirs, name); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	}
	third := testConfig(t)
	third.elsewhere = dirs
	if _, err := Listen(third); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a name of another place: %v", err)
	}
	third.Unique = true
	if s := startServer(t, third); s.Name() != "job-2" {
		t.Errorf("name %s", s.Name())
	}

	fourth := testConfig(t) // at the same moment as the first
	startServer(t, fourth)
	if _, err := dialIn(t.Context(), []string{first.RuntimeDir, fourth.RuntimeDir}, "job"); err == nil {
		t.Error("one of two with the same name was chosen")
	}
}

func TestRuntimeDirs(t *testing.T) {
	uid, root := os.Geteuid(), t.TempDir()
	session, own, tmp := filepath.Join(root, "session"), filepath.Join(root, "own"), filepath.Join(root, "tmp")
	for _, dir := range []string{session, own, tmp, filepath.Join(session, "hiatus")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		xdg  string
		want []string
	}{
		{session, []string{filepath.Join(session, "hiatus")}}, // the other one is not there, and not made
		{own, []string{filepath.Join(own, "hiatus")}},
		{"", []string{lastingDir(tmp, uid), filepath.Join(session, "hiatus")}},
		{session, []string{filepath.Join(session, "hiatus"), lastingDir(tmp, uid)}},
		{own, []string{filepath.Join(own, "hiatus")}},
	} {
		got, err := runtimeDirsOf(tc.xdg, session, tmp, uid)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%q: %v, %v; want %v", tc.xdg, got, err, tc.want)
		}
	}
}
