package image

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
)

const (
	storeLock = ".lock"
	tmpPrefix = ".tmp-"
)

// Store is the folder of one computation's generations, DIR/NAME.
type Store struct {
	path      string
	mu        sync.Mutex
	owner     *os.File       // see Own
	releasing sync.WaitGroup // of what Prune has removed
}

// OpenStore returns the store name in dir. Both are made by the first Begin.
// name is printable, at most 64 bytes, without a slash or a leading dot.
func OpenStore(dir, name string) (*Store, error) {
	if what := checkFileName(name, maxNameLen); what != "" {
		return nil, fmt.Errorf("computation: %s", what)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Store{path: filepath.Join(dir, name)}, nil
}

// Path returns the store's folder.
func (s *Store) Path() string { return s.path }

// Generations returns the committed generations, ascending; none where the
// store does not exist.
func (s *Store) Generations() ([]uint64, error) { return generations(s.path) }

// Next returns the generation after the highest whose name is taken, by whatever:
// also a link to a generation that was moved away would be in the way of another.
func (s *Store) Next() (uint64, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var highest uint64
	for _, e := range entries {
		if n, ok := parseGeneration(e.Name()); ok && n < math.MaxUint64 {
			highest = max(highest, n)
		}
	}
	return highest + 1, nil
}

// generations lists the committed generations in a store's folder: folders
// with a generation's name and a manifest.
func generations(path string) ([]uint64, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, e := range entries {
		if n, ok := parseGeneration(e.Name()); ok && e.IsDir() && hasManifest(filepath.Join(path, e.Name())) {
			gens = append(gens, n)
		}
	}
	slices.SortFunc(gens, cmp.Compare[uint64]) // names of six digits sort before those of five
	return gens, nil
}

func hasManifest(genDir string) bool {
	info, err := os.Lstat(filepath.Join(genDir, manifestFile))
	return err == nil && info.Mode().IsRegular()
}

// generationName is the folder of a generation, with zeros in front so that
// ls sorts.
func generationName(generation uint64) string { return fmt.Sprintf("%05d", generation) }

func parseGeneration(name string) (uint64, bool) {
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil && n > 0 && name == generationName(n)
}

// Check says, with a [FormatError], that what is in the place of the store's folder
// keeps generations from being written: it must be a folder, of the caller's. That
// goes for root too. Whose the folder is may put links in the place of what is
// written there, and generations in the place of those that were.
func (s *Store) Check() error {
	var st unix.Stat_t
	switch err := unix.Lstat(s.path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &os.PathError{Op: "lstat", Path: s.path, Err: err}
	}
	switch euid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return formatErrorf(s.path, "is a symbolic link, not a folder for generations")
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return formatErrorf(s.path, "not a folder for generations")
	case int(st.Uid) != euid:
		return formatErrorf(s.path, "belongs to uid %d, not to uid %d", st.Uid, euid)
	}
	return nil
}

// CheckWritable says why no generation can be made here, as far as permissions tell.
func (s *Store) CheckWritable() error {
	for _, path := range []string{s.path, filepath.Dir(s.path)} {
		err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if !errors.Is(err, unix.ENOENT) {
			if err != nil {
				return &os.PathError{Op: "no image can be written to", Path: path, Err: err}
			}
			return nil
		}
	}
	return nil // Make makes both
}

// Make makes the store's folder. What stands there already must be a folder
// of the caller's.
func (s *Store) Make() error {
	parent := filepath.Dir(s.path)
	if err := private.MakeDirs(parent); err != nil {
		return err
	}
	err := private.MakeDir(s.path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err == nil {
		if err := syncPath(parent); err != nil {
			return err
		}
	}
	return s.Check()
}

// lock waits for the store's lock, which Begin and Prune hold while they make
// and rename temporary folders. Closing the file gives it back. Where the file
// system has no locks there are none: folders are cleaned only with one.
func (s *Store) lock() (*os.File, error) {
	path := filepath.Join(s.path, storeLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if errors.Is(err, unix.ELOOP) {
		return nil, formatErrorf(path, "is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	err = f.Chmod(fileMode)
	if err == nil {
		_, err = lockFile(f, true)
	}
	if err != nil && !lockUnsupported(err) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clean removes the temporary folders that no living writer has, and what
// their end has left in a generation. The caller
// has the store's lock, so that none is just being made.
func (s *Store) clean() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(s.path, e.Name())
		if _, named := parseGeneration(e.Name()); named && e.IsDir() && hasManifest(path) {
			_ = os.Remove(filepath.Join(path, pendingLock)) // of a writer that died behind the commit
		}
		if !isTmpName(e.Name()) || !e.IsDir() {
			continue
		}
		if ours, err := isUnfinished(path); err != nil || !ours {
			errs = append(errs, err)
			continue
		}
		if dead, err := abandoned(path); err != nil {
			errs = append(errs, err)
		} else if dead {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// isUnfinished says whether a folder with a temporary name has what such a folder
// has: the lock, or nothing but files of a generation. A restart may have been
// from a copy, whose neighbours are the user's own.
func isUnfinished(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return false, err
	}
	foreign := slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.Name() != manifestFile && e.Name() != restartedFile && !strings.HasPrefix(e.Name(), agentPrefix)
	})
	locked := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == pendingLock })
	return locked || !foreign, nil
}

// abandoned says whether the writer of a temporary folder is gone. Locks of
// flock(2) go with the last descriptor of their file, however it ends.
func abandoned(path string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(path, pendingLock), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	held, err := lockFile(f, false)
	if lockUnsupported(err) {
		return false, nil
	}
	return held, err
}

// manifestsOf returns the manifests of a computation's generations, ascending.
func (s *Store) manifestsOf(computation string) ([]*Manifest, error) {
	gens, err := s.Generations()
	var manifests []*Manifest
	for _, gen := range gens {
		dir, err := openDir(filepath.Join(s.path, generationName(gen)), false)
		if err != nil {
			continue
		}
		m, err := loadManifest(dir)
		dir.Close()
		if err == nil && m.Computation == computation && m.Generation == gen {
			manifests = append(manifests, m)
		}
	}
	return manifests, err
}
