package timer

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "timer",
		Summary: "interval timers, POSIX timers with their ids, timerfd",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Running, plugin.Exit},
		New:     func(plugin.Host) (plugin.Plugin, error) { return &Plugin{}, nil },
	}
}

// Plugin keeps the timers of one agent.
type Plugin struct {
	state state
	// began is the agent's time to which all values of a checkpoint refer.
	began time.Duration
	// living are the pids of the tree at a checkpoint.
	living map[int]bool
	// made are the supervisor's duplicates of the timerfds of a restart, by
	// ID, until they are armed.
	made map[int]int
}

// Handle begins an empty state with each checkpoint, and arms all timers of
// a restart.
func (p *Plugin) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.state, p.began, p.living = state{}, agentTime(), map[int]bool{}
		for _, proc := range ev.Procs {
			p.living[proc.PID()] = true
		}
	case plugin.Running:
		return p.arm(ctx, ev.Procs)
	case plugin.Exit:
		p.closeMade()
	}
	return nil
}

func (p *Plugin) arm(ctx context.Context, procs []plugin.Process) error {
	defer p.closeMade()
	if len(procs) == 0 || len(p.state.TimerFDs)+len(p.state.Processes) == 0 {
		return nil
	}
	clock, err := newRestartClock(procs[0], p.state.Now)
	if err != nil {
		return err
	}
	for _, proc := range procs {
		saved, ok := p.state.Processes[proc.PID()]
		if !ok {
			continue
		}
		if err := saved.restore(ctx, proc, clock); err != nil {
			return fmt.Errorf("pid %d: %w", proc.PID(), err)
		}
	}
	for id, fd := range p.made {
		if err := p.state.TimerFDs[id].restore(fd, clock); err != nil {
			return fmt.Errorf("open file %d (timerfd): %w", id, err)
		}
	}
	return nil
}

func (p *Plugin) closeMade() {
	for _, fd := range p.made {
		unix.Close(fd)
	}
	p.made = nil
}

// SaveProcess saves the interval and POSIX timers of proc.
func (p *Plugin) SaveProcess(ctx context.Context, proc plugin.Process) error {
	saved, err := saveProcess(ctx, proc, p.began, p.living)
	if err != nil {
		return err
	}
	if len(saved.ITimers) > 0 || len(saved.Timers) > 0 {
		p.state.addProcess(proc.PID(), saved)
	}
	if p.state.Now != 0 || len(p.state.TimerFDs)+len(p.state.Processes) == 0 {
		return nil
	}
	offset, err := clockOffset(proc)
	p.state.Now = p.began + offset
	return err
}

// RestoreProcess has nothing to do: see the package's comment.
func (p *Plugin) RestoreProcess(context.Context, plugin.Process) error { return nil }

var (
	_ plugin.Plugin       = (*Plugin)(nil)
	_ plugin.Stater       = (*Plugin)(nil)
	_ plugin.FileClaimer  = (*Plugin)(nil)
	_ plugin.ProcessSaver = (*Plugin)(nil)
)
