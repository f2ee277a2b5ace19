package procfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tasks returns the ids of the threads of pid, ascending. Threads may come and
// go meanwhile: whoever stops them reads again until nothing is new.
func Tasks(pid int) ([]int, error) { return numbersIn(path(pid, "task")) }

// PIDs returns all processes that /proc shows, ascending.
func PIDs() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list, nil
}

// FDs returns the open descriptors of pid, ascending.
func FDs(pid int) ([]int, error) { return numbersIn(path(pid, "fd")) }

func numbersIn(dir string) ([]int, error) {
	all, err := names(dir)
	if err != nil {
		return nil, err
	}
	list := make([]int, 0, len(all))
	for _, name := range all {
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return list, nil
}

// Children returns the children of all threads of pid, ascending, zombies
// among them. The list is exact only while they are stopped,
// proc_pid_task_tid_children(5).
func Children(pid int) ([]int, error) {
	tids, err := Tasks(pid)
	if err != nil {
		return nil, err
	}
	return ChildrenOf(pid, tids)
}

// ChildrenOf returns the children of these threads of pid, ascending.
func ChildrenOf(pid int, tids []int) ([]int, error) {
	var all []int
	for _, tid := range tids {
		list, err := parseFile(taskPath(pid, tid, "children"), parseChildren)
		if IsGone(err) {
			continue // the thread has ended: its children are another thread's
		}
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	slices.Sort(all)
	return all, nil
}

func parseChildren(raw []byte) ([]int, error) { return ints(string(raw)) }

// Comm returns the name of a thread.
func Comm(pid, tid int) (string, error) {
	b, err := ReadFile(taskPath(pid, tid, "comm"))
	return strings.TrimSuffix(string(b), "\n"), err
}

// Wchan returns the kernel function in which a thread sleeps, or "" where it
// runs or the reader may not know.
func Wchan(pid, tid int) (string, error) {
	b, err := ReadFile(taskPath(pid, tid, "wchan"))
	if string(b) == "0" {
		return "", err
	}
	return string(b), err
}

// Sched is what /proc/PID/task/TID/sched tells of a thread.
type Sched struct {
	// ExecStart is when it was last accounted as running. The clock is that of
	// its processor's scheduler: compare it with the same value of a thread there.
	ExecStart time.Duration
	// Waits counts how often it has given up its processor by itself.
	Waits int64
}

// ReadSched reads /proc/PID/task/TID/sched, which needs a kernel with
// CONFIG_SCHED_DEBUG, or 6.15 and later.
func ReadSched(pid, tid int) (Sched, error) {
	return parseFile(taskPath(pid, tid, "sched"), parseSched)
}

// parseSched finds "se.exec_start    :   1103172.750115", in milliseconds
// with six decimals, and "nr_voluntary_switches    :    12".
func parseSched(raw []byte) (s Sched, err error) {
	found := 0
	for line := range strings.Lines(string(raw)) {
		key, val, _ := strings.Cut(line, ":")
		val = strings.TrimSpace(val)
		switch strings.TrimSpace(key) {
		case "se.exec_start":
			s.ExecStart, err = time.ParseDuration(val + "ms")
			found++
		case "nr_voluntary_switches":
			s.Waits, err = strconv.ParseInt(val, 10, 64)
			found++
		}
		if err != nil {
			return Sched{}, fmt.Errorf("sched: %s: %w", strings.TrimSpace(key), err)
		}
	}
	if found != 2 {
		return Sched{}, errors.New("sched: no se.exec_start, or no nr_voluntary_switches")
	}
	return s, nil
}

// Auxv returns the auxiliary vector as the kernel made it at execve(2): pairs
// of machine words, getauxval(3).
func Auxv(pid int) ([]byte, error) { return ReadFile(path(pid, "auxv")) }

// Exe returns the link /proc/PID/exe, which ends in " (deleted)" where the
// file is deleted.
func Exe(pid int) (string, error) { return os.Readlink(path(pid, "exe")) }

// Cwd returns the link /proc/PID/cwd; see Exe.
func Cwd(pid int) (string, error) { return os.Readlink(path(pid, "cwd")) }

// Timeslices is how often a thread was on a processor, as /proc/PID/task/TID/schedstat
// tells; "" where the kernel does not (CONFIG_SCHED_INFO).
func Timeslices(pid, tid int) string {
	b, err := ReadFile(taskPath(pid, tid, "schedstat"))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return ""
	}
	return f[2]
}

// Groups returns the lines of /proc/PID/cgroup, cgroups(7).
func Groups(pid int) (string, error) {
	b, err := ReadFile(path(pid, "cgroup"))
	return string(b), err
}

// RootDir returns the link /proc/PID/root.
func RootDir(pid int) (string, error) { return os.Readlink(path(pid, "root")) }

// Cmdline returns the arguments of pid as they stand in its memory now; nil
// for a zombie and for a kernel thread.
func Cmdline(pid int) ([]string, error) {
	return parseFile(path(pid, "cmdline"), parseStrings)
}

// Environ returns the environment that pid was started with, as it stands in
// its memory now.
func Environ(pid int) ([]string, error) {
	return parseFile(path(pid, "environ"), parseStrings)
}

// parseStrings cuts at the NUL that ends each string. The last may lack it, as
// setproctitle(3) leaves it.
func parseStrings(raw []byte) ([]string, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00"), nil
}
