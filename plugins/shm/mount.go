package shm

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// pull brings a descriptor of proc here, and closes it there.
func pull(ctx context.Context, proc plugin.Process, fd uintptr) (int, error) {
	here, err := linux.DupFrom(plugin.LiveTID(proc), int(fd))
	if err != nil {
		err = fmt.Errorf("pid %d fd %d: duplicate: %w", proc.PID(), fd, err)
	}
	_, err2 := proc.Syscall(ctx, unix.SYS_CLOSE, fd)
	if err = errors.Join(err, err2); err != nil && here >= 0 {
		unix.Close(here)
		here = -1
	}
	return here, err
}

// mountQueues makes a mount of the tree's queues that only we can see
// (fsopen(2), fsmount(2)): by it the next checkpoint finds those that nobody
// has open, also where the host has no /dev/mqueue.
func (p *Plugin) mountQueues(ctx context.Context, proc plugin.Process) {
	fd, err := mountIn(ctx, proc, "mqueue")
	if err != nil {
		p.host.Log().Warn().Err(err).Msg("POSIX message queues that no process has open will not be found")
		return
	}
	p.closeQueues()
	p.queues = fd
}

func mountIn(ctx context.Context, proc plugin.Process, fsType string) (int, error) {
	addr, _ := proc.Scratch()
	if err := write(proc, append([]byte(fsType), 0), addr); err != nil {
		return -1, err
	}
	fs := []plugin.Source{{Arg: 0, Result: 0}}
	calls := []plugin.Call{
		{Nr: unix.SYS_FSOPEN, Args: [6]uintptr{uintptr(addr), unix.FSOPEN_CLOEXEC}},
		{Nr: unix.SYS_FSCONFIG, Args: [6]uintptr{0, unix.FSCONFIG_CMD_CREATE}, Sources: fs, MayFail: true},
		{Nr: unix.SYS_FSMOUNT, Args: [6]uintptr{0, unix.FSMOUNT_CLOEXEC}, Sources: fs, MayFail: true},
		{Nr: unix.SYS_CLOSE, Sources: fs, MayFail: true},
	}
	if err := proc.Batch(ctx, calls); err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fsType, err)
	}
	if err := calls[1].Err; err != 0 {
		return -1, fmt.Errorf("fsconfig %s: %w", fsType, err)
	}
	if err := calls[2].Err; err != 0 {
		return -1, fmt.Errorf("fsmount %s: %w", fsType, err)
	}
	return pull(ctx, proc, calls[2].Ret)
}

func (p *Plugin) closeQueues() {
	if p.queues >= 0 {
		unix.Close(p.queues)
		p.queues = -1
	}
}
