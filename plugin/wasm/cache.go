package wasm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
)

// CacheDir is where compiled extensions are kept: $XDG_CACHE_HOME/hiatus, or
// ~/.cache/hiatus. It is "" where there is no home.
func CacheDir() string {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) { // XDG Base Directory Specification: ignored
		home, err := os.UserHomeDir()
		if err != nil || !filepath.IsAbs(home) {
			return ""
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "hiatus")
}

// openCache opens the cache in dir. Its files are machine code that this
// process executes, so it must be the user's own and closed to others: sudo
// and su may leave a $HOME or $XDG_CACHE_HOME of somebody else. Entries are
// made under temporary names and renamed, so any number of processes may
// share it.
func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return nil, fmt.Errorf("%s: not a directory", dir)
	case !ok || int(sys.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s: not this user's", dir)
	case st.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s: others may write to it (mode %04o)", dir, st.Mode().Perm())
	}
	removeStale(dir)
	return wazero.NewCompilationCacheWithDir(dir)
}

const (
	temporary = ".tmp"
	// stale is the age at which nobody writes a temporary file any more: to
	// write a module takes seconds.
	stale = time.Hour
)

// removeStale removes the temporary files of writers that were killed. What it
// cannot look at or remove costs room only.
func removeStale(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"+temporary)) // the pattern is a valid one
	for _, f := range files {
		if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > stale {
			_ = os.Remove(f)
		}
	}
}

// emptyCache removes the entries, which are compiled again when they are
// needed: a damaged one would be found by every launch. What others are
// writing just now stays, for them to rename.
func emptyCache(dir string) error {
	entries, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	errs := []error{err}
	for _, e := range entries {
		if strings.HasSuffix(e, temporary) {
			continue
		}
		if err := os.Remove(e); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
