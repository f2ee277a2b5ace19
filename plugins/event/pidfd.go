package event

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// pidfdThread is PIDFD_THREAD, which fdinfo shows as O_EXCL.
const pidfdThread = unix.PIDFD_THREAD

func (p *Plugin) claimPIDFD(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	host, err := strconv.Atoi(info.Field("Pid"))
	if err != nil {
		return file{}, plugin.Refuse(f, "fdinfo Pid: %v", err)
	}
	if host == -1 {
		return claimEnded(f)
	}
	if pid, ok := p.tree.pids[host]; ok {
		return file{PIDFD: &pidFD{PID: pid}}, nil
	}
	if f.Flags&pidfdThread != 0 {
		if th, ok := p.tree.threads[host]; ok {
			return file{PIDFD: &pidFD{PID: th.pid, TID: th.tid}}, nil
		}
		return file{}, plugin.Refuse(f, "it refers to thread %d, which is not of this computation", host)
	}
	pid, ok := p.tree.zombie(host)
	if !ok {
		return file{}, plugin.Refuse(f, "it refers to process %d, which is not of this computation", host)
	}
	return file{PIDFD: &pidFD{PID: pid}}, nil
}

// reopenPIDFD makes the pidfd of a process. For that of a thread, which does
// not exist yet, it stands in its place.
func (p *Plugin) reopenPIDFD(saved *pidFD, flags int) (int, error) {
	host, ok := p.tree.host(saved.PID)
	if !ok {
		return -1, fmt.Errorf("pid %d is not in the restarted tree", saved.PID)
	}
	fd, err := unix.PidfdOpen(host, flags&pidfdThread)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open of pid %d (%d outside): %w", saved.PID, host, err)
	}
	return fd, nil
}

// openThread puts the pidfd of a thread in the place of what stands there, in
// every process that has the description f.
func (s *pidFD) openThread(ctx context.Context, procs map[int]plugin.Process, f plugin.OpenFile) error {
	first := f.Refs[0]
	for i, ref := range f.Refs {
		proc, ok := procs[ref.PID]
		if !ok {
			return fmt.Errorf("pid %d is not in the restarted tree", ref.PID)
		}
		var fd int
		var err error
		if i == 0 {
			var got uintptr
			got, err = proc.Syscall(ctx, unix.SYS_PIDFD_OPEN, uintptr(s.TID), uintptr(f.Flags&(pidfdThread|unix.PIDFD_NONBLOCK)))
			fd = int(got)
			if err != nil {
				err = fmt.Errorf("pidfd_open of thread %d: %w", s.TID, err)
			}
		} else {
			fd, err = fetch(ctx, proc, source{PID: first.PID, FD: first.FD}, 0)
		}
		if err != nil {
			return fmt.Errorf("pid %d fd %d: %w", ref.PID, ref.FD, err)
		}
		if err := moveTo(ctx, proc, fd, ref); err != nil {
			return fmt.Errorf("pid %d fd %d: %w", ref.PID, ref.FD, err)
		}
	}
	return nil
}

// moveTo gives fd the number of ref.
func moveTo(ctx context.Context, proc plugin.Process, fd int, ref plugin.FileRef) error {
	cloexec := uintptr(0)
	if ref.Cloexec {
		cloexec = unix.O_CLOEXEC
	}
	_, err := proc.Syscall(ctx, unix.SYS_DUP3, uintptr(fd), uintptr(ref.FD), cloexec)
	if err != nil {
		err = fmt.Errorf("dup3: %w", err)
	}
	return errors.Join(err, closeIn(ctx, proc, fd))
}
