package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// The kinds of lock, as proc_locks(5) names them.
const (
	lockFLOCK = "FLOCK"  // flock(2), of the description
	lockOFD   = "OFDLCK" // fcntl(2) F_OFD_SETLK, of the description
	lockPOSIX = "POSIX"  // fcntl(2) F_SETLK, of the process
	lockLease = "LEASE"  // fcntl(2) F_SETLEASE, of the description
)

// lock is a lock that is held. Start and End are the first and the last byte;
// End is -1 for the end of the file, however far it grows.
type lock struct {
	Kind  string `json:"kind"`
	Write bool   `json:"write,omitempty"`
	Start int64  `json:"start"`
	End   int64  `json:"end"`
}

// processLock is a POSIX lock, with a descriptor of its file.
type processLock struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
	lock
}

func newLock(l procparse.Lock) lock {
	return lock{Kind: l.Kind, Write: l.Write, Start: l.Start, End: l.End}
}

func (l lock) validate(kinds ...string) error {
	for _, k := range kinds {
		if l.Kind == k {
			if l.Start < 0 || l.End < -1 || l.End >= 0 && l.End < l.Start {
				return fmt.Errorf("%s lock from %d to %d", l.Kind, l.Start, l.End)
			}
			return nil
		}
	}
	return fmt.Errorf("lock of kind %q", l.Kind)
}

// flock is the lock as fcntl(2) takes it.
func (l lock) flock() unix.Flock_t {
	k := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET, Start: l.Start}
	if l.Write {
		k.Type = unix.F_WRLCK
	}
	if l.End >= 0 {
		k.Len = l.End - l.Start + 1
	}
	return k
}

// takeLocks saves the locks of the description. POSIX locks are saved with
// each process, for fdinfo shows only those of the process it belongs to.
func (s *file) takeLocks(f plugin.OpenFile, locks []procparse.Lock) error {
	for _, l := range locks {
		switch l.Kind {
		case lockPOSIX:
		case lockLease:
			if l.Breaking {
				return plugin.Refuse(f, "another process waits for the end of its lease")
			}
			s.Locks = append(s.Locks, newLock(l))
		case lockFLOCK, lockOFD:
			s.Locks = append(s.Locks, newLock(l))
		default:
			return plugin.Refuse(f, "a lock of type %s is not kept", l.Kind)
		}
	}
	if len(s.Locks) > 0 && (s.Kind == kindStdio || s.Kind == kindTerminal) {
		return plugin.Refuse(f, "a %s lock on a descriptor of the launching command is not kept", s.Locks[0].Kind)
	}
	return nil
}

// leave leaves f to another plugin, unless it has locks, which others do not keep.
// saveLocks looks at those of processes.
func leave(f plugin.OpenFile) error {
	if !bytes.Contains(f.FDInfo, []byte("\nlock:")) { // an epoll may have a long list
		return plugin.ErrNotMine
	}
	info, err := procparse.ParseFDInfo(f.FDInfo)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	for _, l := range info.Locks {
		if l.Kind != lockPOSIX {
			return plugin.Refuse(f, "it has a %s lock: locks are kept of files only", l.Kind)
		}
	}
	return plugin.ErrNotMine
}

// lockOrShare takes the locks of the description fd again. A lock of flock(2) that the restarting
// command has inherited, as below flock(1), is the program's as that of the launching command
// was: then it gets that description.
func (p *Plugin) lockOrShare(fd int, s *file) (int, error) {
	err := s.lock(fd)
	if err == nil {
		return fd, nil
	}
	defer unix.Close(fd)
	if !errors.Is(err, unix.EAGAIN) || len(s.Locks) != 1 || s.Locks[0].Kind != lockFLOCK {
		return -1, err
	}
	own, ok := s.lockedHere(fd)
	if !ok {
		return -1, err
	}
	if fd, err = dup(own); err != nil {
		return -1, err
	}
	p.host.Log().Info().Str("path", string(s.Path)).Int("fd", own).Msg("the restarting command has the lock, and shares it")
	if s.Pos > 0 {
		if err := s.seek(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// lockedHere returns the descriptor that this process has inherited with the lock of s, whose file
// like is.
func (s *file) lockedHere(like int) (fd int, ok bool) {
	var want unix.Stat_t
	fds, err := inheritedFDs()
	if err != nil || unix.Fstat(like, &want) != nil {
		return -1, false
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino && access(fd).covers(s.access()) && hasLock(fd, s.Locks[0]) {
			return fd, true
		}
	}
	return -1, false
}

// hasLock says whether a description of this process has the lock.
func hasLock(fd int, l lock) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return false
	}
	info, err := procparse.ParseFDInfo(raw)
	return err == nil && slices.ContainsFunc(info.Locks, func(k procparse.Lock) bool { return newLock(k) == l })
}

// lock takes the locks of the description again.
func (s *file) lock(fd int) error {
	for _, l := range s.Locks {
		if l.Kind == lockLease {
			continue // restoreAsync takes it
		}
		if err := l.take(fd); err != nil {
			if errors.Is(err, unix.EAGAIN) {
				err = fmt.Errorf("another process holds it: %w", err)
			}
			return fmt.Errorf("%s: %s lock: %w", s.Path, l.Kind, err)
		}
	}
	return nil
}

// lease returns the lease of the description, F_RDLCK or F_WRLCK, or F_UNLCK
// where it has none.
func (s *file) lease() int {
	for _, l := range s.Locks {
		switch {
		case l.Kind != lockLease:
		case l.Write:
			return unix.F_WRLCK
		default:
			return unix.F_RDLCK
		}
	}
	return unix.F_UNLCK
}

func (l lock) take(fd int) error {
	if l.Kind == lockOFD {
		k := l.flock()
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &k)
	}
	how := unix.LOCK_SH
	if l.Write {
		how = unix.LOCK_EX
	}
	return unix.Flock(fd, how|unix.LOCK_NB)
}

