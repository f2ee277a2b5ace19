// Package missing makes directories that are not there, and takes them away again.
package missing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// MakeAll makes the directory dir, and those above it that are not there, as
// [os.MkdirAll] does. It returns what it made, the innermost first, also where it fails.
func MakeAll(dir string, mode fs.FileMode) (made []string, err error) {
	err = os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if made, err = MakeAll(filepath.Dir(dir), mode); err == nil {
			err = os.Mkdir(dir, mode)
		}
	}
	switch {
	case err == nil:
		return append([]string{dir}, made...), nil
	case errors.Is(err, fs.ErrExist):
		return made, nil
	}
	return made, err
}

var (
	mu   sync.Mutex
	left []string // by Remove, guarded by mu
)

// Remove takes away what MakeAll has made. What somebody uses meanwhile stays: where that was another
// user of this package, until its Remove.
func Remove(made []string) {
	mu.Lock()
	defer mu.Unlock()
	left = slices.DeleteFunc(append(slices.Clone(made), left...), func(dir string) bool {
		err := os.Remove(dir)
		return !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST)
	})
}
