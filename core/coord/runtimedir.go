package coord

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
)

// RuntimeDir returns the directory of the caller's sockets and makes it where
// it is missing: $XDG_RUNTIME_DIR/hiatus, or /tmp/hiatus-<euid> where the
// variable is unset or names no directory of the caller's.
//
// The directory is a real one (no symbolic link), owned by the caller, and
// nobody else has any access to it; one that is otherwise is an error, not a
// reason to look elsewhere.
func RuntimeDir() (string, error) {
	return runtimeDir(os.Getenv("XDG_RUNTIME_DIR"), "/tmp", os.Geteuid())
}

func runtimeDir(xdg, tmp string, uid int) (string, error) {
	dir := lastingDir(tmp, uid)
	if usableBase(xdg, uid) {
		dir = filepath.Join(xdg, "hiatus")
	}
	if err := makePrivate(dir, uid); err != nil {
		return "", err
	}
	return dir, nil
}

// runtimeDirs returns [RuntimeDir], and behind it the other place where computations of the
// caller may be, if it is there: a login session has /run/user/UID, of which cron(8) and a
// batch system know nothing, and which goes with the last session. A directory of the caller's
// own choice is the only one.
func runtimeDirs() ([]string, error) {
	uid := os.Geteuid()
	return runtimeDirsOf(os.Getenv("XDG_RUNTIME_DIR"), sessionBase(uid), "/tmp", uid)
}

func runtimeDirsOf(xdg, session, tmp string, uid int) ([]string, error) {
	own, err := runtimeDir(xdg, tmp, uid)
	if err != nil {
		return nil, err
	}
	dirs := []string{own}
	known := []string{filepath.Join(session, "hiatus"), lastingDir(tmp, uid)}
	if !slices.Contains(known, own) {
		return dirs, nil
	}
	for _, dir := range known {
		if dir != own && checkPrivate(dir, uid) == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// sessionBase is what pam_systemd(8) makes XDG_RUNTIME_DIR.
func sessionBase(uid int) string { return filepath.Join("/run/user", strconv.Itoa(uid)) }

// lastingDir is the runtime directory that does not go with a session.
func lastingDir(tmp string, uid int) string { return filepath.Join(tmp, "hiatus-"+strconv.Itoa(uid)) }

// usableBase says whether base is what the XDG Base Directory Specification
// asks of XDG_RUNTIME_DIR, as far as matters: an absolute path to a directory
// of the user's, in which one may be made.
func usableBase(base string, uid int) bool {
	if !filepath.IsAbs(base) {
		return false
	}
	info, err := os.Stat(base)
	if err != nil || !info.IsDir() || ownerOf(info) != uid {
		return false
	}
	return unix.Faccessat(unix.AT_FDCWD, base, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// makePrivate makes dir with mode 0700, whatever the umask, or accepts one that
// is there and private. Nobody else can exchange it afterwards: its parent is the user's
// own, or has the sticky bit (inode(7)), as /tmp.
func makePrivate(dir string, uid int) error {
	if err := private.MakeDir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("runtime directory: %w", err)
	}
	return checkPrivate(dir, uid)
}

func checkPrivate(dir string, uid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("runtime directory %s: is a symbolic link, want a directory", dir)
	case !mode.IsDir():
		return fmt.Errorf("runtime directory %s: is not a directory", dir)
	case ownerOf(info) != uid:
		return fmt.Errorf("runtime directory %s: belongs to uid %d, want %d; XDG_RUNTIME_DIR names another, which is yours", dir, ownerOf(info), uid)
	case mode.Perm()&0o077 != 0:
		return fmt.Errorf("runtime directory %s: mode %04o lets others in, want 0700", dir, mode.Perm())
	}
	return nil
}

// ownerOf returns the uid of a file's owner, -1 where the system has none.
func ownerOf(info fs.FileInfo) int {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(stat.Uid)
}
