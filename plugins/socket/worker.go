package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// workers make system calls in the processes of a restarted tree: SO_PEERCRED
// is of the process that called socketpair, connect or listen, unix(7).
type workers struct {
	procs    map[int]plugin.Process // by pid
	first    plugin.Process         // any; nil where there is none
	channels map[int]*channel       // by pid
}

// channel passes descriptors to a process.
type channel struct {
	proc   plugin.Process
	ours   int
	theirs uintptr
}

func newWorkers(procs []plugin.Process) *workers {
	w := &workers{procs: make(map[int]plugin.Process, len(procs)), channels: make(map[int]*channel)}
	for _, p := range procs {
		w.procs[p.PID()] = p
		if w.first == nil {
			w.first = p
		}
	}
	return w
}

// of returns the process that cred names, nil where the supervisor has to do.
func (w *workers) of(cred *credentials) plugin.Process {
	if cred == nil {
		return nil
	}
	return w.procs[cred.PID]
}

// pair makes a pair of sockets as the process of cred.
func (w *workers) pair(ctx context.Context, cred *credentials, typ int) (a, b int, err error) {
	proc := w.of(cred)
	if proc == nil {
		fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		return fds[0], fds[1], os.NewSyscallError("socketpair", err)
	}
	inner, err := innerPair(ctx, proc, typ)
	if err != nil {
		return -1, -1, err
	}
	defer closeIn(ctx, proc, inner[:]...)
	if a, err = linux.DupFrom(proc.HostPID(), int(inner[0])); err != nil {
		return -1, -1, err
	}
	if b, err = linux.DupFrom(proc.HostPID(), int(inner[1])); err != nil {
		unix.Close(a)
		return -1, -1, err
	}
	return a, b, nil
}

// innerPair makes a pair of sockets that proc has.
func innerPair(ctx context.Context, proc plugin.Process, typ int) (fds [2]uintptr, err error) {
	addr, _ := proc.Scratch()
	if _, err := proc.Syscall(ctx, unix.SYS_SOCKETPAIR, unix.AF_UNIX, uintptr(typ|unix.SOCK_CLOEXEC), 0, uintptr(addr)); err != nil {
		return fds, fmt.Errorf("pid %d: socketpair: %w", proc.PID(), err)
	}
	raw := make([]byte, 8)
	if _, err := proc.ReadAt(raw, int64(addr)); err != nil {
		return fds, fmt.Errorf("pid %d: socketpair: %w", proc.PID(), err)
	}
	e := binary.NativeEndian
	return [2]uintptr{uintptr(e.Uint32(raw)), uintptr(e.Uint32(raw[4:]))}, nil
}

func closeIn(ctx context.Context, proc plugin.Process, fds ...uintptr) {
	for _, fd := range fds {
		_, _ = proc.Syscall(ctx, unix.SYS_CLOSE, fd) // fails only if the process is gone
	}
}

// lend runs fn with the numbers that fds have in proc meanwhile.
func (w *workers) lend(ctx context.Context, proc plugin.Process, fds []int, fn func(inner []uintptr) error) error {
	c, err := w.channel(ctx, proc)
	if err != nil {
		return err
	}
	var inner []uintptr
	defer func() { closeIn(ctx, proc, inner...) }()
	for _, fd := range fds {
		n, err := c.pass(ctx, fd)
		if err != nil {
			return fmt.Errorf("pid %d: pass a descriptor: %w", proc.PID(), err)
		}
		inner = append(inner, n)
	}
	return fn(inner)
}

func (w *workers) channel(ctx context.Context, proc plugin.Process) (*channel, error) {
	if c := w.channels[proc.PID()]; c != nil {
		return c, nil
	}
	inner, err := innerPair(ctx, proc, unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer closeIn(ctx, proc, inner[0])
	ours, err := linux.DupFrom(proc.HostPID(), int(inner[0]))
	if err != nil {
		closeIn(ctx, proc, inner[1])
		return nil, err
	}
	c := &channel{proc: proc, ours: ours, theirs: inner[1]}
	w.channels[proc.PID()] = c
	return c, nil
}

// pass gives fd to the process and returns its number there.
func (c *channel) pass(ctx context.Context, fd int) (uintptr, error) {
	if err := unix.Sendmsg(c.ours, []byte{0}, unix.UnixRights(fd), nil, unix.MSG_DONTWAIT); err != nil {
		return 0, os.NewSyscallError("sendmsg", err)
	}
	const dataAt, controlAt, size = 128, 192, 256
	addr, _ := c.proc.Scratch()
	h := msghdr{data: addr + dataAt, dataLen: 1, control: addr + controlAt, controlLen: uint64(unix.CmsgSpace(4))}
	raw := make([]byte, size)
	copy(raw, h.encode(addr))
	if _, err := c.proc.WriteAt(raw, int64(addr)); err != nil {
		return 0, err
	}
	if _, err := c.proc.Syscall(ctx, unix.SYS_RECVMSG, c.theirs, uintptr(addr), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT); err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	if _, err := c.proc.ReadAt(raw, int64(addr)); err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(raw[controlAt : controlAt+unix.CmsgSpace(4)])
	if err != nil || len(messages) != 1 || len(messages[0].Data) < 4 {
		return 0, errors.New("no descriptor has come")
	}
	return uintptr(binary.NativeEndian.Uint32(messages[0].Data)), nil
}

// close ends the channels. The processes must not keep their ends: their
// descriptors are about to be installed.
func (w *workers) close(ctx context.Context) {
	for _, c := range w.channels {
		closeIn(ctx, c.proc, c.theirs)
		unix.Close(c.ours)
	}
	clear(w.channels)
}

// connect connects fd to what has the name as the process of cred; through
// handle where that is a file.
func (w *workers) connect(ctx context.Context, cred *credentials, fd int, name []byte, handle int) error {
	proc := w.of(cred)
	if proc == nil {
		return connectThrough(fd, name, handle)
	}
	fds := []int{fd}
	if handle >= 0 {
		fds = append(fds, handle)
	}
	return w.lend(ctx, proc, fds, func(inner []uintptr) error {
		if handle >= 0 {
			name = fmt.Appendf(nil, "/proc/self/fd/%d", inner[1])
		}
		addr, _ := proc.Scratch()
		sockaddr := rawAddress(name)
		if _, err := proc.WriteAt(sockaddr, int64(addr)); err != nil {
			return err
		}
		_, err := proc.Syscall(ctx, unix.SYS_CONNECT, inner[0], uintptr(addr), uintptr(len(sockaddr)))
		return os.NewSyscallError("connect", err)
	})
}

// connectThrough is connect in the supervisor.
func connectThrough(fd int, name []byte, handle int) error {
	to := address(name)
	if handle >= 0 {
		to = throughHandle(handle)
	}
	return os.NewSyscallError("connect", unix.Connect(fd, to))
}

// listen makes fd a listener as the process of cred.
func (w *workers) listen(ctx context.Context, cred *credentials, fd, backlog int) error {
	proc := w.of(cred)
	if proc == nil {
		return os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	return w.lend(ctx, proc, []int{fd}, func(inner []uintptr) error {
		_, err := proc.Syscall(ctx, unix.SYS_LISTEN, inner[0], uintptr(backlog))
		return os.NewSyscallError("listen", err)
	})
}

// rawAddress is a sockaddr_un with the exact name, of the exact length.
func rawAddress(name []byte) []byte {
	b := append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), name...)
	if _, isPath := pathOf(name); isPath {
		b = append(b, 0)
	}
	return b
}

