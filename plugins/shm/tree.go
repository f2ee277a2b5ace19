package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// tree is the processes of the computation, and what tells theirs from what is
// of others in the same IPC namespace.
type tree struct {
	procs []plugin.Process
	byPID map[int]plugin.Process
	// own: the IPC namespace is not the supervisor's, so that all that is in
	// it is of the tree.
	own   bool
	uids  map[uint32]bool
	since int64 // seconds since the epoch: nothing of the tree is older
	// started returns when a process has, in seconds since the epoch; nil where
	// the time of day was set meanwhile, so that it proves nothing.
	started func(pid int) (int64, bool)
	found   map[string][]object // by the name of the kind; see list
	learned bool                // uids is whole
}

func (p *Plugin) newTree(procs []plugin.Process) (*tree, error) {
	now := time.Now()
	t := &tree{procs: procs, byPID: map[int]plugin.Process{}, uids: map[uint32]bool{uint32(os.Geteuid()): true},
		since: earliest(p.begun, now, now.Sub(p.begun))}
	if !wasSet(p.begun, now, now.Sub(p.begun)) {
		t.started = startOf
	}
	ours, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		return nil, err
	}
	first := ""
	for i, proc := range procs {
		t.byPID[proc.PID()] = proc
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/ipc", plugin.LiveTID(proc)))
		switch {
		case err != nil:
			return nil, fmt.Errorf("pid %d: its IPC namespace: %w", proc.PID(), err)
		case i == 0:
			first, t.own = ns, ns != ours
		case ns != first:
			return nil, plugin.RefuseProcess(proc, ns, "it has an IPC namespace of its own")
		}
	}
	return t, nil
}

// learnUsers adds the users of all processes, which may be others than the
// supervisor's where that is privileged.
func (t *tree) learnUsers(ctx context.Context) error {
	if os.Geteuid() != 0 || t.learned {
		return nil
	}
	t.learned = true
	for _, proc := range t.procs {
		uid, err := proc.Syscall(ctx, unix.SYS_GETEUID)
		if err != nil {
			return fmt.Errorf("pid %d: geteuid: %w", proc.PID(), err)
		}
		t.uids[uint32(uid)] = true
	}
	return nil
}

// process returns the process pid of the tree, or any.
func (t *tree) process(pid int) plugin.Process {
	if proc := t.byPID[pid]; proc != nil {
		return proc
	}
	return t.procs[0]
}

// use is what the kernel remembers of who used an object.
type use struct{ inside, outside bool }

// users judges by pids that the kernel keeps with an object, 0 where it has
// none, and by when it was used last, in seconds since the epoch. The kernel
// keeps the number of a process that has ended, which may belong to another by
// now: to one of the tree, or outside of it. In doubt that counts as the user.
func (t *tree) users(last int64, pids ...int) (u use) {
	for _, pid := range pids {
		if pid == 0 {
			continue
		}
		if proc := t.byPID[pid]; proc != nil {
			u.inside = u.inside || !t.startedAfter(plugin.LiveTID(proc), last)
		} else if !t.own && alive(pid) {
			u.outside = u.outside || !t.startedAfter(pid, last)
		}
	}
	return u
}

// slack is what the start of a process and the times of an object, both rounded,
// may differ by, in seconds.
const slack = 2

// startedAfter says that a process is too young to have used an object.
func (t *tree) startedAfter(pid int, last int64) bool {
	if t.started == nil {
		return false
	}
	start, ok := t.started(pid)
	return ok && start > last+slack
}

// startOf returns when a process, or a thread, has started, by the time of day
// of now.
func startOf(pid int) (int64, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	ticks, ok := parseStart(string(raw))
	if !ok {
		return 0, false
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return 0, false
	}
	age := boot.Nano() - ticks*(int64(time.Second)/ticksPerSecond)
	return time.Now().Unix() - age/int64(time.Second), true
}

// ticksPerSecond is USER_HZ of the kernel's include/asm-generic/param.h.
const ticksPerSecond = 100

