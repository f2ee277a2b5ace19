package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimEpoll chooses for each registration the process that adds it again.
func (p *Plugin) claimEpoll(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	e := &epoll{Targets: []target{}}
	if err := e.readParams(f); err != nil {
		return file{}, plugin.Refuse(f, "%v", err)
	}
	seen := make(map[int]uint32) // registrations of the same number so far
	for _, line := range info.Fields["tfd"] {
		t, ino, err := parseTarget(line)
		if err != nil {
			return file{}, plugin.Refuse(f, "fdinfo tfd: %v", err)
		}
		if err := p.locate(f, &t, seen[t.FD], ino); err != nil {
			return file{}, err
		}
		seen[t.FD]++
		e.Targets = append(e.Targets, t)
	}
	return file{Epoll: e}, nil
}

// parseTarget parses what follows "tfd:", proc_pid_fdinfo(5):
// "7 events: 19 data: 4  pos:0 ino:4639 sdev:f". Before Linux 5.8 it ends
// behind the data, and ino is 0.
func parseTarget(line string) (t target, ino uint64, err error) {
	w := strings.Fields(line)
	if len(w) < 5 || w[1] != "events:" || w[3] != "data:" {
		return target{}, 0, fmt.Errorf("%q is not a registration", line)
	}
	fd, err := strconv.ParseUint(w[0], 10, 31)
	if err != nil {
		return target{}, 0, err
	}
	events, err := strconv.ParseUint(w[2], 16, 32)
	if err != nil {
		return target{}, 0, fmt.Errorf("events: %w", err)
	}
	t = target{FD: int(fd), Events: uint32(events)}
	if t.Data, err = strconv.ParseUint(w[4], 16, 64); err != nil {
		return target{}, 0, fmt.Errorf("data: %w", err)
	}
	for _, field := range w[5:] {
		if hex, ok := strings.CutPrefix(field, "ino:"); ok {
			if ino, err = strconv.ParseUint(hex, 16, 64); err != nil {
				return target{}, 0, fmt.Errorf("ino: %w", err)
			}
		}
	}
	return t, ino, nil
}

// locate finds a process with a descriptor of the epoll f that has the nth
// registration of number t.FD open: under this number, or else anywhere in the
// tree, where a duplicate has outlived the number.
func (p *Plugin) locate(f plugin.OpenFile, t *target, nth uint32, ino uint64) error {
	if len(f.Refs) == 0 {
		return plugin.Refuse(f, "%s", inFlight)
	}
	slot := linux.EpollSlot{TFD: uint32(t.FD), TOff: nth}
	for _, ref := range f.Refs {
		tid, ok := p.tree.hosts[ref.PID]
		if !ok {
			continue
		}
		t.PID, t.EpollFD, slot.EFD = ref.PID, ref.FD, uint32(ref.FD)
		same, err := isTarget(tid, t.FD, tid, slot)
		if err != nil {
			return plugin.Refuse(f, "cannot identify the registered fd %d: %v", t.FD, err)
		}
		if same {
			return nil
		}
	}
	from, err := p.tree.holder(slot, p.tree.hosts[t.PID], ino)
	if err != nil {
		return plugin.Refuse(f, "cannot identify the registered fd %d: %v", t.FD, err)
	}
	if from == nil {
		return plugin.Refuse(f, "the registered fd %d was closed while something else than a descriptor of this computation keeps its file open", t.FD)
	}
	t.From = from
	return nil
}

// isTarget says whether descriptor fd of the thread tid is the very file that
// is registered. A number that is not open is not.
func isTarget(tid, fd, epollTID int, slot linux.EpollSlot) (bool, error) {
	order, err := linux.KcmpEpollTfd(tid, fd, epollTID, slot)
	if errors.Is(err, unix.EBADF) {
		return false, nil
	}
	return order == 0, err
}

