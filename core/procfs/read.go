package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// IsGone says whether err means that the process, thread or descriptor no
// longer exists: ENOENT when its file was opened, ESRCH when it was read.
func IsGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// path returns /proc/PID/name.
func path(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// taskPath returns /proc/PID/task/TID/name.
func taskPath(pid, tid int, name string) string {
	return path(pid, "task/"+strconv.Itoa(tid)+"/"+name)
}

// parseFile reads the file at path and parses it.
func parseFile[T any](path string, parse func([]byte) (T, error)) (T, error) {
	var zero T
	b, err := os.ReadFile(path)
	if err != nil {
		return zero, err
	}
	v, err := parse(b)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}
