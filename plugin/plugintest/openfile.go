package plugintest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// OpenFile describes the open file description behind fds as the engine
// would show it to ClaimFile: fds are descriptors of the test process that
// all refer to the same description. The test stays the owner of fds.
func OpenFile(t testing.TB, id int, fds ...int) plugin.OpenFile {
	t.Helper()
	f, err := describe(id, fds)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// OpenFiles describes fds, descriptors of the test process, as the engine
// would: one OpenFile for each open file description, in the order of fds,
// with IDs from 1.
func OpenFiles(t testing.TB, fds ...int) []plugin.OpenFile {
	t.Helper()
	var files []plugin.OpenFile
	for _, group := range groupByDescription(t, fds) {
		files = append(files, OpenFile(t, len(files)+1, group...))
	}
	return files
}

// Reopened returns f as ReopenFile sees it in a restart: without FDInfo, Dup,
// Hold and Inherited, and without Locked of Refs.
func Reopened(f plugin.OpenFile) plugin.OpenFile {
	f.Refs = slices.Clone(f.Refs)
	for i := range f.Refs {
		f.Refs[i].Locked = false
	}
	f.FDInfo, f.Dup, f.Hold, f.Inherited = nil, nil, nil, 0
	return f
}

func describe(id int, fds []int) (plugin.OpenFile, error) {
	if len(fds) == 0 {
		return plugin.OpenFile{}, fmt.Errorf("open file %d: no descriptor given", id)
	}
	first := fds[0]
	hold := func(int) (int, error) { return 0, errors.New("only RoundTrip knows the other open files") }
	f := plugin.OpenFile{ID: id, Hold: hold, Dup: func() (int, error) { return unix.FcntlInt(uintptr(first), unix.F_DUPFD_CLOEXEC, 3) }}
	var err error
	if f.Link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", first)); err != nil {
		return f, err
	}
	if err := syscall.Fstat(first, &f.Stat); err != nil {
		return f, fmt.Errorf("fstat of fd %d: %w", first, err)
	}
	if f.FDInfo, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", first)); err != nil {
		return f, err
	}
	if f.Flags, f.Pos, err = parseFDInfo(f.FDInfo); err != nil {
		return f, fmt.Errorf("fdinfo of fd %d: %w", first, err)
	}
	for _, fd := range fds {
		if same, err := sameDescription(first, fd); err != nil {
			return f, err
		} else if !same {
			return f, fmt.Errorf("fd %d and fd %d refer to different open file descriptions", first, fd)
		}
		fdFlags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			return f, fmt.Errorf("fcntl F_GETFD of fd %d: %w", fd, err)
		}
		f.Refs = append(f.Refs, plugin.FileRef{PID: os.Getpid(), FD: fd, Cloexec: fdFlags&unix.FD_CLOEXEC != 0,
			Locked: bytes.Contains(f.FDInfo, []byte(" POSIX "))})
	}
	return f, nil
}

// parseFDInfo reads the two lines that every kind of file has,
// proc_pid_fdinfo(5): pos is decimal, flags is octal.
func parseFDInfo(info []byte) (flags int, pos int64, err error) {
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() {
		key, val, _ := strings.Cut(lines.Text(), ":")
		val = strings.TrimSpace(val)
		switch key {
		case "pos":
			pos, err = strconv.ParseInt(val, 10, 64)
		case "flags":
			var n uint64
			n, err = strconv.ParseUint(val, 8, 32)
			flags = int(n) &^ unix.O_CLOEXEC
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return flags, pos, lines.Err()
}

// sameDescription asks kcmp(2) whether two descriptors of the test process
// refer to one open file description.
func sameDescription(a, b int) (bool, error) {
	if a == b {
		return true, nil
	}
	const kcmpFile = 0 // KCMP_FILE
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return false, fmt.Errorf("kcmp of fd %d and fd %d: %w", a, b, errno)
	}
	return order == 0, nil
}

// groupByDescription keeps the order of fds.
func groupByDescription(t testing.TB, fds []int) [][]int {
	t.Helper()
	var groups [][]int
next:
	for _, fd := range fds {
		for i := range groups {
			same, err := sameDescription(groups[i][0], fd)
			if err != nil {
				t.Fatal(err)
			}
			if same {
				groups[i] = append(groups[i], fd)
				continue next
			}
		}
		groups = append(groups, []int{fd})
	}
	return groups
}
