package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// plan returns the steps that make the tree of the image. With inherit the
// session in which the tree was launched, a shell's, becomes the agent's own,
// so that its terminal stays the controlling one: the kernel gives a terminal
// to no other session (ioctl_tty(2), TIOCSCTTY).
func (st *State) plan(inherit bool) ([]step, error) {
	pids, used := map[int]bool{}, map[int]bool{}
	for _, p := range st.Processes {
		pids[p.PID], used[p.PID] = true, true
		for _, th := range p.Threads {
			used[th.TID] = true
		}
	}
	nodes := make([]node, len(st.Processes))
	for i, p := range st.Processes {
		n := node{pid: p.PID, ppid: p.PPID, pgid: p.PGID, sid: p.SID, subreaper: p.Prctl.Subreaper}
		if inherit && p.SID == st.Session && !pids[p.SID] {
			n.sid = 0
		}
		nodes[i] = n
	}
	return planTree(nodes, st.Reaper, used, pidLimit())
}

// maxPidLimit is PID_MAX_LIMIT of the kernel.
const maxPidLimit = 1 << 22

// pidLimit is the first id that a process cannot have here. A pid namespace has
// a limit of its own, the highest, only from Linux 6.14 on.
func pidLimit() int {
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if n, aerr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && aerr == nil {
		return n
	}
	return maxPidLimit
}

// GroupOf returns the process group of a process, both as the program sees
// them.
func (st *State) GroupOf(pid int) int {
	for i := range st.Processes {
		if st.Processes[i].PID == pid {
			return st.Processes[i].PGID
		}
	}
	return 0
}

// Has says whether a process is in the tree.
func (st *State) Has(pid int) bool {
	for i := range st.Processes {
		if st.Processes[i].PID == pid {
			return true
		}
	}
	return false
}

// IDsFree says whether no process or thread here has an id of the image, and each is
// one that this pid namespace gives.
func (st *State) IDsFree() bool {
	limit := pidLimit()
	taken := func(id int) bool {
		_, err := os.Lstat(fmt.Sprintf("/proc/%d", id)) // of threads too
		return err == nil || id >= limit
	}
	steps, err := st.plan(true)
	if err != nil {
		return false
	}
	for _, s := range steps { // leaders that have ended are made for a moment
		if s.kind == stepFork && !s.any && taken(s.pid) {
			return false
		}
	}
	for i := range st.Processes {
		p := &st.Processes[i]
		for _, t := range p.Threads {
			if taken(t.TID) {
				return false
			}
		}
	}
	return true
}
