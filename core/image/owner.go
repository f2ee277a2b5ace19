package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
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
	// Not for writing: the file system may be mounted read-only meanwhile. But NFS
	// gives such a lock to writers only, flock(2).
	f, held, err := s.lockOwner(os.O_RDONLY)
	if errors.Is(err, unix.EBADF) {
		f, held, err = s.lockOwner(os.O_RDWR)
	}
	switch {
	case err != nil && !lockUnsupported(err):
		return err
	case err == nil && !held:
		return fmt.Errorf("%s: %w", s.path, ErrOwned)
	}
	s.owner = f
	return nil
}

// lockOwner opens the file of the lock, and keeps it open where held, or where there
// are no locks.
func (s *Store) lockOwner(mode int) (f *os.File, held bool, err error) {
	f, err = os.OpenFile(filepath.Join(s.path, ownerLock), mode|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, false, err
	}
	if err = f.Chmod(fileMode); err == nil {
		held, err = lockFile(f, false)
	}
	if !held && !lockUnsupported(err) {
		f.Close()
	}
	return f, held, err
}

// owns says whether the lock is still that of the folder, which others may have removed
// or moved away.
func (s *Store) owns() bool {
	if s.owner == nil {
		return false
	}
	if private.IsAt(s.owner, filepath.Join(s.path, ownerLock)) {
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
