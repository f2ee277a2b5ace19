package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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
	since int64
	found map[kind][]object // by list
}

func (p *Plugin) newTree(procs []plugin.Process) (*tree, error) {
	t := &tree{procs: procs, byPID: map[int]plugin.Process{}, uids: map[uint32]bool{uint32(os.Geteuid()): true}, since: p.since}
	ours, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		return nil, err
	}
	first := ""
	for i, proc := range procs {
		t.byPID[proc.PID()] = proc
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/ipc", hostTID(proc)))
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

// hostTID is a thread that lives: the leader may have exited.
func hostTID(proc plugin.Process) int {
	if th := proc.Threads(); len(th) > 0 {
		return th[0].HostTID
	}
	return proc.HostPID()
}

// learnUsers adds the users of all processes, which may be others than the
// supervisor's where that is privileged.
func (t *tree) learnUsers(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return nil
	}
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
// none. The number of a process that has ended may belong to another by now:
// in doubt that counts as outside.
func (t *tree) users(pids ...int) (u use) {
	for _, pid := range pids {
		switch {
		case pid == 0:
		case t.byPID[pid] != nil:
			u.inside = true
		case !t.own && alive(pid):
			u.outside = true
		}
	}
	return u
}

func alive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
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
	}
	if !t.own && !u.inside {
		o.Unproven = !u.outside && o.ctime >= t.since
		o.Doubtful = !o.Unproven
	}
	return nil
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
