package event

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// pidfdThread is PIDFD_THREAD, which fdinfo shows as O_EXCL.
const pidfdThread = unix.O_EXCL

// tree relates the pids of the tree as the supervisor sees them and as the
// program does.
type tree struct {
	pids  map[int]int // by host pid
	hosts map[int]int // by pid
}

func newTree(procs []plugin.Process) tree {
	t := tree{pids: make(map[int]int, len(procs)), hosts: make(map[int]int, len(procs))}
	for _, p := range procs {
		t.pids[p.HostPID()] = p.PID()
		t.hosts[p.PID()] = p.HostPID()
	}
	return t
}

func (p *Plugin) claimPIDFD(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	host, err := strconv.Atoi(info.Field("Pid"))
	if err != nil {
		return file{}, plugin.Refuse(f, "fdinfo Pid: %v", err)
	}
	if host == -1 {
		return file{}, plugin.Refuse(f, "its process has ended and was waited for")
	}
	if pid, ok := p.tree.pids[host]; ok {
		return file{PIDFD: &pidFD{PID: pid}}, nil
	}
	if f.Flags&pidfdThread != 0 {
		return file{}, plugin.Refuse(f, "it refers to thread %d, which is not the leader of a process of this computation", host)
	}
	pid, ok := p.tree.zombie(host)
	if !ok {
		return file{}, plugin.Refuse(f, "it refers to process %d, which is not of this computation", host)
	}
	return file{PIDFD: &pidFD{PID: pid}}, nil
}

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
	if host, ok := t.hosts[pid]; ok {
		return host, true
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

func (p *Plugin) reopenPIDFD(saved *pidFD, flags int) (int, error) {
	host, ok := p.tree.host(saved.PID)
	if !ok {
		return -1, fmt.Errorf("pid %d is not in the restarted tree", saved.PID)
	}
	fd, err := unix.PidfdOpen(host, flags&pidfdThread)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open of pid %d (%d outside): %w", saved.PID, host, err)
	}
	return fd, nil
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
