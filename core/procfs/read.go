package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"

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
	b, err := ReadFile(path)
	if err != nil {
		return zero, err
	}
	v, err := parse(b)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// buffers are what small files are read into.
var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// ReadFile is os.ReadFile for files of /proc, of which a freeze reads several
// of each thread. It leaves out what os does for files that can be waited for
// or whose size is known, which is half of the system calls.
func ReadFile(name string) ([]byte, error) {
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	room := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(room)
	for b := room[:0]; ; {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return bytes.Clone(b), nil
		default:
			b = b[:len(b)+n]
		}
	}
}

func open(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// names lists a folder of /proc, without "." and "..".
func names(dir string) ([]string, error) {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	room := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(room)
	for list := []string(nil); ; {
		n, err := unix.ReadDirent(fd, room[:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &fs.PathError{Op: "readdirent", Path: dir, Err: err}
		case n <= 0:
			return list, nil
		default:
			_, _, list = unix.ParseDirent(room[:n], -1, list)
		}
	}
}
