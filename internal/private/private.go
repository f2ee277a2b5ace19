// Package private makes folders for the user alone: with mode 0700, whatever the
// umask(2), under a hard one of which nothing could be made in them.
package private

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// DirMode is the mode of the folders.
const DirMode = 0o700

// MakeDir is [os.Mkdir] with mode 0700.
func MakeDir(path string) error {
	if err := os.Mkdir(path, DirMode); err != nil {
		return err
	}
	return os.Chmod(path, DirMode)
}

// MakeDirs is [os.MkdirAll] with mode 0700 for each folder that it makes.
func MakeDirs(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MakeDirs(parent); err != nil {
			return err
		}
	}
	err := MakeDir(path)
	if err != nil {
		// Another process may have been quicker.
		if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}
