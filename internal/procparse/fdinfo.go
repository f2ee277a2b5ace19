package procparse

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FDInfo is what /proc/PID/fdinfo/FD tells, proc_pid_fdinfo(5).
type FDInfo struct {
	Pos   int64  // file offset in bytes
	Flags int    // open(2) flags, with O_CLOEXEC where the descriptor has it
	MntID int    // the mount, as in /proc/PID/mountinfo
	Ino   uint64 // of the file; 0 before Linux 5.14

	// Fields holds every other line, in order. A line is cut at its first
	// colon, and both sides are trimmed: "eventfd-count: 7" is the value "7"
	// of "eventfd-count"; the line "inotify wd:1 ino:3c4a3 ..." is the value
	// "1 ino:3c4a3 ..." of "inotify wd"; "tfd: 7 events: 19 ..." is the value
	// "7 events: 19 ..." of "tfd".
	Fields map[string][]string
	Locks  []Lock
}

// Field returns the first value of key, or "" where there is none.
func (f *FDInfo) Field(key string) string {
	if v := f.Fields[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Locked says whether the process holds POSIX locks that were taken through the
// description. One that closes any of a file's descriptors loses its locks there
// (fcntl_locking(2)), so that each lock shows at one (fs/locks.c, show_fd_locks).
func (f *FDInfo) Locked() bool {
	return slices.ContainsFunc(f.Locks, func(l Lock) bool { return l.Kind == "POSIX" })
}

// Lock is a "lock:" line of fdinfo, which has the form of a line of
// /proc/locks, proc_locks(5). FLOCK and OFDLCK are of the open file
// description, POSIX of the process.
type Lock struct {
	Kind         string // POSIX, FLOCK, OFDLCK, LEASE, DELEG
	Advisory     bool   // false for a lease or a delegation
	Breaking     bool   // a lease that another process waits for
	Write        bool   // exclusive; false: shared
	PID          int    // the owner in the namespace of the /proc mount; -1 for OFDLCK
	Major, Minor uint32 // of the file system
	Ino          uint64
	Start, End   int64 // first and last byte; End is -1 for the end of the file
}

// ParseFDInfo parses the content of /proc/PID/fdinfo/FD. A value that is
// missing is zero.
func ParseFDInfo(raw []byte) (FDInfo, error) {
	f := FDInfo{Fields: make(map[string][]string)}
	for line := range strings.Lines(string(raw)) {
		key, val, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, val = strings.TrimSpace(key), strings.TrimSpace(val)
		if err := f.set(key, val); err != nil {
			return FDInfo{}, fmt.Errorf("fdinfo: %s %q: %w", key, val, err)
		}
	}
	return f, nil
}

func (f *FDInfo) set(key, val string) (err error) {
	switch key {
	case "pos":
		f.Pos, err = strconv.ParseInt(val, 10, 64)
	case "flags":
		var n uint64
		n, err = strconv.ParseUint(val, 8, 31) // printed with %o
		f.Flags = int(n)
	case "mnt_id":
		f.MntID, err = strconv.Atoi(val)
	case "ino":
		f.Ino, err = strconv.ParseUint(val, 10, 64)
	case "lock":
		var l Lock
		l, err = parseLock(val)
		f.Locks = append(f.Locks, l)
	default:
		f.Fields[key] = append(f.Fields[key], val)
	}
	return err
}

// parseLock parses what lock_get_status of the kernel's fs/locks.c prints:
// "1: POSIX  ADVISORY  READ 6693 fe:00:9978088 5 14".
func parseLock(s string) (Lock, error) {
	w := strings.Fields(s)
	if len(w) != 8 {
		return Lock{}, fmt.Errorf("%d words, want 8", len(w))
	}
	l := Lock{
		Kind:     w[1],
		Advisory: w[2] == "ADVISORY",
		Breaking: w[2] == "BREAKING",
		Write:    w[3] == "WRITE",
	}
	var err error
	if l.PID, err = strconv.Atoi(w[4]); err != nil {
		return Lock{}, fmt.Errorf("pid: %w", err)
	}
	if l.Major, l.Minor, l.Ino, err = parseLockFile(w[5]); err != nil {
		return Lock{}, err
	}
	if l.Start, err = strconv.ParseInt(w[6], 10, 64); err != nil {
		return Lock{}, fmt.Errorf("start: %w", err)
	}
	if w[7] == "EOF" {
		l.End = -1
	} else if l.End, err = strconv.ParseInt(w[7], 10, 64); err != nil {
		return Lock{}, fmt.Errorf("end: %w", err)
	}
	return l, nil
}

// parseLockFile parses MAJOR:MINOR:INODE, of which the first two are in
// hexadecimal.
func parseLockFile(s string) (major, minor uint32, ino uint64, err error) {
	w := strings.Split(s, ":")
	if len(w) != 3 {
		return 0, 0, 0, fmt.Errorf("file %q is not major:minor:inode", s)
	}
	ma, err := strconv.ParseUint(w[0], 16, 32)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("major: %w", err)
	}
	mi, err := strconv.ParseUint(w[1], 16, 32)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("minor: %w", err)
	}
	if ino, err = strconv.ParseUint(w[2], 10, 64); err != nil {
		return 0, 0, 0, fmt.Errorf("inode: %w", err)
	}
	return uint32(ma), uint32(mi), ino, nil
}
