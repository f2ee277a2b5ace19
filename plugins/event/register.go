package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// registrar adds the registrations of all epolls, when all processes have
// their descriptors.
type registrar struct {
	procs  map[int]plugin.Process
	epolls map[int]*epoll // by open file
	at     map[source]int // the open file of each descriptor of an epoll
	done   map[int]bool
}

// addAll adds the registrations of every epoll, those of an epoll inside of
// another first: what is added to the inner one would be an edge for the outer.
func (r *registrar) addAll(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(r.epolls)) {
		if err := r.addTo(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (r *registrar) addTo(ctx context.Context, id int) error {
	if r.done[id] {
		return nil
	}
	r.done[id] = true
	e := r.epolls[id]
	var spent, told, rest []target
	for _, t := range e.Targets {
		if inner, ok := r.at[t.file()]; ok {
			if err := r.addTo(ctx, inner); err != nil {
				return err
			}
		}
		switch {
		case t.From != nil:
			rest = append(rest, t)
		case t.spent():
			spent = append(spent, t)
		case t.edge() && e.Quiet:
			told = append(told, t)
		default:
			rest = append(rest, t)
		}
	}
	if err := r.spend(ctx, spent); err != nil {
		return err
	}
	if err := r.takeEdges(ctx, told); err != nil {
		return err
	}
	return r.add(ctx, rest)
}

// adder is where a process adds registrations: its scratch memory.
type adder struct {
	plugin.Process
	addr uint64
	room int // in events
}

func (r *registrar) adder(t target) (adder, error) {
	proc, ok := r.procs[t.PID]
	if !ok {
		return adder{}, fmt.Errorf("pid %d fd %d (epoll): the process is not in the restarted tree", t.PID, t.EpollFD)
	}
	addr, size := proc.Scratch()
	return adder{proc, addr, max(size/eventSize, 2)}, nil
}

// byProcess calls f with the targets of each process.
func (r *registrar) byProcess(targets []target, f func(adder, []target) error) error {
	groups := map[int][]target{}
	for _, t := range targets {
		groups[t.PID] = append(groups[t.PID], t)
	}
	for _, pid := range slices.Sorted(maps.Keys(groups)) {
		a, err := r.adder(groups[pid][0])
		if err == nil {
			err = f(a, groups[pid])
		}
		if err != nil {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	return nil
}

// spend adds registrations whose EPOLLONESHOT has fired. The kernel adds
// EPOLLERR and EPOLLHUP to any mask that epoll_ctl(2) sets; the only way to an
// empty mask is to let the registration fire, which succeeds where the file is
// ready for anything. It is done before the epoll has other registrations,
// whose events would be taken. What does not fire stays armed for EPOLLERR and
// EPOLLHUP.
func (r *registrar) spend(ctx context.Context, targets []target) error {
	return r.byProcess(targets, func(a adder, targets []target) error {
		for _, t := range targets {
			if err := a.spend(ctx, t); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a adder) spend(ctx context.Context, t target) error {
	const anything = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP
	eager := t
	eager.Events |= anything
	if err := a.writeEvents(eager); err != nil {
		return err
	}
	if err := a.batch(ctx, []plugin.Call{t.control(unix.EPOLL_CTL_ADD, a.addr)}, t); err != nil {
		return err
	}
	fired, err := a.fire(ctx, t)
	if err == nil && !fired {
		err = a.withByte(t.FD, func() error {
			fired, err = a.fire(ctx, t)
			return err
		})
	}
	if err != nil || fired {
		return err
	}
	if err := a.writeEvents(t); err != nil {
		return err
	}
	return a.batch(ctx, []plugin.Call{t.control(unix.EPOLL_CTL_MOD, a.addr)}, t)
}

// fire takes one event.
func (a adder) fire(ctx context.Context, t target) (bool, error) {
	calls := []plugin.Call{t.wait(a.addr)}
	err := a.batch(ctx, calls, t)
	return calls[0].Ret == 1, err
}

// withByte calls f while there is a byte in the empty pipe fd. It does nothing
// for other files, and for a pipe that cannot be opened.
func (a adder) withByte(fd int, f func() error) error {
	pipe, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", a.HostPID(), fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(pipe)
	var st unix.Stat_t
	if unix.Fstat(pipe, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	both, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", pipe), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(both)
	if _, err := unix.Write(both, []byte{0}); err != nil {
		return nil
	}
	err = f()
	if _, undo := unix.Read(both, make([]byte, 1)); undo != nil {
		err = errors.Join(err, fmt.Errorf("take the byte out of the pipe fd %d: %w", fd, undo))
	}
	return err
}

// takeEdges adds edge-triggered registrations of an epoll that was not ready,
// and takes the event of each that is: the program had been told. Whatever
// came as a surprise it is told again.
func (r *registrar) takeEdges(ctx context.Context, targets []target) error {
	return r.byProcess(targets, func(a adder, targets []target) error {
		for chunk := range slices.Chunk(targets, a.room/2) {
			if err := a.takeEdges(ctx, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a adder) takeEdges(ctx context.Context, targets []target) error {
	if err := a.writeEvents(targets...); err != nil {
		return err
	}
	results := a.addr + uint64(len(targets)*eventSize)
	var calls []plugin.Call
	for i, t := range targets {
		at := uint64(i * eventSize)
		calls = append(calls, t.control(unix.EPOLL_CTL_ADD, a.addr+at), t.wait(results+at))
	}
	if err := a.batch(ctx, calls, targets...); err != nil {
		return err
	}
	got := make([]byte, len(targets)*eventSize)
	if _, err := a.ReadAt(got, int64(results)); err != nil {
		return fmt.Errorf("scratch memory: %w", err)
	}
	for i, t := range targets {
		if calls[2*i+1].Ret == 0 {
			continue
		}
		events, data := decodeEvent(got[i*eventSize:])
		if data != t.Data { // an earlier one became ready meanwhile
			return a.rearm(ctx, targets)
		}
		if events&^t.Ready != 0 {
			if err := a.rearm(ctx, targets[i:i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// rearm adds registrations anew, which tells of them what is ready. EPOLL_CTL_MOD
// is not allowed with EPOLLEXCLUSIVE.
func (a adder) rearm(ctx context.Context, targets []target) error {
	if err := a.writeEvents(targets...); err != nil {
		return err
	}
	var calls []plugin.Call
	for i, t := range targets {
		at := a.addr + uint64(i*eventSize)
		calls = append(calls, t.control(unix.EPOLL_CTL_DEL, at), t.control(unix.EPOLL_CTL_ADD, at))
	}
	return a.batch(ctx, calls, targets...)
}

// add adds registrations, as many at a time as have room in the scratch memory.
func (r *registrar) add(ctx context.Context, targets []target) error {
	var open, closed []target
	for _, t := range targets {
		if t.From == nil {
			open = append(open, t)
		} else {
			closed = append(closed, t)
		}
	}
	err := r.byProcess(open, func(a adder, targets []target) error {
		for chunk := range slices.Chunk(targets, a.room) {
			if err := a.add(ctx, chunk); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.byProcess(closed, func(a adder, targets []target) error {
		for _, t := range targets {
			if err := a.addClosed(ctx, t); err != nil {
				return fmt.Errorf("epoll fd %d: registration of the closed fd %d: %w", t.EpollFD, t.FD, err)
			}
		}
		return nil
	})
}

func (a adder) add(ctx context.Context, targets []target) error {
	if err := a.writeEvents(targets...); err != nil {
		return err
	}
	calls := make([]plugin.Call, len(targets))
	for i, t := range targets {
		calls[i] = t.control(unix.EPOLL_CTL_ADD, a.addr+uint64(i*eventSize))
	}
	return a.batch(ctx, calls, targets...)
}

// addClosed adds a file under a number that it has no more: it is put there
// for the moment. To close that again drops the process's POSIX locks of the
// file, and of what else has the number, fcntl_locking(2), and its notification
// by a message queue, mq_notify(3): others take these when this is done.
func (a adder) addClosed(ctx context.Context, t target) (err error) {
	file, err := fetch(ctx, a, *t.From, t.FD+1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIn(ctx, a, file)) }()
	const fdCloexec = 1
	flags, err := a.Syscall(ctx, unix.SYS_FCNTL, uintptr(t.FD), unix.F_GETFD)
	switch {
	case errors.Is(err, unix.EBADF):
		defer func() { err = errors.Join(err, closeIn(ctx, a, t.FD)) }()
	case err != nil:
		return fmt.Errorf("fcntl F_GETFD: %w", err)
	default: // the number is used again
		aside, err2 := a.Syscall(ctx, unix.SYS_FCNTL, uintptr(t.FD), unix.F_DUPFD_CLOEXEC, uintptr(t.FD+1))
		if err2 != nil {
			return fmt.Errorf("fcntl F_DUPFD_CLOEXEC: %w", err2)
		}
		defer func() {
			cloexec := uintptr(0)
			if flags&fdCloexec != 0 {
				cloexec = unix.O_CLOEXEC
			}
			_, back := a.Syscall(ctx, unix.SYS_DUP3, aside, uintptr(t.FD), cloexec)
			err = errors.Join(err, back, closeIn(ctx, a, int(aside)))
		}()
	}
	if _, err := a.Syscall(ctx, unix.SYS_DUP3, uintptr(file), uintptr(t.FD), unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("dup3: %w", err)
	}
	return a.add(ctx, []target{t})
}

// fetch gives proc a descriptor, of a number from least on, of what is open
// elsewhere in the tree.
func fetch(ctx context.Context, proc plugin.Process, from source, least int) (int, error) {
	fd := uintptr(from.FD)
	if from.PID != proc.PID() {
		pidfd, err := proc.Syscall(ctx, unix.SYS_PIDFD_OPEN, uintptr(from.PID), 0)
		if err != nil {
			return -1, fmt.Errorf("pidfd_open of pid %d: %w", from.PID, err)
		}
		fd, err = proc.Syscall(ctx, unix.SYS_PIDFD_GETFD, pidfd, uintptr(from.FD), 0)
		err = errors.Join(err, closeIn(ctx, proc, int(pidfd)))
		if err != nil {
			return -1, fmt.Errorf("pidfd_getfd of pid %d fd %d: %w", from.PID, from.FD, err)
		}
		defer func() { _ = closeIn(ctx, proc, int(fd)) }()
	}
	got, err := proc.Syscall(ctx, unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, uintptr(least))
	if err != nil {
		return -1, fmt.Errorf("fcntl F_DUPFD_CLOEXEC of fd %d: %w", fd, err)
	}
	return int(got), nil
}

func closeIn(ctx context.Context, proc plugin.Process, fd int) error {
	if _, err := proc.Syscall(ctx, unix.SYS_CLOSE, uintptr(fd)); err != nil {
		return fmt.Errorf("close fd %d: %w", fd, err)
	}
	return nil
}

// control is the call epoll_ctl with the event at addr.
func (t target) control(op int, addr uint64) plugin.Call {
	return plugin.Call{Nr: unix.SYS_EPOLL_CTL, Args: [6]uintptr{uintptr(t.EpollFD), uintptr(op), uintptr(t.FD), uintptr(addr)}}
}

// wait is the call epoll_pwait for one event, which goes to addr.
func (t target) wait(addr uint64) plugin.Call {
	return plugin.Call{Nr: unix.SYS_EPOLL_PWAIT, Args: [6]uintptr{uintptr(t.EpollFD), uintptr(addr), 1, 0, 0, 8}}
}

// writeEvents writes the struct epoll_event of each target to the scratch memory.
func (a adder) writeEvents(targets ...target) error {
	b := make([]byte, len(targets)*eventSize)
	for i, t := range targets {
		event := b[i*eventSize:]
		binary.NativeEndian.PutUint32(event, t.Events)
		binary.NativeEndian.PutUint64(event[eventDataOffset:], t.Data)
	}
	if _, err := a.WriteAt(b, int64(a.addr)); err != nil {
		return fmt.Errorf("scratch memory: %w", err)
	}
	return nil
}

func decodeEvent(b []byte) (events uint32, data uint64) {
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint64(b[eventDataOffset:])
}

// batch names the registration that failed. calls are as many, or a whole
// multiple, for each of targets.
func (a adder) batch(ctx context.Context, calls []plugin.Call, targets ...target) error {
	err := a.Batch(ctx, calls)
	if err == nil {
		return nil
	}
	for i, c := range calls {
		if c.Err != 0 {
			t := targets[i*len(targets)/len(calls)]
			return fmt.Errorf("epoll fd %d: registration of fd %d: %w", t.EpollFD, t.FD, err)
		}
	}
	return err
}
