package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ownerLock is the file of a store whose lock its one writer has.
const ownerLock = ".owner"

// ErrOwned says that another computation writes generations to the folder.
var ErrOwned = errors.New("another running computation has its generations there")

// Own makes the caller the one who writes to the store, until Close or its end. Names
// of computations are unique in one runtime directory only: two could have one folder,
// on one host or two, and each would remove the generations of the other.
// Where the file system has no locks nothing is certain.
func (s *Store) Own() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owns() {
		return nil
	}
	if err := s.Make(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.path, ownerLock), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return err
	}
	err = f.Chmod(fileMode)
	held := err == nil
	if held {
		held, err = lockFile(f, false)
	}
	switch {
	case lockUnsupported(err):
	case err != nil:
		f.Close()
		return err
	case !held:
		f.Close()
		return fmt.Errorf("%s: %w", s.path, ErrOwned)
	}
	s.owner = f
	return nil
}

// owns says whether the lock is still that of the folder, which others may have removed
// or moved away.
func (s *Store) owns() bool {
	if s.owner == nil {
		return false
	}
	have, err := s.owner.Stat()
	there, err2 := os.Lstat(filepath.Join(s.path, ownerLock))
	if err == nil && err2 == nil && os.SameFile(have, there) {
		return true
	}
	_ = s.owner.Close() // nothing was written
	s.owner = nil
	return false
}

// Close ends what Own has begun.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == nil {
		return nil
	}
	err := s.owner.Close()
	s.owner = nil
	return err
}