// msghdr is the argument of sendmsg(2) and recvmsg(2) in another process, with
// one iovec.
type msghdr struct {
	name, nameLen       uint64
	data, dataLen       uint64
	control, controlLen uint64
}

// msghdrSize is of the structure and the iovec behind it.
const msghdrSize = 56 + 16

// encode returns the structure as it has to stand at addr.
func (h msghdr) encode(addr uint64) []byte {
	b := make([]byte, msghdrSize)
	e := binary.NativeEndian
	e.PutUint64(b[0:], h.name)
	e.PutUint32(b[8:], uint32(h.nameLen))
	e.PutUint64(b[16:], addr+56)
	e.PutUint64(b[24:], 1)
	e.PutUint64(b[32:], h.control)
	e.PutUint64(b[40:], h.controlLen)
	e.PutUint64(b[56:], h.data)
	e.PutUint64(b[64:], h.dataLen)
	return b
}

// send sends m over fd as its sender. Any process may do it: none has
// dropped its privileges yet, and CAP_SYS_ADMIN lets it name another
// (SCM_CREDENTIALS, unix(7)). to is a destination, nil for none, and handle a
// file that it goes through, -1 for none. The descriptors of m are rights.
func (w *workers) send(ctx context.Context, fd int, m message, rights []int, to []byte, handle int) (sent int, err error) {
	proc := w.first
	if proc == nil || w.procs[m.Sender.PID] == nil {
		return 0, fmt.Errorf("process %d, which has sent a queued message, is not there", m.Sender.PID)
	}
	fds := append([]int{fd}, rights...)
	if handle >= 0 {
		fds = append(fds, handle)
	}
	err = w.lend(ctx, proc, fds, func(inner []uintptr) error {
		if handle >= 0 {
			to = fmt.Appendf(nil, "/proc/self/fd/%d", inner[len(inner)-1])
			inner = inner[:len(inner)-1]
		}
		var numbers []int
		for _, n := range inner[1:] {
			numbers = append(numbers, int(n))
		}
		control := unix.UnixCredentials(&unix.Ucred{Pid: int32(m.Sender.PID), Uid: m.Sender.UID, Gid: m.Sender.GID})
		if len(numbers) > 0 {
			control = append(control, unix.UnixRights(numbers...)...)
		}
		sent, err = sendIn(ctx, proc, inner[0], m.Data, control, to)
		return err
	})
	return sent, err
}

// sendIn makes proc call sendmsg(2), with memory of its own for the arguments.
func sendIn(ctx context.Context, proc plugin.Process, fd uintptr, data, control, to []byte) (int, error) {
	const nameAt = 128
	controlAt := nameAt + 128
	dataAt := controlAt + (len(control)+7)&^7
	size := dataAt + len(data)
	arena, err := proc.Syscall(ctx, unix.SYS_MMAP, 0, uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if err != nil {
		return 0, os.NewSyscallError("mmap", err)
	}
	defer func() { _, _ = proc.Syscall(ctx, unix.SYS_MUNMAP, arena, uintptr(size)) }()
	base := uint64(arena)
	h := msghdr{data: base + uint64(dataAt), dataLen: uint64(len(data)), control: base + uint64(controlAt), controlLen: uint64(len(control))}
	raw := make([]byte, size)
	if to != nil {
		h.name, h.nameLen = base+nameAt, uint64(copy(raw[nameAt:], rawAddress(to)))
	}
	copy(raw, h.encode(base))
	copy(raw[controlAt:], control)
	copy(raw[dataAt:], data)
	if _, err := proc.WriteAt(raw, int64(base)); err != nil {
		return 0, err
	}
	n, err := proc.Syscall(ctx, unix.SYS_SENDMSG, fd, arena, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), os.NewSyscallError("sendmsg", err)
}
