package event

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// claimEnded saves the pidfd of a process or thread that nothing is left of.
func claimEnded(f plugin.OpenFile) (file, error) {
	fd, err := f.Dup()
	if err != nil {
		return file{}, plugin.Refuse(f, "%v", err)
	}
	defer unix.Close(fd)
	status, err := exitStatus(fd)
	if err != nil {
		return file{}, plugin.Refuse(f, "%v", err)
	}
	return file{PIDFD: &pidFD{Ended: &ended{Process: f.Stat.Ino, Status: status, Thread: f.Flags&pidfdThread != 0}}}, nil
}

// coreDumped is the bit of a wait status that tells of a core dump. None is
// made a second time.
const coreDumped = 0x80

// exitStatus returns the wait status that a pidfd shows of what was waited
// for: 0 before Linux 6.15, where no program can see it (PIDFD_INFO_EXIT).
func exitStatus(fd int) (int, error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(fd, &info)
	switch {
	case errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("ioctl PIDFD_GET_INFO: %w", err)
	case info.Mask&unix.PIDFD_INFO_EXIT == 0:
		return 0, nil
	}
	return int(info.Exit_code) &^ coreDumped, nil
}

// makeEnded makes the pidfds of ended processes. Those of one process are of
// one process again: they have one inode.
func (p *Plugin) makeEnded(ctx context.Context) error {
	processes := map[uint64][]int{} // ids of files
	for _, id := range slices.Sorted(maps.Keys(p.state.Files)) {
		if s := p.state.Files[id].PIDFD; s != nil && s.Ended != nil {
			processes[s.Ended.Process] = append(processes[s.Ended.Process], id)
		}
	}
	for _, ids := range processes {
		status := p.state.Files[ids[0]].PIDFD.Ended.Status
		err := p.host.Ended(ctx, status, func(hostPID int) error {
			for _, id := range ids {
				flags := 0
				if p.state.Files[id].PIDFD.Ended.Thread {
					flags = pidfdThread
				}
				fd, err := unix.PidfdOpen(hostPID, flags)
				if err != nil {
					return fmt.Errorf("pidfd_open: %w", err)
				}
				p.made.ended[id] = fd
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("open file %d (pidfd of an ended process): %w", ids[0], err)
		}
	}
	return nil
}

// takeEnded returns the pidfd of an ended process that makeEnded has made for
// the open file id.
func (p *Plugin) takeEnded(id int) (int, error) {
	fd, ok := p.made.ended[id]
	if !ok {
		return -1, errors.New("the pidfd was not made")
	}
	delete(p.made.ended, id)
	return fd, nil
}
