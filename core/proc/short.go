package proc

import (
	"fmt"
	"os"
	"slices"

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
	if r.ret() <= 0 {
		return
	}
	s := ShortCall{FD: int(int32(r.arg(0))), Done: uint64(r.ret())}
	switch {
	case nr == unix.SYS_WRITE:
		s.Call, s.Asked = "write", r.arg(2)
	case nr == unix.SYS_WRITEV:
		s.Call, s.Asked = "writev", p.vectorBytes(r.arg(1), r.arg(2))
	case nr == unix.SYS_SENDTO && r.arg(3)&unix.MSG_DONTWAIT == 0:
		s.Call, s.Asked = "send", r.arg(2)
	case nr == unix.SYS_SENDMSG && r.arg(2)&unix.MSG_DONTWAIT == 0:
		s.Call, s.Asked = "sendmsg", p.messageBytes(r.arg(1))
	case nr == unix.SYS_RECVFROM && r.arg(3)&unix.MSG_WAITALL != 0:
		s.Call, s.Asked = "recv with MSG_WAITALL", r.arg(2)
	case nr == unix.SYS_RECVMSG && r.arg(2)&unix.MSG_WAITALL != 0:
		s.Call, s.Asked = "recvmsg with MSG_WAITALL", p.messageBytes(r.arg(1))
	}
	if s.Done >= s.Asked {
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

// vectorBytes sums up n buffers of readv(2): struct iovec. What cannot be read counts as nothing.
func (p *Process) vectorBytes(addr, n uint64) (sum uint64) {
	const size = 16
	b := make([]byte, size*min(n, maxPieces))
	if !p.peek(addr, b) {
		return 0
	}
	for v := range slices.Chunk(b, size) {
		sum += le.Uint64(v[8:])
	}
	return sum
}

// messageBytes is vectorBytes of a struct msghdr, recvmsg(2).
func (p *Process) messageBytes(addr uint64) uint64 {
	const vector = 16 // msg_iov; msg_iovlen is behind it
	at, n, ok := p.words(addr + vector)
	if !ok {
		return 0
	}
	return p.vectorBytes(uint64(at), uint64(n))
}
