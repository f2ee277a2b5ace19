package image

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// restartedFile stands beside the manifest of a generation that was restarted. Who has
// restarted it holds a lock on it for as long as it lives.
const restartedFile = "restarted"

// MarkRestarted notes that the generation in the folder genDir was restarted: what it has
// brought back has run on since. The caller closes the mark when that has ended. It survives no
// loss of power right after it.
func MarkRestarted(genDir string) (mark *os.File, err error) {
	dir, err := openDir(genDir, true)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	mark, err = createFile(dir, restartedFile)
	if errors.Is(err, fs.ErrExist) {
		mark, err = openMark(dir)
	}
	if err != nil {
		return nil, err
	}
	shared := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(mark.Fd(), unix.F_OFD_SETLK, &shared); err != nil && !lockUnsupported(err) {
		mark.Close()
		return nil, &os.PathError{Op: "lock", Path: mark.Name(), Err: err}
	}
	return mark, nil
}

func openMark(dir *os.File) (*os.File, error) {
	f, err := openAt(int(dir.Fd()), restartedFile, dir.Name()+"/"+restartedFile, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = formatErrorf(f.Name(), "not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// WasRestarted says whether the generation in genDir has the mark of MarkRestarted, and all
// that have made it have ended. Where the file system has no locks, they count as ended.
func WasRestarted(genDir string) bool {
	dir, err := openDir(genDir, true)
	if err != nil {
		return false
	}
	defer dir.Close()
	mark, err := openMark(dir)
	if err != nil {
		return false
	}
	defer mark.Close()
	other := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(mark.Fd(), unix.F_OFD_GETLK, &other)
	return err != nil || other.Type == unix.F_UNLCK
}
