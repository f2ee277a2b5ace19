// Package missing makes directories that are not there, and takes them away again.
package missing

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

// Remove takes away what MakeAll has made. What somebody uses meanwhile stays.
func Remove(made []string) {
	for _, dir := range made {
		_ = os.Remove(dir)
	}
}
