package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/parallel"
	"github.com/hiatus-project/hiatus/plugin"
)

// Surroundings is what the agent knows of the place where a tree lives.
type Surroundings struct {
	Reference int // host pid of a process in the namespaces that the tree must share
	// UserNamespace is the tree's, as /proc/PID/ns/user reads, where it is not Reference's.
	UserNamespace string
	Session       int    // in which the tree was launched, as the program sees it
	Reaper        int    // pid that a process without a parent in the tree sees as its parent
	Terminal      uint64 // device of the launching terminal, 0 for none
}

func refuse(p *Process, object, format string, args ...any) error {
	return plugin.RefuseProcess(p, object, format, args...)
}

// Check refuses, by name, what the engine could not bring back. It changes
// nothing and may be called before Open. All findings are joined.
func (t *Tree) Check(s Surroundings) error {
	ref, err := namespacesOf(s.Reference)
	if err != nil {
		return err
	}
	// The first process of a restored tree made the time namespace, but only
	// its children are in it.
	if l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time_for_children", s.Reference)); err == nil {
		ref["time"] = l
	}
	if s.UserNamespace != "" {
		ref["user"] = s.UserNamespace
	}
	var checks []check
	for _, p := range t.procs {
		if !p.zombie {
			checks = append(checks, check{do: func() []error { return t.checkProcess(p, ref) }})
			for some := range slices.Chunk(p.threads, 64) {
				checks = append(checks, check{do: func() []error { return p.checkThreads(some) }})
			}
		}
	}
	for typ, what := range sharable {
		checks = append(checks, check{do: func() []error { return t.checkShared(typ, what) }})
	}
	return beside(checks)
}

// check is one of many that do not depend on each other.
type check struct {
	do    func() []error
	found []error
}

// beside makes all checks by as many goroutines as there are processors, and joins what they find.
func beside(checks []check) error {
	_ = parallel.Each(context.Background(), checks, runtime.GOMAXPROCS(0), func(_ int, c *check) error {
		c.found = c.do()
		return nil
	})
	var errs []error
	for i := range checks {
		errs = append(errs, checks[i].found...)
	}
	return errors.Join(errs...)
}

var namespaceKinds = []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"}

func namespacesOf(pid int) (map[string]string, error) {
	out := map[string]string{}
	for _, k := range namespaceKinds {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, k))
		if errors.Is(err, os.ErrNotExist) { // a kernel without this kind, or an exited leader
			continue
		}
		if err != nil {
			return nil, err
		}
		out[k] = l
	}
	return out, nil
}

func (t *Tree) checkProcess(p *Process, ref map[string]string) (errs []error) {
	add := func(object, format string, args ...any) {
		errs = append(errs, refuse(p, object, format, args...))
	}
	if slices.ContainsFunc(p.threads, func(th *Thread) bool { return th.compat }) {
		add("32-bit program", "32-bit programs are not kept yet")
	}
	own, err := namespacesOf(p.liveTID())
	if err != nil {
		return append(errs, err)
	}
	for _, k := range namespaceKinds {
		if own[k] != ref[k] && k != "uts" {
			add(k+" namespace", "it is in a namespace of its own (%s, the tree's is %s)", own[k], ref[k])
		}
	}
	errs = append(errs, p.checkPlace()...)
	errs = append(errs, p.checkCredentials()...)
	return append(errs, p.checkTables()...)
}

// differing returns the first kind of namespace in which two threads differ.
func differing(a, b map[string]string) string {
	for _, k := range namespaceKinds {
		if a[k] != b[k] {
			return k
		}
	}
	return ""
}

// checkCredentials refuses what an ordinary user could not give back: a
// restored tree has one user and one group.
func (p *Process) checkCredentials() (errs []error) {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		return nil
	}
	for i := range 4 {
		if p.status.Uid[i] != uid || p.status.Gid[i] != gid {
			return []error{refuse(p, fmt.Sprintf("credentials uid %v gid %v", p.status.Uid, p.status.Gid),
				"they differ from the user's own (%d, %d)", uid, gid)}
		}
	}
	return nil
}

