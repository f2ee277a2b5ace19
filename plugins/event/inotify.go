package event

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimInotify reads the watches. Where the watched files are, savePlaces
// finds out when all are known.
func (p *Plugin) claimInotify(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	if f.Flags&unix.O_ASYNC != 0 {
		return file{}, plugin.Refuse(f, "signals of an inotify descriptor (O_ASYNC) are not kept")
	}
	s := &inotify{Watches: []watch{}}
	var marks []mark
	for _, line := range slices.Backward(info.Fields["inotify wd"]) { // the newest is first
		w, m, err := parseWatch(line)
		if err != nil {
			return file{}, plugin.Refuse(f, "fdinfo inotify: %v", err)
		}
		s.Watches, marks = append(s.Watches, w), append(marks, m)
	}
	queued, err := queuedBytes(f)
	if err != nil {
		return file{}, plugin.Refuse(f, "%v", err)
	}
	s.Queued = queued > 0
	p.searches = append(p.searches, search{file: f, inotify: s, marks: marks})
	return file{Inotify: s}, nil
}

// queuedBytes says how much waits to be read. It cannot be read here, or the
// program would miss it.
func queuedBytes(f plugin.OpenFile) (int, error) {
	fd, err := f.Dup()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, os.NewSyscallError("ioctl FIONREAD", err)
	}
	return n, nil
}

// mark identifies a watched file as the kernel does.
type mark struct {
	ino, sdev uint64
	handle    string // of open_by_handle_at(2), "" where the file system has none
	mask      uint32
}

// same says whether two marks are of one file.
func (m mark) same(o mark) bool {
	return m.ino == o.ino && m.sdev == o.sdev && (m.handle == o.handle || m.handle == "" || o.handle == "")
}

// parseWatch parses what follows "inotify wd:", proc_pid_fdinfo(5):
// "1 ino:3c4a3 sdev:fe00000 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a3c40300a8e4dd01".
func parseWatch(line string) (w watch, m mark, err error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return w, m, errors.New("empty")
	}
	number := func(what, s string, bits int) uint64 {
		n, e := strconv.ParseUint(s, 16, bits)
		if e != nil && err == nil {
			err = fmt.Errorf("%s: %w", what, e)
		}
		return n
	}
	fields := map[string]string{}
	for _, word := range words[1:] {
		key, val, _ := strings.Cut(word, ":")
		fields[key] = val
	}
	w.WD = int(number("wd", words[0], 31))
	m.ino, m.sdev = number("ino", fields["ino"], 64), number("sdev", fields["sdev"], 32)
	w.Mask = uint32(number("mask", fields["mask"], 32))
	m.mask = w.Mask
	if h := fields["f_handle"]; h != "" {
		m.handle = fields["fhandle-type"] + ":" + h
	}
	return w, m, err
}

// inotifyIOCSetNextWD is INOTIFY_IOC_SETNEXTWD: the descriptor that the next
// watch gets. The kernel has it with CONFIG_CHECKPOINT_RESTORE.
const inotifyIOCSetNextWD = 0x40044900

// reopen makes the instance, without its watches. Events that nobody had read
// cannot be queued again; the instance then tells, as the kernel does when a
// queue is full, that events are missing.
func (s *inotify) reopen() (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("inotify_init1: %w", err)
	}
	if s.Queued {
		err = overflow(fd)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// overflow leaves IN_Q_OVERFLOW as the only event in the queue of fd: two
// files are changed in turn until the queue takes no more, and all but the last
// event are read.
func overflow(fd int) (err error) {
	var files [2]int
	for i := range files {
		if files[i], err = unix.MemfdCreate("overflow", unix.MFD_CLOEXEC); err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		defer unix.Close(files[i])
		if _, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", files[i]), unix.IN_ATTRIB); err != nil {
			return os.NewSyscallError("inotify_add_watch", err)
		}
	}
	const pause = 1 << 10 // between looks at the length
	queued := -1
	for n := 0; ; n++ {
		if n%pause == 0 {
			now, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
			if err != nil {
				return os.NewSyscallError("ioctl FIONREAD", err)
			}
			if now == queued {
				break
			}
			queued = now
		}
		if err := unix.Fchmod(files[n%2], 0o600); err != nil {
			return os.NewSyscallError("fchmod", err)
		}
	}
	for _, wd := range []uint32{1, 2} { // IN_IGNORED finds no room either
		if _, err := unix.InotifyRmWatch(fd, wd); err != nil {
			return os.NewSyscallError("inotify_rm_watch", err)
		}
	}
	buf := make([]byte, 64<<10)
	for queued > unix.SizeofInotifyEvent {
		n, err := unix.Read(fd, buf[:min(len(buf), queued-unix.SizeofInotifyEvent)])
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		queued -= n
	}
	return nil
}

// addWatches gives every watch the descriptor it had. path names a watched
// file as the supervisor sees it.
func (s *inotify) addWatches(fd int, path func(watch) (name string, follow bool, err error)) error {
	last := 0
	for _, w := range s.Watches {
		name, follow, err := path(w)
		if err != nil {
			return fmt.Errorf("watch %d: %w", w.WD, err)
		}
		mask := w.Mask
		if !follow {
			mask |= unix.IN_DONT_FOLLOW
		}
		if err := unix.IoctlSetInt(fd, inotifyIOCSetNextWD, w.WD); err != nil {
			return fmt.Errorf("watch %d: ioctl INOTIFY_IOC_SETNEXTWD: %w", w.WD, err)
		}
		wd, err := unix.InotifyAddWatch(fd, name, mask)
		if err != nil {
			return fmt.Errorf("watch %d: inotify_add_watch of %s: %w", w.WD, name, err)
		}
		if wd != w.WD {
			return fmt.Errorf("watch %d of %s: the file has the watch %d already", w.WD, name, wd)
		}
		last = max(last, wd)
	}
	if last == math.MaxInt32 {
		return nil
	}
	// The kernel counts on from the last that was added.
	if err := unix.IoctlSetInt(fd, inotifyIOCSetNextWD, last+1); err != nil {
		return fmt.Errorf("ioctl INOTIFY_IOC_SETNEXTWD: %w", err)
	}
	return nil
}
