package event

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "event",
		Summary: "eventfd, signalfd, epoll with its registrations, inotify with its watches, pidfd, asynchronous I/O contexts",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		New:     func(h plugin.Host) (plugin.Plugin, error) { return &Plugin{host: h}, nil },
	}
}

// Plugin keeps the event objects of one agent.
type Plugin struct {
	host  plugin.Host
	tree  tree
	state state

	refused  []string          // links whose refusal this checkpoint has been told
	searches []search          // of a checkpoint: for the files of watches
	places   map[markKey]place // where they were the last time

	made made // of a restart
}

// made is what a restart has made and not completed yet.
type made struct {
	files   map[int]plugin.OpenFile // as they were reopened
	inotify map[int]int             // the supervisor's duplicates
	ended   map[int]int             // pidfds of ended processes, until they are reopened
	aio     map[aioKey]uint32       // the kernel's numbers of contexts
}

// Handle notes the processes of the tree, begins an empty state with each
// checkpoint, and completes a restart.
func (p *Plugin) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.tree, p.state, p.searches, p.refused = newTree(ev.Procs), state{}, nil, nil
	case plugin.Resume:
		p.searches = nil
	case plugin.Restart:
		p.tree = newTree(ev.Procs)
		p.forget()
		return p.makeEnded(ctx)
	case plugin.Running:
		return p.complete(ctx, ev.Procs)
	case plugin.Exit:
		p.forget()
	}
	return nil
}

// forget closes what a restart has left open.
func (p *Plugin) forget() {
	for _, fds := range []map[int]int{p.made.inotify, p.made.ended} {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	p.made = made{files: map[int]plugin.OpenFile{}, inotify: map[int]int{}, ended: map[int]int{}, aio: map[aioKey]uint32{}}
}

// Hold completes what must be last, and holds nobody up: when all plugins have
// handled Running, files have their names, owners and times, and no watch tells
// the program how they came to them.
func (p *Plugin) Hold(_ context.Context, ev plugin.Event) error {
	if ev.Kind != plugin.Running {
		return nil
	}
	defer p.forget()
	return p.watchAll(byPID(ev.Procs))
}

func byPID(list []plugin.Process) map[int]plugin.Process {
	procs := map[int]plugin.Process{}
	for _, proc := range list {
		procs[proc.PID()] = proc
	}
	return procs
}

// watchAll adds the watches of all inotify instances.
func (p *Plugin) watchAll(procs map[int]plugin.Process) error {
	for _, id := range slices.Sorted(maps.Keys(p.made.inotify)) {
		if err := p.state.Files[id].Inotify.addWatches(p.made.inotify[id], p.pathOf(procs)); err != nil {
			return fmt.Errorf("open file %d (%s): %w", id, p.made.files[id].Link, err)
		}
	}
	return nil
}

// complete does what needs all threads and descriptors to exist. It closes
// descriptors in processes, as addClosed does, and so comes before the last of
// the file plugin, who then takes the locks that this has dropped.
func (p *Plugin) complete(ctx context.Context, list []plugin.Process) error {
	procs := byPID(list)
	r := registrar{procs: procs, epolls: map[int]*epoll{}, at: map[source]int{}, done: map[int]bool{}}
	for _, id := range slices.Sorted(maps.Keys(p.made.files)) {
		f, saved := p.made.files[id], p.state.Files[id]
		switch {
		case saved.Epoll != nil:
			r.epolls[id] = saved.Epoll
			for _, ref := range f.Refs {
				r.at[source{PID: ref.PID, FD: ref.FD}] = id
			}
		case saved.PIDFD != nil && saved.PIDFD.TID != 0:
			if err := saved.PIDFD.openThread(ctx, procs, f); err != nil {
				return err
			}
		}
	}
	return r.addAll(ctx)
}

// pathOf returns a function that names watched files for the supervisor.
func (p *Plugin) pathOf(procs map[int]plugin.Process) func(watch) (string, bool, error) {
	return func(w watch) (string, bool, error) {
		if w.From == nil {
			return p.host.Root() + p.host.MapPath(w.Path), false, nil
		}
		proc, ok := procs[w.From.PID]
		if !ok {
			return "", false, fmt.Errorf("pid %d is not in the restarted tree", w.From.PID)
		}
		return fmt.Sprintf("/proc/%d/fd/%d", proc.HostPID(), w.From.FD), true, nil
	}
}

// ClaimFile saves the object behind f.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	if why := refusalOf(f.Link); why != "" {
		p.refused = append(p.refused, f.Link)
		return plugin.Refuse(f, "%s", why)
	}
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
	if len(f.Refs) == 0 && saved.needsProcess() {
		return plugin.Refuse(f, "%s", inFlight)
	}
	p.state.add(f.ID, saved)
	return nil
}

// inFlight is the reason against what nobody could finish in a restart.
const inFlight = "no process has it open that could make it again"

// needsProcess says whether only a process with a descriptor of it can finish
// it in a restart.
func (s file) needsProcess() bool {
	return s.Epoll != nil && len(s.Epoll.Targets) > 0 || s.Inotify != nil && len(s.Inotify.Watches) > 0 || s.PIDFD != nil && s.PIDFD.TID != 0
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
	case "anon_inode:inotify":
		return p.claimInotify
	case "anon_inode:[pidfd]":
		return p.claimPIDFD
	}
	if strings.HasPrefix(link, "pidfd:[") { // Linux 6.9
		return p.claimPIDFD
	}
	return nil
}

// ReopenFile makes the object again, as far as that needs no process.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	fd, err := p.reopen(f)
	if err != nil {
		return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
	}
	if f.Flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("open file %d (%s): fcntl O_NONBLOCK: %w", f.ID, f.Link, err)
		}
	}
	p.made.files[f.ID] = f
	return fd, nil
}

func (p *Plugin) reopen(f plugin.OpenFile) (int, error) {
	saved := p.state.Files[f.ID]
	switch {
	case saved.EventFD != nil:
		return saved.EventFD.reopen()
	case saved.SignalFD != nil:
		return saved.SignalFD.reopen()
	case saved.Epoll != nil:
		return saved.Epoll.reopen()
	case saved.PIDFD != nil && saved.PIDFD.Ended != nil:
		return p.takeEnded(f.ID)
	case saved.PIDFD != nil:
		return p.reopenPIDFD(saved.PIDFD, f.Flags)
	case saved.Inotify != nil:
		fd, err := saved.Inotify.reopen()
		if err != nil {
			return -1, err
		}
		mine, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("duplicate: %w", err)
		}
		p.made.inotify[f.ID] = mine
		return fd, nil
	}
	return -1, fmt.Errorf("not in the image")
}

// SaveProcess saves what could not be told before all files were claimed.
func (p *Plugin) SaveProcess(ctx context.Context, proc plugin.Process) error {
	if err := p.savePlaces(ctx); err != nil {
		return err
	}
	return p.saveReadiness(ctx, proc)
}

// RestoreProcess has nothing to do: see complete.
func (p *Plugin) RestoreProcess(context.Context, plugin.Process) error { return nil }

var (
	_ plugin.Plugin       = (*Plugin)(nil)
	_ plugin.Stater       = (*Plugin)(nil)
	_ plugin.FileClaimer  = (*Plugin)(nil)
	_ plugin.MapClaimer   = (*Plugin)(nil)
	_ plugin.MapAttacher  = (*Plugin)(nil)
	_ plugin.ProcessSaver = (*Plugin)(nil)
	_ plugin.Holder       = (*Plugin)(nil)
)
