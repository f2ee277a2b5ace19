package shm

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "shm",
		Summary: "System V shared memory, semaphores and message queues; POSIX message queues",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		New:     newPlugin,
	}
}

// config is the plugin's section of the configuration.
type config struct {
	// AllowOutside takes a copy of what processes outside of the computation
	// use too.
	AllowOutside bool `json:"allow_outside"`
}

// Plugin keeps the IPC objects of one agent.
type Plugin struct {
	host   plugin.Host
	config config
	begun  time.Time // nothing of the tree is older
	state  state

	// queues is a mount of the POSIX queues of a restored tree, -1: none.
	queues int

	saving saving
	making making
	made   made
}

func newPlugin(h plugin.Host) (plugin.Plugin, error) {
	p := &Plugin{host: h, begun: time.Now(), queues: -1}
	if err := h.Config(&p.config); err != nil {
		return nil, err
	}
	return p, nil
}

// earliest is the least time of day, in seconds since the epoch, that an object may have which
// was made between begun and now: the time of day may have been set back meanwhile.
func earliest(begun, now time.Time, elapsed time.Duration) int64 {
	return min(begun.Unix(), now.Add(-elapsed).Unix())
}

// wasSet says that the time of day was set between begun and now, or that the
// machine slept.
func wasSet(begun, now time.Time, elapsed time.Duration) bool {
	return (now.Round(0).Sub(begun.Round(0)) - elapsed).Abs() > time.Second
}

// saving is what is known during a checkpoint.
type saving struct {
	tree   *tree
	whole  []attachment // made for the checkpoint
	queues []claimedQueue
	listed bool // named queues that nobody has open
	undo   []undoList
}

// making is what a restart holds until the tree runs.
type making struct {
	segments map[int]*segment
	there    map[string]bool // doubtful objects that were left as they are
	files    map[int]int     // of POSIX queues, by plugin.OpenFile's ID
}

// Handle implements plugin.Plugin.
func (p *Plugin) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.state, p.saving = state{}, saving{}
		return p.save(ctx, ev.Procs)
	case plugin.Resume:
		err := p.detachWhole(ctx, ev.Procs)
		p.saving = saving{}
		return err
	case plugin.Restart:
		return p.make(ctx, ev.Procs)
	case plugin.Running:
		return errors.Join(p.finish(ctx, ev.Procs), p.closeMade())
	case plugin.Exit:
		p.closeQueues()
		err := p.closeMade()
		if ev.Failed {
			err = errors.Join(err, p.made.remove())
		}
		p.made = made{}
		return err
	}
	return nil
}

// save finds and saves the objects of the tree.
func (p *Plugin) save(ctx context.Context, procs []plugin.Process) error {
	if len(procs) == 0 {
		return nil
	}
	t, err := p.newTree(procs)
	if err != nil {
		return err
	}
	p.saving.tree = t
	if err := t.list(ctx); err != nil {
		return err
	}
	return errors.Join(p.saveSegments(ctx, t), p.saveSemaphores(ctx, t), p.saveQueues(ctx, t))
}

// make makes all objects, in processes that have no memory yet.
func (p *Plugin) make(ctx context.Context, procs []plugin.Process) error {
	p.making = making{segments: map[int]*segment{}, files: map[int]int{}}
	p.made = made{}
	if len(procs) == 0 {
		return nil
	}
	t, err := p.newTree(procs)
	if err != nil {
		return err
	}
	p.made.own = t.own
	for _, do := range []func(context.Context, *tree) error{p.makeSegments, p.makeSemaphores, p.makeQueues, p.makePOSIX} {
		if err := do(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// SaveProcess saves the undo counts of proc, and the POSIX queues that it is
// to read.
func (p *Plugin) SaveProcess(ctx context.Context, proc plugin.Process) error {
	if p.saving.tree == nil {
		return nil
	}
	return errors.Join(p.saveUndo(ctx, proc), p.savePOSIX(ctx, proc))
}

// RestoreProcess gives proc its undo counts.
func (p *Plugin) RestoreProcess(ctx context.Context, proc plugin.Process) error {
	return p.restoreUndo(ctx, proc)
}

// Hold gives processes their notifications, and holds nobody up: a process that
// closes any descriptor of a queue loses that which it has there, mq_notify(3).
// When all plugins have handled Running, none does so for it any more.
func (p *Plugin) Hold(ctx context.Context, ev plugin.Event) error {
	if ev.Kind != plugin.Running {
		return nil
	}
	for _, proc := range ev.Procs {
		if err := p.restoreNotifications(ctx, proc); err != nil {
			return err
		}
	}
	return nil
}

// finish gives every object what the making of others would change.
func (p *Plugin) finish(ctx context.Context, procs []plugin.Process) error {
	if len(procs) == 0 {
		return nil
	}
	t, err := p.newTree(procs)
	if err != nil {
		return err
	}
	for _, do := range []func(context.Context, *tree) error{p.finishSegments, p.finishSemaphores, p.finishQueues} {
		if err := do(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plugin) closeMade() error {
	var errs []error
	for _, fd := range p.making.files {
		errs = append(errs, unix.Close(fd))
	}
	p.making = making{}
	return errors.Join(errs...)
}

var (
	_ plugin.Plugin       = (*Plugin)(nil)
	_ plugin.Stater       = (*Plugin)(nil)
	_ plugin.FileClaimer  = (*Plugin)(nil)
	_ plugin.MapClaimer   = (*Plugin)(nil)
	_ plugin.MapAttacher  = (*Plugin)(nil)
	_ plugin.Placer       = (*Plugin)(nil)
	_ plugin.ProcessSaver = (*Plugin)(nil)
	_ plugin.Holder       = (*Plugin)(nil)
)