// holder finds a descriptor of the tree that is the registered file, whose
// inode is known unless it is 0.
func (t tree) holder(slot linux.EpollSlot, epollTID int, ino uint64) (*source, error) {
	for _, pid := range t.sorted() {
		tid := t.hosts[pid]
		for _, fd := range descriptors(tid) {
			var st unix.Stat_t
			if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", tid, fd), &st); err != nil || ino != 0 && st.Ino != ino {
				continue
			}
			same, err := isTarget(tid, fd, epollTID, slot)
			if err != nil {
				return nil, err
			}
			if same {
				return &source{PID: pid, FD: fd}, nil
			}
		}
	}
	return nil, nil
}

// saveReadiness asks, as proc itself, whether the epolls of whose
// registrations it has the first are ready, and if not, for what their
// edge-triggered files are. It cannot be done from outside: a signalfd is
// ready or not for whoever asks, and an epoll forgets what it finds not ready.
func (p *Plugin) saveReadiness(ctx context.Context, proc plugin.Process) error {
	for id, f := range p.state.Files {
		e := f.Epoll
		if e == nil || len(e.Targets) == 0 || e.Targets[0].PID != proc.PID() {
			continue
		}
		fds := []int{e.Targets[0].EpollFD}
		var at []int
		for i, t := range e.Targets {
			if t.edge() && t.PID == proc.PID() {
				fds, at = append(fds, t.FD), append(at, i)
			}
		}
		if len(at) == 0 {
			continue
		}
		ready, err := pollAll(ctx, proc, fds)
		if err != nil {
			return fmt.Errorf("pid %d: open file %d (epoll): %w", proc.PID(), id, err)
		}
		if e.Quiet = ready[0] == 0; !e.Quiet {
			continue
		}
		for i, k := range at {
			e.Targets[k].Ready = ready[1+i]
		}
	}
	return nil
}

// pollAll returns for what each of fds is ready. poll(2) and epoll(7) have the
// same bits.
func pollAll(ctx context.Context, proc plugin.Process, fds []int) ([]uint32, error) {
	const (
		size   = 8      // struct pollfd
		most   = 256    // at a time: no more than RLIMIT_NOFILE
		events = 0x27ff // all
	)
	addr, _ := proc.Scratch()
	var ready []uint32
	for chunk := range slices.Chunk(fds, most) {
		var b []byte
		for _, fd := range chunk {
			b = binary.NativeEndian.AppendUint32(b, uint32(fd))
			b = binary.NativeEndian.AppendUint32(b, events)
		}
		timeout := uintptr(addr) + uintptr(len(b))
		b = append(b, make([]byte, 16)...)
		if _, err := proc.WriteAt(b, int64(addr)); err != nil {
			return nil, fmt.Errorf("scratch memory: %w", err)
		}
		if _, err := proc.Syscall(ctx, unix.SYS_PPOLL, uintptr(addr), uintptr(len(chunk)), timeout, 0, 8); err != nil {
			return nil, fmt.Errorf("ppoll: %w", err)
		}
		if _, err := proc.ReadAt(b, int64(addr)); err != nil {
			return nil, fmt.Errorf("scratch memory: %w", err)
		}
		for i := range chunk {
			ready = append(ready, uint32(binary.NativeEndian.Uint16(b[i*size+6:])))
		}
	}
	return ready, nil
}

// reopen makes an epoll without registrations.
func (e *epoll) reopen() (int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("epoll_create1: %w", err)
	}
	if e.Params == nil {
		return fd, nil
	}
	if err := setEpollParams(fd, *e.Params); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// readParams reads the busy polling of Linux 6.9. Older kernels have none.
func (e *epoll) readParams(f plugin.OpenFile) error {
	fd, err := f.Dup()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	params, err := getEpollParams(fd)
	switch {
	case errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP):
		return nil
	case err != nil:
		return err
	case params != epollParams{}:
		e.Params = &params
	}
	return nil
}