// statFields returns the fields of /proc/PID/stat from the state on, which is field 3. The name
// before it stands in parentheses and may hold any byte.
func statFields(s string) []string { return strings.Fields(s[strings.LastIndexByte(s, ')')+1:]) }

// parseStart reads starttime from /proc/PID/stat, in ticks since boot.
func parseStart(s string) (ticks int64, ok bool) {
	const starttime = 22 - 3
	f := statFields(s)
	if len(f) <= starttime {
		return 0, false
	}
	ticks, err := strconv.ParseInt(f[starttime], 10, 64)
	return ticks, err == nil && ticks >= 0
}

// alive says whether there is a process that may use something: a zombie does not, unless it is a
// leader whose other threads live.
func alive(pid int) bool {
	if err := unix.Kill(pid, 0); err != nil && err != unix.EPERM {
		return false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := statFields(string(raw))
	const threads = 20 - 3 // num_threads of proc_pid_stat(5)
	return err != nil || len(f) <= threads || f[0] != "Z" || f[threads] != "1"
}

// errOther says that an object is not of the computation.
var errOther = errors.New("not of the computation")

// judge decides what becomes of an object: nil to save it, errOther to leave
// it, a refusal. In doubt it is saved: a copy harms nobody.
func (p *Plugin) judge(t *tree, k kind, o *object, u use) error {
	ours := t.uids[o.UID] || t.uids[o.CUID]
	switch {
	case !u.inside && !t.own && !ours:
		return errOther
	case u.inside && u.outside && !p.config.AllowOutside:
		return t.refuse(k, o, "processes outside of the computation use it too (--allow-outside-shm keeps a copy)")
	case u.inside && !ours && os.Geteuid() != 0:
		return t.refuse(k, o, "it belongs to user %d", o.UID)
	case u.inside && !isOwn(o.perm):
		return t.refuse(k, o, "it was given to user %d, group %d, whom only root can give it again (IPC_SET)", o.UID, o.GID)
	}
	if !t.own && !u.inside {
		o.Unproven = !u.outside && o.ctime >= t.since
		o.Doubtful = !o.Unproven
	}
	return nil
}

// isOwn says whether a restart can give an object its owner: in a user namespace there is
// none but the user, with one group.
func isOwn(o perm) bool {
	return os.Geteuid() == 0 || int(o.UID) == os.Geteuid() && int(o.GID) == os.Getegid()
}

func (t *tree) refuse(k kind, o *object, format string, args ...any) error {
	return plugin.RefuseProcess(t.procs[0], fmt.Sprintf("System V %s %d (key %#x)", k.what, o.ID, uint32(o.Key)), format, args...)
}

// waiting returns the ids of semaphore sets and message queues in whose calls
// threads wait, proc_pid_syscall(5).
func (t *tree) waiting() map[uintptr]map[int]bool {
	of := map[uintptr]uintptr{unix.SYS_SEMOP: unix.SYS_SEMCTL, unix.SYS_SEMTIMEDOP: unix.SYS_SEMCTL,
		unix.SYS_MSGSND: unix.SYS_MSGCTL, unix.SYS_MSGRCV: unix.SYS_MSGCTL}
	found := map[uintptr]map[int]bool{unix.SYS_SEMCTL: {}, unix.SYS_MSGCTL: {}}
	for _, proc := range t.procs {
		for _, th := range proc.Threads() {
			raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", th.HostTID))
			if err != nil {
				continue // a kernel without it
			}
			nr, id, ok := parseSyscall(string(raw))
			if k := of[nr]; ok && k != 0 {
				found[k][id] = true
			}
		}
	}
	return found
}

// parseSyscall reads the number and the first argument from
// /proc/PID/syscall.
func parseSyscall(s string) (nr uintptr, arg int, ok bool) {
	f := strings.Fields(s)
	if len(f) < 2 {
		return 0, 0, false
	}
	n, err := strconv.ParseInt(f[0], 10, 32)
	if err != nil || n < 0 {
		return 0, 0, false
	}
	a, err := strconv.ParseUint(f[1], 0, 64)
	return uintptr(n), int(int32(a)), err == nil
}
