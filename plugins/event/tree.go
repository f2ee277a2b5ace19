package event

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hiatus-project/hiatus/plugin"
)

// tree relates the ids of the tree as the supervisor sees them and as the
// program does.
type tree struct {
	pids    map[int]int        // by host pid
	hosts   map[int]int        // of a thread that lives, by pid
	threads map[int]threadName // by host tid
}

// threadName is a thread as the program sees it.
type threadName struct{ pid, tid int }

func newTree(procs []plugin.Process) tree {
	t := tree{pids: map[int]int{}, hosts: map[int]int{}, threads: map[int]threadName{}}
	for _, p := range procs {
		t.pids[p.HostPID()] = p.PID()
		t.hosts[p.PID()] = plugin.LiveTID(p)
		for _, th := range p.Threads() {
			t.threads[th.HostTID] = threadName{p.PID(), th.TID}
		}
	}
	return t
}

// sorted returns the pids in ascending order.
func (t tree) sorted() []int { return slices.Sorted(maps.Keys(t.hosts)) }

// zombie returns the pid of an ended child that its parent, a process of the
// tree, has not waited for: an event may not list such.
func (t tree) zombie(host int) (pid int, ok bool) {
	s, err := readStatus(host)
	if err != nil {
		return 0, false
	}
	_, ok = t.pids[s.parent]
	return s.pid, ok && s.zombie
}

// host returns the host pid of pid in a restarted tree, zombies included.
func (t tree) host(pid int) (int, bool) {
	for host, p := range t.pids {
		if p == pid {
			return host, true
		}
	}
	for parent := range t.pids {
		for _, child := range children(parent) {
			if s, err := readStatus(child); err == nil && s.pid == pid {
				return child, true
			}
		}
	}
	return 0, false
}

// descriptors lists the open descriptors of the thread tid.
func descriptors(tid int) []int {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", tid))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var fds []int
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds
}

// status is a part of /proc/PID/status.
type status struct {
	pid    int // in the innermost namespace
	parent int // in the namespace of the reader
	zombie bool
}

func readStatus(host int) (status, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", host))
	if err != nil {
		return status{}, err
	}
	return parseStatus(string(raw))
}

func parseStatus(raw string) (s status, err error) {
	for line := range strings.Lines(raw) {
		key, val, _ := strings.Cut(line, ":")
		w := strings.Fields(val)
		if len(w) == 0 {
			continue
		}
		switch key {
		case "State":
			s.zombie = w[0] == "Z"
		case "PPid":
			s.parent, err = strconv.Atoi(w[0])
		case "NSpid":
			s.pid, err = strconv.Atoi(w[len(w)-1])
		}
		if err != nil {
			return status{}, fmt.Errorf("status: %s: %w", key, err)
		}
	}
	return s, nil
}

// children lists the host pids of the children of all threads of host.
func children(host int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", host))
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, w := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(w); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}
