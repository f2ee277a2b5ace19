package proc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// stuck is tb.Fatalf for something that does not happen: it tells where every
// thread below this process stands for whoever reads the log.
func stuck(tb testing.TB, format string, args ...any) {
	tb.Helper()
	tb.Fatalf("%s\n%s", fmt.Sprintf(format, args...), whereAllStand())
}

// whereAllStand describes the threads of all processes below this one.
func whereAllStand() string {
	var b strings.Builder
	all := []int{os.Getpid()}
	for i := 0; i < len(all); i++ {
		below, _ := procfs.Children(all[i]) // none of one that has ended
		all = append(all, below...)
		if i == 0 {
			continue
		}
		tids, _ := procfs.Tasks(all[i])
		for _, tid := range tids {
			b.WriteString(whereItStands(all[i], tid))
		}
	}
	return b.String()
}

func whereItStands(pid, tid int) string {
	s, err := procfs.ReadTaskStatus(pid, tid)
	if err != nil {
		return fmt.Sprintf("pid %d tid %d: %v\n", pid, tid, err)
	}
	st, _ := procfs.ReadTaskStat(pid, tid)
	file := func(name string) string {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/%s", pid, tid, name))
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(raw))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pid %d tid %d (inside %d) %s: parent %d, state %c, tracer %d, wchan %s, exit code %#x\n",
		pid, tid, s.InnerPID(), s.Name, s.PPid, s.State, s.TracerPid, file("wchan"), st.ExitCode)
	fmt.Fprintf(&b, "\tpending %x shared %x blocked %x ignored %x caught %x\n", s.SigPnd, s.ShdPnd, s.SigBlk, s.SigIgn, s.SigCgt)
	call := file("syscall")
	fmt.Fprintf(&b, "\tsyscall %s%s\n", call, inCall(pid, tid, call))
	if stack := file("stack"); os.Geteuid() == 0 {
		fmt.Fprintf(&b, "\tstack %s\n", strings.Join(strings.Fields(stack), " "))
	}
	return b.String()
}

// inCall tells what the arguments of a system call point to.
func inCall(pid, tid int, line string) string {
	var nr, first, op, value uint64
	if n, _ := fmt.Sscanf(line, "%d %v %v %v", &nr, &first, &op, &value); n < 2 {
		return ""
	}
	switch nr {
	case unix.SYS_FUTEX:
		var word [4]byte
		p := &Process{pid: pid, host: pid, threads: []*Thread{{HostTID: tid}}} // a leader that has exited shows none
		defer p.closeMem()
		if err := p.readMem(first, word[:]); err != nil {
			return fmt.Sprintf(" (futex: %v)", err)
		}
		return fmt.Sprintf(" (the futex is %d, it waits while it is %d)", le.Uint32(word[:]), uint32(value))
	case unix.SYS_READ, unix.SYS_WRITE:
		path := fmt.Sprintf("/proc/%d/task/%d/fd/%d", pid, tid, first)
		link, err := os.Readlink(path)
		if err != nil {
			return fmt.Sprintf(" (%v)", err)
		}
		if !strings.HasPrefix(link, "pipe:") {
			return " (" + link + ")"
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Sprintf(" (%s: %v)", link, err)
		}
		defer unix.Close(fd)
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		return fmt.Sprintf(" (%s holds %d bytes, %v)", link, n, err)
	}
	return ""
}
