package private

import "os"

// IsAt says whether path still names the file that f has open: others may have removed it, or
// put another in its place. A symbolic link is another.
func IsAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}
