package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// ordinaryUser is made by test/setup.sh.
const ordinaryUser = "hiatus-test"

// suite is what all tests share: the programs that it built, and who runs
// them. Nothing of it changes after newSuite.
type suite struct {
	dir        string // readable by everybody
	fixtures   string // sources, readable by everybody
	identities []identity
	strict     bool
	built      bool // by an earlier run, maybe on another machine: HIATUS_E2E_DIR
}

// identity is a user who runs programs.
type identity struct {
	name     string // as tests are called: "root" or "user"
	login    string
	home     string
	uid, gid int
	switched bool // not the user who runs the tests
}

// sysProcAttr starts a process as the identity, in a session of its own.
func (id identity) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if id.switched {
		attr.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	}
	return attr
}

// newSuite builds hiatus.
func newSuite(t *testing.T) *suite {
	s := &suite{strict: os.Getenv("HIATUS_E2E_STRICT") == "1"}
	s.findIdentities(t)
	if s.dir = os.Getenv("HIATUS_E2E_DIR"); s.dir == "" {
		s.dir = tempDir(t, 0o755)
	} else if _, err := os.Stat(s.hiatus()); err == nil {
		s.built = true
	}
	s.fixtures = filepath.Join(s.dir, "fixtures")
	if s.built {
		return s
	}
	if err := os.CopyFS(s.fixtures, os.DirFS("../fixtures")); err != nil {
		t.Fatalf("copy the fixtures: %v", err)
	}
	if err := readable(s.fixtures); err != nil {
		t.Fatalf("make the fixtures readable: %v", err)
	}
	command := []string{"go", "build", "-o", s.hiatus(), "../../cmd/hiatus"}
	if binary := os.Getenv("HIATUS_E2E_BINARY"); binary != "" {
		command = []string{"install", "-m", "0755", binary, s.hiatus()}
	}
	if err := buildOne(command); err != nil {
		t.Fatal(err)
	}
	return s
}

// tempDir makes a directory with a short name, for UNIX sockets have short
// paths (unix(7): 108 bytes).
func tempDir(t *testing.T, mode fs.FileMode) string {
	dir, err := os.MkdirTemp("/tmp", "ht-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readable lets everybody read what is in dir.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// findIdentities decides who runs the programs.
func (s *suite) findIdentities(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	own := newIdentity(t, "root", me, false)
	if own.uid != 0 {
		own.name = "user"
		t.Logf("run by %s, not by root: only as this user", me.Username)
		s.identities = []identity{own}
		return
	}
	s.identities = []identity{own}
	other, err := user.Lookup(ordinaryUser)
	if err != nil {
		s.lacks(t, fmt.Sprintf("user %s (test/setup.sh makes it): only as root", ordinaryUser))
		return
	}
	s.identities = append(s.identities, newIdentity(t, "user", other, true))
}

// faultIdentities are those under whom things go wrong, or memory comes late: the ordinary user, who
// may do less than root; in make faults both.
func (s *suite) faultIdentities() []identity {
	if os.Getenv("HIATUS_E2E_FAULTS") == "all" {
		return s.identities
	}
	return s.identities[len(s.identities)-1:]
}

func newIdentity(t *testing.T, name string, u *user.User, switched bool) identity {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatalf("uid of %s: %v", u.Username, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatalf("gid of %s: %v", u.Username, err)
	}
	return identity{name: name, login: u.Username, home: u.HomeDir, uid: uid, gid: gid, switched: switched}
}

// lacks reports what the host does not have: a failure where everything must
// be there.
func (s *suite) lacks(t *testing.T, what string) {
	if s.strict {
		t.Errorf("missing: %s", what)
	} else {
		t.Logf("missing: %s", what)
	}
}

// has says whether the commands are there; else the test is skipped, or fails
// where everything must be there.
func (s *suite) require(t *testing.T, commands ...string) {
	for _, c := range commands {
		if s.built && c == "gcc" {
			continue
		}
		if _, err := lookPath(c); err != nil {
			if s.strict {
				t.Fatalf("missing: %s (test/setup.sh installs it)", c)
			}
			t.Skipf("missing: %s", c)
		}
	}
}

// hiatus is the path of the command under test.
func (s *suite) hiatus() string { return filepath.Join(s.dir, "hiatus") }

// fixture is the path of a fixture that was built.
func (s *suite) fixture(name string) string { return filepath.Join(s.dir, name) }

// source is the path of a fixture's source.
func (s *suite) source(name string) string { return filepath.Join(s.fixtures, name) }

// buildFixtures builds the compiled fixtures, a few at a time.
func (s *suite) buildFixtures(t *testing.T) {
	if s.built {
		return
	}
	commands := [][]string{{"go", "build", "-o", s.fixture("goroutines"), "../fixtures/goroutines"}}
	if _, err := lookPath("javac"); err == nil {
		commands = append(commands, []string{"javac", "-d", s.fixture("java"), s.source("Threads.java")})
	}
	sources, err := filepath.Glob(filepath.Join(s.fixtures, "*.c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range sources {
		name := strings.TrimSuffix(filepath.Base(c), ".c")
		commands = append(commands, []string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-fopenmp",
			"-o", s.fixture(name), c, "-lrt"})
	}
	other := os.Getenv("GOARCH")
	for _, kind := range []string{"mpich", "openmpi"} {
		if other != "" && other != runtime.GOARCH {
			break // their libraries are of the host
		}
		if _, err := lookPath("mpicc." + kind); err == nil {
			commands = append(commands, []string{"mpicc." + kind, "-O1", "-Wall", "-o", s.fixture("ring." + kind), s.source("mpi/ring.c")})
		}
	}
	errs := make([]error, len(commands))
	slots := make(chan struct{}, 3)
	var all sync.WaitGroup
	for i, c := range commands {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = buildOne(c)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func buildOne(command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}
