package wasm

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cacheUsers are the processes that compile at once.
const cacheUsers = 5

// Environment of a test binary that is one of them.
const (
	envCache  = "HIATUS_TEST_CACHE"  // the directory
	envGuests = "HIATUS_TEST_GUESTS" // a list of paths
)

// TestCacheUser is one of the processes of TestCacheIsShared: it waits for the
// end of its standard input, and compiles.
func TestCacheUser(t *testing.T) {
	dir := os.Getenv(envCache)
	if dir == "" {
		return // a part of TestCacheIsShared
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Fatal(err)
	}
	for _, path := range filepath.SplitList(os.Getenv(envGuests)) {
		_, err := loadModule(t, Config{Path: path, CacheDir: dir, Warning: t.Errorf})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestCacheIsShared: processes that begin at the same moment, with a cache that
// is not there yet, all load all guests, and leave a cache that is whole, also
// where some of them are killed.
func TestCacheIsShared(t *testing.T) {
	var guests []string
	for i := range 3 {
		guests = append(guests, assemble(t, guest("", "", strings.Repeat("(drop (i32.const "+itoa(i)+"))", 2000))))
	}
	for _, tt := range []struct {
		name string
		kill bool
	}{{"all to the end", false}, {"one is killed", true}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache", "hiatus")
			compileAtOnce(t, dir, guests, tt.kill)
			entries := cacheEntries(t, dir)
			if len(entries) != len(guests) {
				t.Errorf("%d entries, want %d", len(entries), len(guests))
			}
			for _, path := range guests {
				if _, err := loadModule(t, Config{Path: path, CacheDir: dir, Warning: t.Errorf}); err != nil {
					t.Error(err)
				}
			}
			if !maps.Equal(cacheEntries(t, dir), entries) {
				t.Error("an entry was not usable: it was written again")
			}
		})
	}
}

// compileAtOnce runs the processes. With kill, the first is killed when the
// first file is there.
func compileAtOnce(t *testing.T, dir string, guests []string, kill bool) {
	t.Helper()
	gate, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	users, said := make([]*exec.Cmd, cacheUsers), make([]bytes.Buffer, cacheUsers)
	for i := range users {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCacheUser$")
		cmd.Env = append(os.Environ(), envCache+"="+dir, envGuests+"="+strings.Join(guests, string(filepath.ListSeparator)))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = gate, &said[i], &said[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		users[i] = cmd
	}
	open.Close()
	if kill {
		for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(time.Millisecond) {
			if found, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(found) > 0 { // a valid pattern
				break
			}
		}
		_ = users[0].Process.Kill() // it may have ended
	}
	for i, cmd := range users {
		if err := cmd.Wait(); err != nil && !(kill && i == 0) {
			t.Errorf("process %d: %v\n%s", i, err, &said[i])
		}
	}
}

// cacheEntries returns the files of the cache that are complete, with their
// times: a second writer renames a file of its own over the first one's.
func cacheEntries(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]int64{}
	for _, path := range paths {
		if strings.HasSuffix(path, ".tmp") { // of one that was killed
			continue
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		entries[path] = st.ModTime().UnixNano()
	}
	return entries
}

// TestStaleTemporaryFiles: what a writer that was killed has left goes; what may
// just be written, and what is no file of the cache's, stays.
func TestStaleTemporaryFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hiatus")
	sub := filepath.Join(dir, "wazero-version")
	if err := os.MkdirAll(filepath.Join(sub, "folder.1.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * stale)
	for name, gone := range map[string]bool{"dead.1.tmp": true, "entry": false, "living.2.tmp": false, "folder.1.tmp": false} {
		path := filepath.Join(sub, name)
		if !strings.HasPrefix(name, "folder") {
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if name != "living.2.tmp" {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		defer func() {
			if _, err := os.Lstat(path); os.IsNotExist(err) != gone {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
	cache, err := openCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
