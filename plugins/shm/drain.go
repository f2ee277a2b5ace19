package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// drain takes all messages of a POSIX queue and sends them again, in one
// batch of calls of a process that has it open. A batch that has begun is
// carried out even if the supervisor dies.
type drain struct {
	proc  plugin.Process
	s     *posixQueue
	count int
	buf   *buffer

	calls []plugin.Call
	fd    plugin.Call // its first argument is the descriptor
	open  int         // the call that opens it, -1 where the program's own serves
	slot  int         // bytes for each message
	wait  int         // the call that takes the signal, -1: none
	recv  []int       // the calls that receive
}

// Places in the buffer, before the messages.
const (
	drainPast  = 0   // struct timespec
	drainSet   = 16  // sigset_t
	drainInfo  = 32  // siginfo_t
	drainSev   = 160 // struct sigevent
	drainIovs  = 224 // two of struct iovec
	drainName  = 256 // the path to open
	drainSlots = 256 + 512

	siginfoValue = 24 // si_value
	prioritySize = 8
)

func newDrain(ctx context.Context, proc plugin.Process, q *claimedQueue, s *posixQueue) (*drain, error) {
	d := &drain{proc: proc, s: s, count: int(q.count), open: -1, wait: -1}
	d.slot = prioritySize + int(s.Size+7)&^7
	size := drainSlots + (d.count+1)*d.slot
	var err error
	if d.buf, err = newBuffer(ctx, proc, size); err != nil {
		return nil, err
	}
	head := make([]byte, drainSlots)
	if n := s.Notify; n != nil {
		if n.Signal > 0 {
			native.PutUint64(head[drainSet:], 1<<(n.Signal-1))
		}
		copy(head[drainSev:], n.sigevent())
	}
	ref, opened := q.firstRef(proc.PID())
	switch {
	case opened && q.writable[ref]:
		d.fd = plugin.Call{Args: [6]uintptr{uintptr(ref.FD)}}
	case opened:
		name := fmt.Sprintf("/proc/self/fd/%d", ref.FD)
		copy(head[drainName:], name)
		d.openBy(plugin.Call{Nr: unix.SYS_OPENAT, Args: [6]uintptr{^uintptr(99), d.at(drainName), unix.O_RDWR | unix.O_CLOEXEC}})
	default:
		copy(head[drainName:], s.Name)
		d.openBy(plugin.Call{Nr: unix.SYS_MQ_OPEN, Args: [6]uintptr{d.at(drainName), unix.O_RDWR | unix.O_CLOEXEC}})
	}
	if err := write(proc, head, d.buf.addr); err != nil {
		d.buf.free(ctx)
		return nil, err
	}
	for i := range d.count + 1 {
		if err := write(proc, make([]byte, prioritySize), d.buf.addr+uint64(drainSlots+i*d.slot)); err != nil {
			d.buf.free(ctx)
			return nil, err
		}
	}
	d.build()
	return d, nil
}

func (d *drain) at(off int) uintptr { return uintptr(d.buf.addr) + uintptr(off) }

func (d *drain) slotAt(i int) (priority, data uintptr) {
	at := d.at(drainSlots + i*d.slot)
	return at, at + prioritySize
}

func (d *drain) add(c plugin.Call) int {
	d.calls = append(d.calls, c)
	return len(d.calls) - 1
}

func (d *drain) openBy(c plugin.Call) {
	d.open = d.add(c)
	d.fd.Sources = []plugin.Source{{Arg: 0, Result: d.open}}
}

// on adds a call with the queue's descriptor for its first argument. It may
// fail: what comes after it puts messages back.
func (d *drain) on(nr uintptr, args [6]uintptr, sources ...plugin.Source) int {
	args[0] = d.fd.Args[0]
	return d.add(plugin.Call{Nr: nr, Args: args, MayFail: true, Sources: append(append([]plugin.Source(nil), d.fd.Sources...), sources...)})
}

func (d *drain) receive(i int) int {
	priority, data := d.slotAt(i)
	return d.on(unix.SYS_MQ_TIMEDRECEIVE, [6]uintptr{0, data, uintptr(d.s.Size), priority, d.at(drainPast)})
}

