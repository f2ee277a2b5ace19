package image

import (
	"errors"
	"io/fs"

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
