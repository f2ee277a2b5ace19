package procfs

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hiatus-project/hiatus/internal/procparse"
)

// The parsers that plugins need as well live in internal/procparse, since a
// plugin does not import the core.
type (
	// FDInfo is /proc/PID/fdinfo/FD.
	FDInfo = procparse.FDInfo
	// Lock is a file lock, a "lock:" line of fdinfo.
	Lock = procparse.Lock
	// Timer is a POSIX timer of /proc/PID/timers.
	Timer = procparse.Timer
)

// ParseFDInfo parses the content of /proc/PID/fdinfo/FD.
func ParseFDInfo(raw []byte) (FDInfo, error) { return procparse.ParseFDInfo(raw) }

// ReadFDInfo reads /proc/PID/fdinfo/FD and returns its content too.
func ReadFDInfo(pid, fd int) (raw []byte, info FDInfo, err error) {
	name := path(pid, "fdinfo/"+strconv.Itoa(fd))
	raw, err = ReadFile(name)
	if err != nil {
		return nil, FDInfo{}, err
	}
	info, err = procparse.ParseFDInfo(raw)
	if err != nil {
		return nil, FDInfo{}, fmt.Errorf("%s: %w", name, err)
	}
	return raw, info, nil
}

// ParseTimers parses the content of /proc/PID/timers.
func ParseTimers(raw []byte) ([]Timer, error) { return procparse.ParseTimers(raw) }

// ReadTimers reads /proc/PID/timers.
func ReadTimers(pid int) ([]Timer, error) {
	return parseFile(path(pid, "timers"), procparse.ParseTimers)
}

// ParseTimensOffsets parses the content of /proc/PID/timens_offsets,
// time_namespaces(7). It returns nanoseconds to be added to the host's clocks
// by children of the process.
func ParseTimensOffsets(raw []byte) (monotonic, boottime int64, err error) {
	for line := range strings.Lines(string(raw)) {
		w := strings.Fields(line)
		if len(w) != 3 {
			return 0, 0, fmt.Errorf("timens_offsets: %q: %d words, want 3", line, len(w))
		}
		ns, err := offset(w[1], w[2])
		if err != nil {
			return 0, 0, fmt.Errorf("timens_offsets: %q: %w", line, err)
		}
		switch w[0] {
		case "monotonic", "1": // by number in Linux 5.6
			monotonic = ns
		case "boottime", "7":
			boottime = ns
		}
	}
	return monotonic, boottime, nil
}

// ReadTimensOffsets reads /proc/PID/timens_offsets.
func ReadTimensOffsets(pid int) (monotonic, boottime int64, err error) {
	name := path(pid, "timens_offsets")
	b, err := ReadFile(name)
	if err != nil {
		return 0, 0, err
	}
	monotonic, boottime, err = ParseTimensOffsets(b)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", name, err)
	}
	return monotonic, boottime, nil
}

// offset returns the nanoseconds of seconds, which may be negative, plus
// nanoseconds, which may not.
func offset(seconds, nanoseconds string) (int64, error) {
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return 0, err
	}
	nsec, err := strconv.ParseInt(nanoseconds, 10, 64)
	if err != nil {
		return 0, err
	}
	const limit = math.MaxInt64/int64(time.Second) - 1
	if sec < -limit || sec > limit || nsec < 0 || nsec >= int64(time.Second) {
		return 0, errors.New("out of range")
	}
	return sec*int64(time.Second) + nsec, nil
}
