package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
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

// readCoreFilter reads which memory a core dump has, core(5).
func readCoreFilter(pid int) (uint32, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/coredump_filter", pid))
	if errors.Is(err, os.ErrNotExist) { // a kernel without CONFIG_ELF_CORE
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 16, 32)
	return uint32(n), err
}

func writeCoreFilter(pid int, filter uint32) error {
	if now, err := readCoreFilter(pid); err != nil || now == filter {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/coredump_filter", pid), fmt.Appendf(nil, "%#x", filter), 0)
}

// readAutogroup reads the nice value of the session, "/autogroup-57 nice 3",
// 0 where there is none (sched(7)).
func readAutogroup(pid int) (nice int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", pid))
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscanf(string(b), "/autogroup-%d nice %d", new(int), &nice)
	return nice
}

// writeAutogroup sets it. The kernel lets an ordinary user do so once in 0.1 s
// (kernel/sched/autogroup.c), and tells nobody when that is over.
func writeAutogroup(pid, nice int) error {
	const patience = time.Second
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if nice == 0 || readAutogroup(pid) == nice {
			return nil
		}
		err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), fmt.Append(nil, nice), 0)
		if !errors.Is(err, unix.EAGAIN) || time.Since(begin) > patience {
			return err
		}
	}
}
