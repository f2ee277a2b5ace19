package coord

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestRuntimeDir(t *testing.T) {
	uid := os.Geteuid()
	fallback := "hiatus-" + strconv.Itoa(uid)
	// make prepares the place; xdg and tmp are directories of its own.
	tests := []struct {
		name  string
		make  func(xdg, tmp string) error
		unset bool
		want  string // below the test's directory
		err   string
	}{
		{name: "made", want: "xdg/hiatus"},
		{name: "there", make: func(xdg, _ string) error { return os.Mkdir(filepath.Join(xdg, "hiatus"), 0o700) }, want: "xdg/hiatus"},
		{name: "unset", unset: true, want: "tmp/" + fallback},
		{name: "missing base", make: func(xdg, _ string) error { return os.Remove(xdg) }, want: "tmp/" + fallback},
		{name: "base is a file", make: func(xdg, _ string) error {
			return errors.Join(os.Remove(xdg), os.WriteFile(xdg, nil, 0o600))
		}, want: "tmp/" + fallback},
		{name: "open to the group", make: func(xdg, _ string) error {
			dir := filepath.Join(xdg, "hiatus")
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o750))
		}, err: "mode 0750 lets others in"},
		{name: "a symbolic link", make: func(xdg, tmp string) error {
			return os.Symlink(tmp, filepath.Join(xdg, "hiatus"))
		}, err: "symbolic link"},
		{name: "a link to nothing", make: func(xdg, tmp string) error {
			return os.Symlink("/nonexistent", filepath.Join(xdg, "hiatus"))
		}, err: "symbolic link"},
		{name: "a file", make: func(xdg, _ string) error {
			return os.WriteFile(filepath.Join(xdg, "hiatus"), nil, 0o600)
		}, err: "not a directory"},
		{name: "fallback is a symbolic link", unset: true, make: func(xdg, tmp string) error {
			return os.Symlink(xdg, filepath.Join(tmp, fallback))
		}, err: "symbolic link"},
		{name: "fallback open to all", unset: true, make: func(_, tmp string) error {
			dir := filepath.Join(tmp, fallback)
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
		}, err: "mode 0777 lets others in"},
		{name: "no fallback", unset: true, make: func(_, tmp string) error { return os.Remove(tmp) }, err: "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			xdg, tmp := filepath.Join(root, "xdg"), filepath.Join(root, "tmp")
			if err := errors.Join(os.Mkdir(xdg, 0o700), os.Mkdir(tmp, 0o700)); err != nil {
				t.Fatal(err)
			}
			if test.make != nil {
				if err := test.make(xdg, tmp); err != nil {
					t.Fatal(err)
				}
			}
			if test.unset {
				xdg = ""
			}
			checkRuntimeDir(t, root, xdg, tmp, uid, test.want, test.err)
		})
	}
}

func checkRuntimeDir(t *testing.T, root, xdg, tmp string, uid int, want, wantErr string) {
	t.Helper()
	got, err := runtimeDir(xdg, tmp, uid)
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("got %q, error %v, want an error with %q", got, err, wantErr)
		}
		return
	}
	if err != nil || got != filepath.Join(root, want) {
		t.Fatalf("got %q, error %v, want %q", got, err, want)
	}
	if info, err := os.Lstat(got); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

// TestRuntimeDirOwner makes directories of another user.
func TestRuntimeDirOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	const other = 65534
	root := t.TempDir()
	xdg, tmp := filepath.Join(root, "xdg"), filepath.Join(root, "tmp")
	if err := errors.Join(os.Mkdir(xdg, 0o700), os.Mkdir(tmp, 0o700), os.Chown(xdg, other, other)); err != nil {
		t.Fatal(err)
	}
	checkRuntimeDir(t, root, xdg, tmp, 0, "tmp/hiatus-0", "")
	checkRuntimeDir(t, root, "relative", tmp, 0, "tmp/hiatus-0", "")
	if err := os.Chown(filepath.Join(tmp, "hiatus-0"), other, other); err != nil {
		t.Fatal(err)
	}
	checkRuntimeDir(t, root, xdg, tmp, 0, "", "belongs to uid 65534, want 0")
}

// TestRuntimeDirEnvironment is the exported function.
func TestRuntimeDirEnvironment(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if got, err := RuntimeDir(); err != nil || got != filepath.Join(dir, "hiatus") {
		t.Errorf("RuntimeDir: %q, %v", got, err)
	}
	cfg := testConfig(t)
	cfg.RuntimeDir = ""
	startServer(t, cfg)
	c, err := Dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if list, err := ListRunning(t.Context()); err != nil || len(list) != 1 || list[0].Name != "job" {
		t.Errorf("ListRunning: %+v, %v", list, err)
	}
}
