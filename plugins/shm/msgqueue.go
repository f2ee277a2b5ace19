package shm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// saveQueues saves the System V message queues with their messages.
func (p *Plugin) saveQueues(ctx context.Context, t *tree) error {
	all := t.found[msgKind.name]
	if len(all) == 0 {
		return nil
	}
	if err := t.learnUsers(ctx); err != nil {
		return err
	}
	waiting := t.waiting()[unix.SYS_MSGCTL]
	var errs []error
	for _, o := range all {
		u := t.users(o.last, o.pid(msgSendAt), o.pid(msgRecvAt))
		u.inside = u.inside || waiting[o.ID]
		err := p.judge(t, msgKind, &o, u)
		if err == nil {
			err = p.saveQueue(ctx, t, o, u.inside || t.own)
		}
		if !errors.Is(err, errOther) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *Plugin) saveQueue(ctx context.Context, t *tree, o object, certain bool) error {
	q := msgQueue{perm: o.perm, Limit: o.u64(msgLimitAt), Sender: o.pid(msgSendAt), Receiver: o.pid(msgRecvAt)}
	proc, err := t.reader(ctx, msgKind, o)
	if errors.Is(err, unix.EACCES) {
		if certain {
			return t.refuse(msgKind, &o, "its permissions do not let the computation read it")
		}
		return errOther
	}
	if err != nil {
		return err
	}
	q.Messages, err = peek(ctx, proc, o.ID, int(o.u64(msgCountAt)), int(o.u64(msgBytesAt)))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
		return errOther // somebody outside has removed it meanwhile
	}
	if errors.Is(err, unix.ENOMSG) { // the computation stands still
		if certain {
			return t.refuse(msgKind, &o, "a process outside the computation takes messages from it")
		}
		return errOther
	}
	if err != nil {
		return fmt.Errorf("pid %d: message queue %d: %w", proc.PID(), o.ID, err)
	}
	if os.Geteuid() != 0 {
		switch why := q.fit(certain); {
		case why == "":
		case certain:
			return t.refuse(msgKind, &o, "in a new IPC namespace an ordinary user may not have it: %s", why)
		default:
			p.host.Log().Warn().Int("queue", o.ID).Str("why", why).Msg("not saved: nothing shows that the program uses it")
			return errOther
		}
	}
	p.state.Queues = append(p.state.Queues, q)
	return nil
}

// Values in /proc/sys/kernel of a new IPC namespace: the longest message, and the most
// bytes of a queue.
const (
	defaultMsgmax = 8192
	defaultMsgmnb = 16384
)

// fit returns why a new IPC namespace has no room for the queue, if its user has no
// privileges on the machine (ipc/msg.c, msgctl_down). Where it may be another
// program's, it may hold less than it did: kernel.msgmnb is the limit of all.
func (q *msgQueue) fit(certain bool) string {
	held := 0
	for _, m := range q.Messages {
		if held += len(m.Data); len(m.Data) > defaultMsgmax {
			return fmt.Sprintf("it holds a message of %d bytes, the most are %d", len(m.Data), defaultMsgmax)
		}
	}
	if held > defaultMsgmnb || certain && q.Limit > defaultMsgmnb {
		return fmt.Sprintf("it is for %d bytes, and has %d: the most are %d (msg_qbytes of msgctl(2), kernel.msgmnb)", q.Limit, held, defaultMsgmnb)
	}
	q.Limit = min(q.Limit, defaultMsgmnb)
	return ""
}

// peek reads all messages, which stay where they are: msgrcv(2), MSG_COPY.
func peek(ctx context.Context, proc plugin.Process, id, count, bytes int) ([]message, error) {
	if count == 0 {
		return nil, nil
	}
	room := min(bytes, sysctl("msgmax", math.MaxInt32)) + 8
	b, err := newBuffer(ctx, proc, room)
	if err != nil {
		return nil, err
	}
	defer b.free(ctx)
	var all []message
	for first := 0; first < count; {
		n := min(count-first, b.size/room)
		calls := make([]plugin.Call, n)
		for i := range calls {
			calls[i] = plugin.Call{Nr: unix.SYS_MSGRCV, Args: [6]uintptr{uintptr(id), uintptr(b.addr) + uintptr(i*room),
				uintptr(room - 8), uintptr(first + i), msgCopy | ipcNowait}}
		}
		if err := proc.Batch(ctx, calls); err != nil {
			return nil, fmt.Errorf("msgrcv MSG_COPY: %w", err)
		}
		for i, c := range calls {
			buf := make([]byte, 8+int(c.Ret))
			if err := read(proc, buf, b.addr+uint64(i*room)); err != nil {
				return nil, err
			}
			all = append(all, message{Type: int64(native.Uint64(buf)), Data: buf[8:]})
		}
		first += n
	}
	return all, nil
}

