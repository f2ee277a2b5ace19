package event

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimEpoll chooses for each registration the process that adds it again.
func (p *Plugin) claimEpoll(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	e := &epoll{Targets: []target{}}
	seen := make(map[int]uint32) // registrations of the same number so far
	for _, line := range info.Fields["tfd"] {
		t, err := parseTarget(line)
		if err != nil {
			return file{}, plugin.Refuse(f, "fdinfo tfd: %v", err)
		}
		if err := p.locate(f, &t, seen[t.FD]); err != nil {
			return file{}, err
		}
		seen[t.FD]++
		e.Targets = append(e.Targets, t)
	}
	return file{Epoll: e}, nil
}

// locate finds a process with a descriptor of the epoll f that has the
// nth registration of number t.FD open under this number.
func (p *Plugin) locate(f plugin.OpenFile, t *target, nth uint32) error {
	for _, ref := range f.Refs {
		host, ok := p.tree.hosts[ref.PID]
		if !ok {
			continue
		}
		same, err := epollSlot{uint32(ref.FD), uint32(t.FD), nth}.isTarget(host)
		if err != nil {
			return plugin.Refuse(f, "cannot identify the registered fd %d: %v", t.FD, err)
		}
		if same {
			t.PID, t.EpollFD = ref.PID, ref.FD
			return nil
		}
	}
	return plugin.Refuse(f, "the registered fd %d was closed while a duplicate keeps its file open", t.FD)
}

// parseTarget parses what follows "tfd:", proc_pid_fdinfo(5):
// "7 events: 19 data: 4  pos:0 ino:4639 sdev:f".
func parseTarget(line string) (t target, err error) {
	w := strings.Fields(line)
	if len(w) < 5 || w[1] != "events:" || w[3] != "data:" {
		return target{}, fmt.Errorf("%q is not a registration", line)
	}
	fd, err := strconv.ParseUint(w[0], 10, 31)
	if err != nil {
		return target{}, err
	}
	events, err := strconv.ParseUint(w[2], 16, 32)
	if err != nil {
		return target{}, fmt.Errorf("events: %w", err)
	}
	t = target{FD: int(fd), Events: uint32(events)}
	if t.Data, err = strconv.ParseUint(w[4], 16, 64); err != nil {
		return target{}, fmt.Errorf("data: %w", err)
	}
	return t, nil
}

// restoreEpolls injects the registrations that were chosen for proc.
func (p *Plugin) restoreEpolls(ctx context.Context, proc plugin.Process) error {
	for _, id := range slices.Sorted(maps.Keys(p.state.Files)) {
		e := p.state.Files[id].Epoll
		if e == nil {
			continue
		}
		if err := e.restore(ctx, proc); err != nil {
			return fmt.Errorf("pid %d: %w", proc.PID(), err)
		}
	}
	return nil
}

func (e *epoll) restore(ctx context.Context, proc plugin.Process) error {
	var spent, armed []target
	whole := true // proc restores the whole epoll
	for _, t := range e.Targets {
		switch {
		case t.PID != proc.PID():
			whole = false
		case t.spent():
			spent = append(spent, t)
		default:
			armed = append(armed, t)
		}
	}
	if !whole {
		armed, spent = append(armed, spent...), nil
	}
	if err := spend(ctx, proc, spent); err != nil {
		return err
	}
	return add(ctx, proc, armed)
}

// spend adds registrations whose EPOLLONESHOT has fired. The kernel adds
// EPOLLERR and EPOLLHUP to any mask that epoll_ctl(2) sets; the only way to an
// empty mask is to let the registration fire, which succeeds where the file is
// ready for anything. It is done before the epoll has other registrations,
// whose events would be taken. What does not fire stays armed for EPOLLERR and
// EPOLLHUP.
func spend(ctx context.Context, proc plugin.Process, targets []target) error {
	const anything = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP
	addr, _ := proc.Scratch()
	for _, t := range targets {
		eager := t
		eager.Events |= anything
		if err := writeEvents(proc, addr, eager); err != nil {
			return err
		}
		calls := []plugin.Call{
			t.control(unix.EPOLL_CTL_ADD, addr),
			{Nr: unix.SYS_EPOLL_PWAIT, Args: [6]uintptr{uintptr(t.EpollFD), uintptr(addr), 1, 0, 0, 8}},
		}
		if err := batch(ctx, proc, calls, t, t); err != nil {
			return err
		}
		if fired := calls[1].Ret == 1; fired {
			continue
		}
		if err := writeEvents(proc, addr, t); err != nil {
			return err
		}
		if err := batch(ctx, proc, []plugin.Call{t.control(unix.EPOLL_CTL_MOD, addr)}, t); err != nil {
			return err
		}
	}
	return nil
}

// add adds registrations, as many at a time as have room in the scratch memory.
func add(ctx context.Context, proc plugin.Process, targets []target) error {
	addr, size := proc.Scratch()
	for chunk := range slices.Chunk(targets, max(size/eventSize, 1)) {
		if err := writeEvents(proc, addr, chunk...); err != nil {
			return err
		}
		calls := make([]plugin.Call, len(chunk))
		for i, t := range chunk {
			calls[i] = t.control(unix.EPOLL_CTL_ADD, addr+uint64(i*eventSize))
		}
		if err := batch(ctx, proc, calls, chunk...); err != nil {
			return err
		}
	}
	return nil
}

// control is the call epoll_ctl with the event at addr.
func (t target) control(op int, addr uint64) plugin.Call {
	return plugin.Call{Nr: unix.SYS_EPOLL_CTL, Args: [6]uintptr{uintptr(t.EpollFD), uintptr(op), uintptr(t.FD), uintptr(addr)}}
}

// writeEvents writes the struct epoll_event of each target to addr.
func writeEvents(proc plugin.Process, addr uint64, targets ...target) error {
	b := make([]byte, len(targets)*eventSize)
	for i, t := range targets {
		event := b[i*eventSize:]
		binary.NativeEndian.PutUint32(event, t.Events)
		binary.NativeEndian.PutUint64(event[eventDataOffset:], t.Data)
	}
	if _, err := proc.WriteAt(b, int64(addr)); err != nil {
		return fmt.Errorf("scratch memory: %w", err)
	}
	return nil
}

// batch names the registration that failed; calls[i] is of targets[i].
func batch(ctx context.Context, proc plugin.Process, calls []plugin.Call, targets ...target) error {
	err := proc.Batch(ctx, calls)
	if err == nil {
		return nil
	}
	for i, c := range calls {
		if c.Err != 0 {
			return fmt.Errorf("epoll fd %d: registration of fd %d: %w", targets[i].EpollFD, targets[i].FD, err)
		}
	}
	return err
}
