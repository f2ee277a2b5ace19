package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/internal/private"
)

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
	}
}

func TestHardUmask(t *testing.T) {
	dir := t.TempDir()
	there, log := filepath.Join(dir, "there"), filepath.Join(dir, "log")
	if err := errors.Join(os.Mkdir(there, 0), os.Chmod(there, 0o750), os.WriteFile(log, nil, 0), os.Chmod(log, 0o640)); err != nil {
		t.Fatal(err)
	}
	defer unix.Umask(unix.Umask(0o777))
	if err := errors.Join(private.MakeDirs(filepath.Join(there, "a/b")), private.MakeDirs(there)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{log, filepath.Join(there, "a/new")} {
		f, err := appendTo(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	wantMode(t, filepath.Join(there, "a"), 0o700)
	wantMode(t, filepath.Join(there, "a/b"), 0o700)
	wantMode(t, filepath.Join(there, "a/new"), 0o600)
	wantMode(t, there, 0o750) // was there
	wantMode(t, log, 0o640)
	if _, err := appendTo(log, os.O_EXCL); !errors.Is(err, os.ErrExist) {
		t.Errorf("O_EXCL: %v", err)
	}
	if err := private.MakeDirs(filepath.Join(log, "x")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}

// TestNotUTF8 has nothing made where a path is not UTF-8.
func TestNotUTF8(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad\xff")
	good := t.TempDir()
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir string
		args      []string
		want      string // the path
	}{
		{"ckptdir", good, []string{"launch", "--log-file", "log", "--ckptdir", bad + "/ck", "sh"}, bad + "/ck"},
		{"working directory", bad, []string{"launch", "--log-file", "log", "sh"}, bad},
		{"images elsewhere", bad, []string{"launch", "--log-file", "log", "--ckptdir", good, "sh"}, bad},
		{"join", bad, []string{"launch", "--log-file", "log", "--join", "sim", "sh"}, bad},
		{"restart", good, []string{"restart", "--log-file", "log", bad}, bad},
		{"restart here", bad, []string{"restart", "--log-file", "log"}, bad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			t.Chdir(tt.dir)
			var out, errs strings.Builder
			code := run(fakeEngine(), tt.args, os.Stdin, &out, &errs)
			if want := strconv.Quote(tt.want) + ": the path is not UTF-8\n"; code != exitOwn || !strings.HasSuffix(errs.String(), want) {
				t.Errorf("code %d, stderr %q, want %q", code, errs.String(), want)
			}
			for _, dir := range []string{bad, good} {
				if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
					t.Errorf("made %v, error %v", made, err)
				}
			}
		})
	}
}

// TestOutputFile opens the output file of a detached program where others have been
// before: a derived name gets a number, and no link is followed.
func TestOutputFile(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Symlink(t.TempDir(), filepath.Join(dir, "job-2")), os.Mkdir(filepath.Join(dir, "own"), 0o700),
		os.Symlink(victim, filepath.Join(dir, "own", "output.log"))); err != nil {
		t.Fatal(err)
	}
	a := &app{engine: fakeEngine()}
	if got := a.freeName(t.Context(), dir, "victim"); got != "victim-2" {
		t.Errorf("free name %q, want victim-2", got)
	}
	for name, want := range map[string]string{"victim": "not a folder", "job-2": "is a symbolic link", "own": "too many levels of symbolic links"} {
		f, err := outputFile(core.Options{Dir: dir, Name: name}, "output.log", 0)
		if err == nil {
			f.Close()
			t.Errorf("%s: opened %s", name, f.Name())
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	f, err := outputFile(core.Options{Dir: filepath.Join(dir, "new"), Name: "job"}, "output.log", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