func sysctl(name string, byDefault int) int {
	raw, err := os.ReadFile("/proc/sys/kernel/" + name)
	if err != nil {
		return byDefault
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || n <= 0 {
		return byDefault
	}
	return n
}

// buffer is memory of a process: its scratch memory, or a mapping where that
// is too small.
type buffer struct {
	proc   plugin.Process
	addr   uint64
	size   int
	mapped bool
}

func newBuffer(ctx context.Context, proc plugin.Process, size int) (*buffer, error) {
	b := &buffer{proc: proc}
	if b.addr, b.size = proc.Scratch(); b.size >= size {
		return b, nil
	}
	at, err := proc.Syscall(ctx, unix.SYS_MMAP, 0, uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	b.addr, b.size, b.mapped = uint64(at), size, true
	return b, nil
}

func (b *buffer) free(ctx context.Context) {
	if b.mapped {
		_, _ = b.proc.Syscall(context.WithoutCancel(ctx), unix.SYS_MUNMAP, uintptr(b.addr), uintptr(b.size))
	}
}

// makeQueues makes the queues with their messages.
func (p *Plugin) makeQueues(ctx context.Context, t *tree) error {
	return p.makeEach(ctx, t, msgKind, len(p.state.Queues), func(m *maker, i int) error {
		q := p.state.Queues[i]
		get := plugin.Call{Nr: unix.SYS_MSGGET, Args: [6]uintptr{uintptr(uint32(q.Key)), ipcCreat | ipcExcl | q.writable()}}
		if err := m.make(ctx, m.proc, q.perm, get); err != nil {
			return err
		}
		open := q.perm
		open.Mode |= 0o600
		if err := p.finishObject(ctx, msgKind, m.proc, open, q.Limit); err != nil {
			return err
		}
		if err := q.markReceiver(ctx, t); err != nil {
			return err
		}
		for j, msg := range q.Messages {
			if err := msg.send(ctx, t.process(q.Sender), q.ID); err != nil {
				return fmt.Errorf("message queue %d: message %d: msgsnd: %w", q.ID, j, err)
			}
		}
		return nil
	}, func(i int) perm { return p.state.Queues[i].perm })
}

// markReceiver makes msg_lrpid, and msg_lspid where no message is left.
func (q *msgQueue) markReceiver(ctx context.Context, t *tree) error {
	proc := t.byPID[q.Receiver]
	if q.Receiver == 0 || proc == nil {
		return nil
	}
	if err := (message{Type: 1}).send(ctx, t.process(q.Sender), q.ID); err != nil {
		return fmt.Errorf("message queue %d: msgsnd: %w", q.ID, err)
	}
	addr, _ := proc.Scratch()
	if _, err := proc.Syscall(ctx, unix.SYS_MSGRCV, uintptr(q.ID), uintptr(addr), 0, 0, ipcNowait); err != nil {
		return fmt.Errorf("message queue %d: msgrcv: %w", q.ID, err)
	}
	return nil
}

func (m message) send(ctx context.Context, proc plugin.Process, id int) error {
	b, err := newBuffer(ctx, proc, 8+len(m.Data))
	if err != nil {
		return err
	}
	defer b.free(ctx)
	if err := write(proc, append(native.AppendUint64(nil, uint64(m.Type)), m.Data...), b.addr); err != nil {
		return err
	}
	_, err = proc.Syscall(ctx, unix.SYS_MSGSND, uintptr(id), uintptr(b.addr), uintptr(len(m.Data)), ipcNowait)
	return err
}

// finishQueues gives the queues their owner and permissions.
func (p *Plugin) finishQueues(ctx context.Context, t *tree) error {
	for _, q := range p.state.Queues {
		if p.making.left(msgKind, q.ID) {
			continue
		}
		if err := p.finishObject(ctx, msgKind, t.procs[0], q.perm, q.Limit); err != nil {
			return err
		}
	}
	return nil
}
