package coord

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHardUmask looks at the modes of all that a claimed name makes.
func TestHardUmask(t *testing.T) {
	dir := filepath.Join(shortDir(t), "run")
	defer unix.Umask(unix.Umask(0o777))
	if err := makePrivate(dir, os.Geteuid()); err != nil {
		t.Fatal(err)
	}
	s, ln, err := claim(dir, "job", false)
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
