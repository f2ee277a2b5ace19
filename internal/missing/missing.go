// Package missing makes directories that are not there, and takes them away again.
package missing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Directory is what a directory is to be. Those above it that are missing too are its owner's alone.
type Directory struct {
	Mode  uint32 `json:"dir_mode,omitempty"`  // permissions as in st_mode, whatever the umask; the owner gets all
	Owner *Owner `json:"dir_owner,omitempty"` // as root may say; nil in older images
}

// Owner is of a file or a directory.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Valid says whether there can be such an owner; nil is none.
func (o *Owner) Valid() bool { return o == nil || o.UID >= 0 && o.GID >= 0 }

const permissions = 0o7777

// Look returns what the directory dir is.
func Look(dir string) (Directory, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Directory{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return Directory{st.Mode & permissions, &Owner{int(st.Uid), int(st.Gid)}}, nil
}

// Check refuses what no directory is.
func (as Directory) Check() error {
	if as.Mode&^permissions != 0 || !as.Owner.Valid() {
		return fmt.Errorf("directory of mode %#o and owner %+v", as.Mode, as.Owner)
	}
	return nil
}

// Or is as with an owner, where it has none.
func (as Directory) Or(owner Owner) Directory {
	if as.Owner == nil {
		as.Owner = &owner
	}
	return as
}

// MakeAll makes the directory dir, and those above it that are not there. It returns what it made, the
// innermost first, also where it fails.
func MakeAll(dir string, as Directory) (made []string, err error) {
	if is, err := isDirectory(dir); is || err != nil {
		return nil, err
	}
	above := as
	above.Mode = 0o700
	if made, err = MakeAll(filepath.Dir(dir), above); err != nil {
		return made, err
	}
	if err = os.Mkdir(dir, 0o700); err != nil {
		if is, serr := isDirectory(dir); is && serr == nil { // another was faster
			return made, nil
		}
		return made, err
	}
	return append([]string{dir}, made...), as.set(dir)
}

func isDirectory(dir string) (bool, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return true, nil
}

// set gives a directory that was just made its owner and its mode.
func (as Directory) set(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: another has taken its place", dir)
	}
	if os.Geteuid() == 0 && as.Owner != nil {
		// A file system of another host, or a user namespace, may not have that owner: it is the maker's then.
		err := unix.Fchown(fd, as.Owner.UID, as.Owner.GID)
		if err != nil && err != unix.EPERM && err != unix.EINVAL {
			return os.NewSyscallError("fchown", err)
		}
	}
	return os.NewSyscallError("fchmod", unix.Fchmod(fd, as.Mode&permissions|0o700))
}

var (
	mu   sync.Mutex
	left []string // by Remove, guarded by mu
)

// Remove takes away what MakeAll has made. What somebody uses meanwhile stays: where that was another
// user of this package, until its Remove, or Forget.
func Remove(made []string) {
	mu.Lock()
	defer mu.Unlock()
	left = slices.DeleteFunc(append(slices.Clone(made), left...), func(dir string) bool {
		err := os.Remove(dir)
		return !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST)
	})
}

// Forget ends the removal of what is left.
func Forget() {
	mu.Lock()
	defer mu.Unlock()
	left = nil
}
