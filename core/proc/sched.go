package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ioprioWhoProcess = 1    // IOPRIO_WHO_PROCESS
	maxCPUBytes      = 1024 // 8192 processors, CONFIG_NR_CPUS
)

// affinity returns the mask of the processors on which tid may run.
func affinity(tid int) ([]byte, error) {
	b := make([]byte, maxCPUBytes)
	n, _, e := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(b)), uintptr(unsafe.Pointer(&b[0])))
	if e != 0 {
		return nil, fmt.Errorf("tid %d: sched_getaffinity: %w", tid, e)
	}
	return b[:n], nil
}

// readScheduling fills in how a thread is scheduled.
func readScheduling(tid int, ts *ThreadState) error {
	a, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return fmt.Errorf("tid %d: sched_getattr: %w", tid, err)
	}
	ts.Sched = SchedAttr{Policy: a.Policy, Flags: a.Flags, Nice: a.Nice, Priority: a.Priority,
		Runtime: a.Runtime, Deadline: a.Deadline, Period: a.Period}
	mask, err := affinity(tid)
	if err != nil {
		return err
	}
	if !bytes.Equal(mask, allCPUs()) {
		ts.CPUs = mask
	}
	prio, _, e := unix.RawSyscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if e != 0 {
		return fmt.Errorf("tid %d: ioprio_get: %w", tid, e)
	}
	ts.IOPrio = int(prio)
	return nil
}

// allCPUs is the mask of the agent itself: where a thread has the same, it
// gets that of the agent that restarts it.
func allCPUs() []byte {
	mask, _ := affinity(0) // never fails
	return mask
}

// setScheduling sets what differs from what the thread inherited, as far as
// an ordinary user may: a nice value may only grow.
func setScheduling(tid int, ts *ThreadState) (errs []error) {
	var now ThreadState
	if err := readScheduling(tid, &now); err != nil {
		return []error{err}
	}
	if now.Sched.Nice != ts.Sched.Nice {
		// SCHED_IDLE has a nice value too, which sched_setattr(2) passes over.
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, int(ts.Sched.Nice)); err != nil {
			errs = append(errs, fmt.Errorf("nice %d: setpriority: %w", ts.Sched.Nice, err))
		}
	}
	if now.Sched != ts.Sched {
		w := ts.Sched
		a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: w.Policy, Flags: w.Flags, Nice: w.Nice, Priority: w.Priority,
			Runtime: w.Runtime, Deadline: w.Deadline, Period: w.Period}
		if err := unix.SchedSetAttr(tid, &a, 0); err != nil {
			errs = append(errs, fmt.Errorf("scheduling policy %d, nice %d: sched_setattr: %w", w.Policy, w.Nice, err))
		}
	}
	if ts.CPUs != nil && !bytes.Equal(now.CPUs, ts.CPUs) {
		_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), uintptr(len(ts.CPUs)), uintptr(unsafe.Pointer(&ts.CPUs[0])))
		if e != 0 {
			errs = append(errs, fmt.Errorf("affinity %x: sched_setaffinity: %w", ts.CPUs, e))
		}
	}
	if now.IOPrio != ts.IOPrio {
		if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(ts.IOPrio)); e != 0 {
			errs = append(errs, fmt.Errorf("I/O priority %#x: ioprio_set: %w", ts.IOPrio, e))
		}
	}
	return errs
}

func oomPath(pid int) string { return fmt.Sprintf("/proc/%d/oom_score_adj", pid) }

func readOOMScore(pid int) (int, error) {
	b, err := os.ReadFile(oomPath(pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// writeOOMScore sets oom_score_adj, which an ordinary user may only raise.
func writeOOMScore(pid, score int) error {
	if now, err := readOOMScore(pid); err == nil && now == score {
		return nil
	}
	return os.WriteFile(oomPath(pid), []byte(strconv.Itoa(score)), 0)
}