// saveLocks saves the POSIX locks of a process. They can be held through any
// of its descriptions; one that is not the plugin's is refused. /proc/locks would
// tell of them too, but takes milliseconds, for which nobody can take a lock
// (fs/locks.c, locks_start: percpu_down_write waits for a grace period of RCU).
func (p *Plugin) saveLocks(proc plugin.Process) error {
	for _, l := range p.saving.locked[proc.PID()] {
		if l.foreign {
			return plugin.RefuseProcess(proc, fmt.Sprintf("POSIX lock on fd %d: %s", l.fd, l.link), "locks are kept of files only")
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", plugin.LiveTID(proc), l.fd))
		if err != nil {
			return fmt.Errorf("pid %d: %w", proc.PID(), err)
		}
		info, err := procparse.ParseFDInfo(raw)
		if err != nil {
			return fmt.Errorf("pid %d fd %d: %w", proc.PID(), l.fd, err)
		}
		for _, k := range info.Locks {
			if k.Kind == lockPOSIX {
				p.state.Locks = append(p.state.Locks, processLock{proc.PID(), l.fd, newLock(k)})
			}
		}
	}
	return nil
}

// restoreLocks takes the POSIX locks of a process again, from within it. To
// close any descriptor of such a file in the process drops them,
// fcntl_locking(2): they are taken twice, at first to find early that another
// has one, and at last when all plugins have closed what they close.
func (p *Plugin) restoreLocks(ctx context.Context, proc plugin.Process) error {
	var mine []processLock
	for _, l := range p.state.Locks {
		if l.PID == proc.PID() {
			mine = append(mine, l)
		}
	}
	addr, size := proc.Scratch()
	for len(mine) > 0 {
		n := min(len(mine), size/flockSize)
		if n == 0 {
			return fmt.Errorf("pid %d: %d bytes of scratch memory", proc.PID(), size)
		}
		if err := takeLocks(ctx, proc, mine[:n], addr); err != nil {
			return err
		}
		mine = mine[n:]
	}
	return nil
}

func takeLocks(ctx context.Context, proc plugin.Process, locks []processLock, addr uint64) error {
	var args []byte
	calls := make([]plugin.Call, len(locks))
	for i, l := range locks {
		calls[i] = plugin.Call{
			Nr:   unix.SYS_FCNTL,
			Args: [6]uintptr{uintptr(l.FD), unix.F_SETLK, uintptr(addr) + uintptr(len(args))},
		}
		args = appendFlock(args, l.flock())
	}
	if _, err := proc.WriteAt(args, int64(addr)); err != nil {
		return fmt.Errorf("pid %d: POSIX locks: %w", proc.PID(), err)
	}
	err := proc.Batch(ctx, calls)
	if err == nil {
		return nil
	}
	for i, c := range calls {
		if c.Err != 0 {
			return fmt.Errorf("pid %d fd %d: POSIX lock from %d to %d: %w",
				proc.PID(), locks[i].FD, locks[i].Start, locks[i].End, c.Err)
		}
	}
	return err
}

// flockSize is the size of struct flock on 64-bit machines.
const flockSize = 32

// appendFlock lays out struct flock, in which the compiler of the kernel
// aligns the offsets to 8 bytes.
func appendFlock(b []byte, l unix.Flock_t) []byte {
	e := binary.NativeEndian
	b = e.AppendUint16(b, uint16(l.Type))
	b = e.AppendUint16(b, uint16(l.Whence))
	b = e.AppendUint32(b, 0)
	b = e.AppendUint64(b, uint64(l.Start))
	b = e.AppendUint64(b, uint64(l.Len))
	return e.AppendUint64(b, uint64(uint32(l.Pid)))
}