func (d *drain) send(i, received int) {
	priority, data := d.slotAt(i)
	d.on(unix.SYS_MQ_TIMEDSEND, [6]uintptr{0, data, 0, 0, d.at(drainPast)},
		plugin.Source{Arg: 2, Result: received}, plugin.Source{Arg: 3, Addr: uint64(priority)})
}

// build makes the batch. The first message that comes into the empty queue
// sets off the notification, whose signal brings its value; it is registered
// again at the end, after a close that would take it away.
func (d *drain) build() {
	for i := range d.count {
		d.recv = append(d.recv, d.receive(i))
	}
	signal := d.s.Notify != nil && d.s.Notify.Signal > 0
	if d.count == 0 && signal {
		_, data := d.slotAt(0)
		d.on(unix.SYS_MQ_TIMEDSEND, [6]uintptr{0, data, 0, 0, d.at(drainPast)})
	}
	for i := range d.count {
		d.send(i, d.recv[i])
		if i == 0 && signal {
			d.takeSignal()
		}
	}
	if d.count == 0 && signal {
		d.takeSignal()
		d.receive(0)
	}
	if d.open >= 0 {
		d.on(unix.SYS_CLOSE, [6]uintptr{})
	}
	if n := d.s.Notify; n != nil {
		d.add(plugin.Call{Nr: unix.SYS_MQ_NOTIFY, Args: [6]uintptr{uintptr(n.FD), d.at(drainSev)}, MayFail: true})
	}
}

// takeSignal takes the signal and copies its value into the sigevent.
func (d *drain) takeSignal() {
	d.wait = d.add(plugin.Call{Nr: unix.SYS_RT_SIGTIMEDWAIT, MayFail: true,
		Args: [6]uintptr{d.at(drainSet), d.at(drainInfo), d.at(drainPast), 8}})
	tid := uintptr(d.proc.Threads()[0].TID)
	d.add(plugin.Call{Nr: unix.SYS_PROCESS_VM_READV, MayFail: true,
		Args: [6]uintptr{tid, d.at(drainIovs), 1, d.at(drainIovs + 16), 1, 0}})
}