// checkThreads refuses threads of a process that do not share its namespaces, or in which nothing
// may be injected.
func (p *Process) checkThreads(threads []*Thread) (errs []error) {
	var shared map[string]string
	for _, th := range threads {
		if th.HostTID == p.liveTID() { // whose namespaces those of the process are
			continue
		}
		own, err := namespacesOf(th.HostTID)
		if err == nil && shared == nil {
			shared, err = namespacesOf(p.liveTID())
		}
		if err != nil {
			errs = append(errs, err)
		} else if k := differing(own, shared); k != "" {
			errs = append(errs, refuse(p, fmt.Sprintf("%s namespace of thread %d", k, th.TID), "it is not that of its process"))
		}
	}
	_ = p.tr.Do(func() error {
		workers := 0
		for _, th := range threads {
			if th.worker {
				workers++
			}
			if workers > 1 && th.worker { // one tells of all
				continue
			}
			for _, err := range []error{p.checkCalls(th), p.checkRegsets(th)} {
				if err != nil {
					errs = append(errs, err)
				}
			}
		}
		return nil
	})
	return errs
}

// checkCalls refuses a thread in which calls of ours could have other effects.
func (p *Process) checkCalls(th *Thread) error {
	s, err := p.statusOf(th)
	if err != nil {
		return err
	}
	if th.worker {
		return refuse(p, fmt.Sprintf("thread %d (%s)", th.TID, s.Name), "it is the kernel's own, as io_uring(7) and vhost have them; programs of libuv, as node, do without io_uring where UV_USE_IO_URING=0 is set, MariaDB with innodb_use_native_aio=0")
	}
	if s.Seccomp != 0 && suspendSeccomp(th.HostTID, freezeOptions) != nil {
		return refuse(p, fmt.Sprintf("seccomp filter of thread %d", th.TID),
			"it may forbid the system calls of a checkpoint, and cannot be suspended and read without privileges (seccomp(2))")
	}
	if c := cookieOf(th.HostTID); c != 0 && c != cookieOf(0) { // that of the agent came from where both were launched
		return refuse(p, fmt.Sprintf("thread %d", th.TID), "it shares processors with none but those of its group (prctl(2), PR_SCHED_CORE), which a restart does not bring back")
	}
	if dispatchesCalls(th.HostTID) {
		return refuse(p, fmt.Sprintf("thread %d", th.TID), "it handles its own system calls (prctl(2), PR_SET_SYSCALL_USER_DISPATCH)")
	}
	return nil
}

// cookieOf returns the core scheduling cookie of a thread; 0: it has none, or the kernel knows
// of no such thing (Documentation/admin-guide/hw-vuln/core-scheduling.rst).
func cookieOf(tid int) uint64 {
	const thread = 0 // PIDTYPE_PID
	cookie := new(uint64)
	_, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(tid), thread, uintptr(unsafe.Pointer(cookie)), 0)
	if e != 0 {
		return 0
	}
	return *cookie
}

// sharable is what processes may share as threads do, by the types of kcmp(2).
var sharable = map[int]string{linux.KCMP_VM: "memory (CLONE_VM)", linux.KCMP_FILES: "descriptor table (CLONE_FILES)",
	linux.KCMP_FS: "working directory (CLONE_FS)", linux.KCMP_SIGHAND: "signal handlers (CLONE_SIGHAND)"}

// checkShared refuses processes that share what only threads are given back
// as shared. kcmp(2) orders the objects, so that a thousand processes cost ten
// comparisons each.
func (t *Tree) checkShared(typ int, what string) (errs []error) {
	var sorted []*Process
	for _, p := range t.procs {
		if p.zombie {
			continue
		}
		at, same := sort.Find(len(sorted), func(i int) int {
			r, err := linux.Kcmp(p.liveTID(), sorted[i].liveTID(), typ, 0, 0)
			return kcmpOrder(r, err)
		})
		if same {
			errs = append(errs, refuse(p, fmt.Sprintf("process sharing with pid %d", sorted[at].pid), "it shares its %s", what))
			continue
		}
		sorted = slices.Insert(sorted, at, p)
	}
	return errs
}
