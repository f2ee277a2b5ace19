package event

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "event",
		Summary: "eventfd, signalfd, epoll with its registrations, pidfd",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Restart},
		New:     func(plugin.Host) (plugin.Plugin, error) { return &Plugin{}, nil },
	}
}

// Plugin keeps the event objects of one agent.
type Plugin struct {
	tree  tree
	state state
}

// Handle notes the processes of the tree, and begins an empty state with
// each checkpoint.
func (p *Plugin) Handle(_ context.Context, ev plugin.Event) error {
	p.tree = newTree(ev.Procs)
	if ev.Kind == plugin.PreCheckpoint {
		p.state = state{}
	}
	return nil
}

// ClaimFile saves the object behind f.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	claim := p.claimerOf(f.Link)
	if claim == nil {
		return plugin.ErrNotMine
	}
	info, err := procparse.ParseFDInfo(f.FDInfo)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	saved, err := claim(f, info)
	if err != nil {
		return err
	}
	p.state.add(f.ID, saved)
	return nil
}

type claimer func(plugin.OpenFile, procparse.FDInfo) (file, error)

// claimerOf tells by the link of a descriptor, proc_pid_fd(5), who saves it.
func (p *Plugin) claimerOf(link string) claimer {
	switch link {
	case "anon_inode:[eventfd]":
		return claimEventFD
	case "anon_inode:[signalfd]":
		return claimSignalFD
	case "anon_inode:[eventpoll]":
		return p.claimEpoll
	case "anon_inode:[pidfd]":
		return p.claimPIDFD
	}
	if strings.HasPrefix(link, "pidfd:[") { // Linux 6.9
		return p.claimPIDFD
	}
	return nil
}

// ReopenFile makes the object again.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	saved := p.state.Files[f.ID]
	var fd int
	var err error
	switch {
	case saved.EventFD != nil:
		fd, err = saved.EventFD.reopen()
	case saved.SignalFD != nil:
		fd, err = saved.SignalFD.reopen()
	case saved.Epoll != nil:
		if fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			err = fmt.Errorf("epoll_create1: %w", err)
		}
	case saved.PIDFD != nil:
		fd, err = p.reopenPIDFD(saved.PIDFD, f.Flags)
	default:
		err = fmt.Errorf("not in the image")
	}
	if err != nil {
		return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
	}
	if f.Flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("open file %d (%s): fcntl O_NONBLOCK: %w", f.ID, f.Link, err)
		}
	}
	return fd, nil
}

// SaveProcess has nothing to save.
func (p *Plugin) SaveProcess(context.Context, plugin.Process) error { return nil }

// RestoreProcess adds the registrations of epolls for which proc was chosen.
func (p *Plugin) RestoreProcess(ctx context.Context, proc plugin.Process) error {
	return p.restoreEpolls(ctx, proc)
}

var (
	_ plugin.Plugin       = (*Plugin)(nil)
	_ plugin.Stater       = (*Plugin)(nil)
	_ plugin.FileClaimer  = (*Plugin)(nil)
	_ plugin.ProcessSaver = (*Plugin)(nil)
)
