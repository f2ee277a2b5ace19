package image

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// restartedFile stands beside the manifest of a generation that was restarted.
const restartedFile = "restarted"

// MarkRestarted notes that the generation in the folder genDir was restarted: what it has
// brought back has run on since. The mark survives no loss of power right after it.
func MarkRestarted(genDir string) error {
	dir, err := openDir(genDir, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := createFile(dir, restartedFile)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err == nil && os.Geteuid() == 0 {
		_ = f.Chown(int(st.Uid), int(st.Gid)) // else the owner could not copy it
	}
	return f.Close()
}

// WasRestarted says whether the generation in genDir has the mark of MarkRestarted.
func WasRestarted(genDir string) bool {
	dir, err := openDir(genDir, true)
	if err != nil {
		return false
	}
	defer dir.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), restartedFile, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Use says, until it is closed, that agent number n of the generation in genDir is brought back, or lives
// on: by a lock on a byte of the manifest, fcntl(2). others says whether somebody else does
// so too. Where the file system has no locks nobody does.
func Use(genDir string, n int) (use *os.File, others bool, err error) {
	dir, err := openDir(genDir, true)
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	if use, _, err = openRegular(dir, manifestFile); err != nil {
		return nil, false, err
	}
	ours, theirs := unix.Flock_t{Type: unix.F_RDLCK, Start: int64(n), Len: 1}, unix.Flock_t{Type: unix.F_WRLCK, Start: int64(n), Len: 1}
	err = unix.FcntlFlock(use.Fd(), unix.F_OFD_SETLK, &ours)
	if err == nil {
		err = unix.FcntlFlock(use.Fd(), unix.F_OFD_GETLK, &theirs)
	}
	return use, err == nil && theirs.Type != unix.F_UNLCK, nil
}
