package coord

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
)

// TestHardUmask looks at the modes of all that a claimed name makes.
func TestHardUmask(t *testing.T) {
	dir := filepath.Join(shortDir(t), "run")
	defer unix.Umask(unix.Umask(0o777))
	if err := makePrivate(dir, os.Geteuid()); err != nil {
		t.Fatal(err)
	}
	s, ln, err := claim(dir, "job", false, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	defer ln.Close()
	for path, want := range map[string]fs.FileMode{dir: 0o700, lockPath(dir, "job"): 0o600, socketPath(dir, "job"): 0o600} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != want {
			t.Errorf("%s has mode %v, want %v", path, mode, want)
		}
	}
	if names, err := running(dir); err != nil || len(names) != 1 {
		t.Errorf("running: %q, %v", names, err)
	}
}

// TestOccupied claims names in whose place in the directory of images something
// else is: a number is added, or the claim fails, and leaves nothing.
func TestOccupied(t *testing.T) {
	cfg, ckpt := testConfig(t), t.TempDir()
	cfg.OpenStore = func(name string) (*image.Store, error) {
		store, err := image.OpenStore(ckpt, name)
		if err != nil {
			return nil, err
		}
		return store, store.Check()
	}
	if err := os.WriteFile(filepath.Join(ckpt, "job"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(ckpt, "job-2")); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(cfg); !occupied(err) {
		t.Errorf("error is %v, want one of the store", err)
	}
	if entries, err := os.ReadDir(cfg.RuntimeDir); err != nil || len(entries) != 0 {
		t.Errorf("left %v, error %v", entries, err)
	}
	cfg.Unique = true
	s := startServer(t, cfg)
	if s.Name() != "job-3" || s.cfg.Store.Path() != filepath.Join(ckpt, "job-3") {
		t.Errorf("name %q, store %s", s.Name(), s.cfg.Store.Path())
	}
}
