package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"
)

// appendTo opens a file for writing at its end. One that it makes has mode 0600
// whatever the umask; one that is there keeps its own.
func appendTo(path string, flags int) (*os.File, error) {
	flags |= os.O_WRONLY | os.O_APPEND | os.O_CREATE
	f, err := os.OpenFile(path, flags|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) && flags&os.O_EXCL == 0 {
		return os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkUTF8 refuses a path that is no UTF-8 when it is absolute. It would go
// over the wire and into images as JSON, which replaces such bytes.
func checkUTF8(what, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !utf8.ValidString(abs) {
		return notUTF8(what, abs)
	}
	return nil
}

func notUTF8(what, path string) error { return fmt.Errorf("%s %q: the path is not UTF-8", what, path) }
