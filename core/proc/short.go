package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// ShortCall is a call of the program on a pipe or a socket that the freeze has ended when a part of it was
// done: the kernel returns that part, as after SIGSTOP, or a signal with a handler (write(2), recv(2)).
// Programs that do not expect it lose the rest.
type ShortCall struct {
	PID, FD     int
	Call        string
	Done, Asked uint64 // bytes
}

func (s ShortCall) String() string {
	return fmt.Sprintf("pid %d fd %d: the stop has ended a %s of %d bytes when %d were done, as a signal would: a program that does not look at the result loses the rest",
		s.PID, s.FD, s.Call, s.Asked, s.Done)
}

// ShortCalls lists such calls of a tree that was frozen.
func (t *Tree) ShortCalls() []ShortCall { return t.short }

// noteShort looks whether the call of a thread, which has returned, was ended so. Without a signal a
// descriptor that blocks takes all.
func (t *Tree) noteShort(p *Process, th *Thread, nr uint64) {
	r := &th.Regs
	s := ShortCall{FD: int(int32(r.arg(0))), Done: uint64(r.ret()), Asked: r.arg(2)}
	switch flags := r.arg(3); {
	case r.ret() <= 0 || s.Done >= s.Asked:
		return
	case nr == unix.SYS_WRITE:
		s.Call = "write"
	case nr == unix.SYS_SENDTO && flags&unix.MSG_DONTWAIT == 0:
		s.Call = "send"
	case nr == unix.SYS_RECVFROM && flags&unix.MSG_WAITALL != 0:
		s.Call = "recv with MSG_WAITALL"
	default:
		return
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", th.HostTID, s.FD))
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return
	}
	if _, fd, err := procfs.ReadFDInfo(th.HostTID, s.FD); err != nil || fd.Flags&unix.O_NONBLOCK != 0 {
		return
	}
	s.PID = innerPID(p.host)
	t.short = append(t.short, s)
}