func (d *drain) run(ctx context.Context) error {
	var iovs []byte
	for _, v := range []uintptr{d.at(drainSev), 8, d.at(drainInfo + siginfoValue), 8} {
		iovs = native.AppendUint64(iovs, uint64(v))
	}
	if err := write(d.proc, iovs, uint64(d.at(drainIovs))); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// None of the calls waits. To be broken off would lose messages.
	if err := d.proc.Batch(context.WithoutCancel(ctx), d.calls); err != nil {
		return err
	}
	var errs []error
	for i, c := range d.calls {
		if c.Err != 0 {
			errs = append(errs, fmt.Errorf("call %d: %w", i, c.Err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("its messages cannot be read: %w", err)
	}
	if d.wait >= 0 {
		var value [8]byte
		if err := read(d.proc, value[:], uint64(d.at(drainSev))); err != nil {
			return err
		}
		d.s.Notify.Value = native.Uint64(value[:])
	}
	d.s.Messages = nil
	for i, at := range d.recv {
		buf := make([]byte, prioritySize+int(d.calls[at].Ret))
		priority, _ := d.slotAt(i)
		if err := read(d.proc, buf, uint64(priority)); err != nil {
			return err
		}
		d.s.Messages = append(d.s.Messages, posixMessage{Priority: native.Uint32(buf), Data: buf[prioritySize:]})
	}
	return nil
}

// sigevent is struct sigevent, sigevent(3type).
func (n *notification) sigevent() []byte {
	const size, sigevNone = 64, 1
	b := make([]byte, size)
	native.PutUint64(b, n.Value)
	native.PutUint32(b[8:], uint32(n.Signal))
	if n.Signal == 0 {
		native.PutUint32(b[12:], sigevNone)
	}
	return b
}

// restoreNotifications registers proc again.
func (p *Plugin) restoreNotifications(ctx context.Context, proc plugin.Process) error {
	for _, q := range p.state.POSIX {
		n := q.Notify
		if n == nil || n.PID != proc.PID() {
			continue
		}
		addr, _ := proc.Scratch()
		if err := write(proc, n.sigevent(), addr); err != nil {
			return err
		}
		if _, err := proc.Syscall(ctx, unix.SYS_MQ_NOTIFY, uintptr(n.FD), uintptr(addr)); err != nil {
			return fmt.Errorf("pid %d fd %d: POSIX message queue /%s: mq_notify: %w", n.PID, n.FD, q.Name, err)
		}
	}
	return nil
}

// ReopenFile hands out a description that was made with its queue.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	fd, ok := p.making.files[f.ID]
	if !ok {
		return -1, fmt.Errorf("open file %d (%s): not in the image", f.ID, f.Link)
	}
	delete(p.making.files, f.ID)
	return fd, nil
}

var errNoRoom = errors.New("the limit for POSIX message queues (ulimit -q) is used up; queues of ended programs count until they are unlinked")

// makePOSIX makes the POSIX queues: those without a name first, as others
// have taken their names since.
func (p *Plugin) makePOSIX(ctx context.Context, t *tree) error {
	if len(p.state.POSIX) == 0 && !t.own {
		return nil
	}
	if t.own {
		p.mountQueues(ctx, t.procs[0])
	}
	for _, unlinked := range []bool{true, false} {
		for i := range p.state.POSIX {
			if p.state.POSIX[i].Unlinked != unlinked {
				continue
			}
			if err := p.makePOSIXQueue(ctx, t.procs[0], i); err != nil {
				return fmt.Errorf("POSIX message queue /%s: %w", p.state.POSIX[i].Name, err)
			}
		}
	}
	return nil
}

func (p *Plugin) makePOSIXQueue(ctx context.Context, proc plugin.Process, i int) error {
	q := &p.state.POSIX[i]
	fd, err := q.open(ctx, proc, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("its name: %w", plugin.ErrTaken)
	case errors.Is(err, unix.EMFILE):
		return errNoRoom
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	p.made.queues = append(p.made.queues, q.Name)
	for j, m := range q.Messages {
		if err := mqSend(fd, m); err != nil {
			return fmt.Errorf("message %d: mq_timedsend: %w", j, err)
		}
	}
	for id, f := range p.state.Files {
		if f.Queue != i {
			continue
		}
		if p.making.files[id], err = q.open(ctx, proc, f.Flags); err != nil {
			delete(p.making.files, id)
			return err
		}
	}
	if uint32(os.Geteuid()) != q.UID || uint32(os.Getegid()) != q.GID {
		if err := unix.Fchown(fd, int(q.UID), int(q.GID)); err != nil {
			return fmt.Errorf("fchown to %d:%d: %w", q.UID, q.GID, err)
		}
	}
	if err := unix.Fchmod(fd, q.Mode); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	if !q.Unlinked {
		return nil
	}
	addr, _ := proc.Scratch()
	if err := write(proc, append([]byte(q.Name), 0), addr); err != nil {
		return err
	}
	if _, err := proc.Syscall(ctx, unix.SYS_MQ_UNLINK, uintptr(addr)); err != nil {
		return fmt.Errorf("mq_unlink: %w", err)
	}
	p.made.queues = slices.DeleteFunc(p.made.queues, func(name string) bool { return name == q.Name })
	return nil
}

// open opens the queue in the tree's namespace, and brings the descriptor
// here.
func (q *posixQueue) open(ctx context.Context, proc plugin.Process, flags int) (int, error) {
	addr, _ := proc.Scratch()
	const attrAt = 512
	attr := make([]byte, 64)
	native.PutUint64(attr[8:], uint64(q.Maximum))
	native.PutUint64(attr[16:], uint64(q.Size))
	head := make([]byte, attrAt)
	copy(head, q.Name)
	if err := write(proc, append(head, attr...), addr); err != nil {
		return -1, err
	}
	// The description would keep O_CLOEXEC, which the descriptor has anyway.
	fd, err := proc.Syscall(ctx, unix.SYS_MQ_OPEN, uintptr(addr), uintptr(flags), 0o600, uintptr(addr)+attrAt)
	if err != nil {
		return -1, fmt.Errorf("mq_open: %w", err)
	}
	return pull(ctx, proc, fd)
}
