package core

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
)

// defaultPluginTimeout is the deadline of a call where none is configured.
const defaultPluginTimeout = 30 * time.Second

// pluginSet is the plugins of one agent, in their order.
//
// What is saved is saved in that order, and what is made again is made in the
// reverse: a plugin may rely on those before it while it drains, and finds
// them still drained while it refills. All calls into plugins go through call,
// which is where deadlines are kept and panics end.
//
// Calls are made one at a time. Infos, Definitions and Timings may be called
// while another call is under way.
type pluginSet struct {
	members []*member
	skipped []string // left out by ErrSkip
	timeout time.Duration
	asked   []*member // had PreCheckpoint in this round, in order

	mu      sync.Mutex
	timings []timing
}

// member is one plugin of the set, with what it can do.
type member struct {
	def plugin.Definition
	log zerolog.Logger

	plugin.Plugin
	stater   plugin.Stater // nil where the plugin is none, as the others
	files    plugin.FileClaimer
	filler   plugin.FileFiller
	maps     plugin.MapClaimer
	reopener plugin.MapReopener
	attacher plugin.MapAttacher
	placer   plugin.Placer
	saver    plugin.ProcessSaver
	taker    plugin.FileTaker
	holder   plugin.Holder
	paths    plugin.PathMapper
	contents plugin.ContentKeeper
	shows    plugin.Publisher

	mu     sync.Mutex
	broken string // the phase in which it outlived its deadline, "" while all is well
}

// newPluginSet makes the plugins of defs, in that order. A plugin whose New
// returns ErrSkip is left out. timeout is the deadline of each call, 30 s
// where it is 0; log gives each plugin's logger.
//
// An After that names a plugin which is not in defs is satisfied: it is about
// order, and any subset of the plugins must work.
func newPluginSet(defs []plugin.Definition, host func(plugin.Definition) plugin.Host, timeout time.Duration, log func(name string) zerolog.Logger) (*pluginSet, error) {
	if err := checkDefinitions(defs); err != nil {
		return nil, err
	}
	if timeout <= 0 {
		timeout = defaultPluginTimeout
	}
	s := &pluginSet{timeout: timeout}
	for _, def := range defs {
		m := &member{def: def, log: log(def.Name)}
		var p plugin.Plugin
		err := s.call(context.Background(), m, phaseNew, subject{}, func(context.Context) (err error) {
			p, err = def.New(host(def))
			return err
		})
		switch {
		case errors.Is(err, plugin.ErrSkip):
			m.log.Debug().AnErr("reason", err).Msg("the plugin has nothing to do here")
			s.skipped = append(s.skipped, def.Name)
			continue
		case err != nil:
			return nil, err
		case p == nil:
			return nil, fmt.Errorf("plugin %s: New returned neither a plugin nor an error", def.Name)
		}
		m.adopt(p)
		s.members = append(s.members, m)
	}
	return s, nil
}

// adopt finds out what p can do.
func (m *member) adopt(p plugin.Plugin) {
	m.Plugin = p
	m.stater, _ = p.(plugin.Stater)
	m.files, _ = p.(plugin.FileClaimer)
	m.filler, _ = p.(plugin.FileFiller)
	m.maps, _ = p.(plugin.MapClaimer)
	m.reopener, _ = p.(plugin.MapReopener)
	m.attacher, _ = p.(plugin.MapAttacher)
	m.placer, _ = p.(plugin.Placer)
	m.saver, _ = p.(plugin.ProcessSaver)
	m.taker, _ = p.(plugin.FileTaker)
	m.holder, _ = p.(plugin.Holder)
	m.paths, _ = p.(plugin.PathMapper)
	m.contents, _ = p.(plugin.ContentKeeper)
	m.shows, _ = p.(plugin.Publisher)
}

// checkDefinitions asserts what the list of plugins promises.
func checkDefinitions(defs []plugin.Definition) error {
	name := regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	place := make(map[string]int, len(defs))
	for i, def := range defs {
		switch before, twice := place[def.Name]; {
		case !name.MatchString(def.Name):
			return fmt.Errorf("plugin %d of the list: name %q does not match %s", i+1, def.Name, name)
		case twice:
			return fmt.Errorf("plugin %s: twice in the list, at %d and %d", def.Name, before+1, i+1)
		case def.Oldest > def.State:
			return fmt.Errorf("plugin %s: its oldest state format %d is newer than the one it writes, %d", def.Name, def.Oldest, def.State)
		case def.New == nil:
			return fmt.Errorf("plugin %s: its definition has no New", def.Name)
		}
		place[def.Name] = i
	}
	for i, def := range defs {
		for _, earlier := range def.After {
			if at, present := place[earlier]; present && at >= i {
				return fmt.Errorf("plugin %s: must stand after %s in the list", def.Name, earlier)
			}
		}
	}
	return nil
}

// Dispatch tells the plugins of ev, those that list its kind, in the order
// of its kind. The first error ends it, but at Resume, Exit and Outcome, where every
// plugin is called and the errors are joined: what one plugin cannot undo must
// not keep the others from undoing theirs.
func (s *pluginSet) Dispatch(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.Resume:
		return s.Resume(ctx, ev.Generation, ev.Procs)
	case plugin.PreSuspend:
		s.resetTimings()
	case plugin.PreCheckpoint:
		s.asked = nil
	}
	var errs []error
	for _, m := range ordered(s.members, ev.Kind) {
		if ev.Kind == plugin.PreCheckpoint {
			// Before the call: one that fails half-way has to undo its half.
			s.asked = append(s.asked, m)
		}
		if err := s.handle(ctx, m, ev); err != nil {
			if ev.Kind != plugin.Exit && ev.Kind != plugin.Outcome {
				return err
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Resume tells those plugins, in reverse, that PreCheckpoint had reached in
// this round: all of them after a checkpoint, and when it was given up those
// up to and with the one that failed. A plugin that does not list
// PreCheckpoint counts as reached when its turn has come, for it may have
// claimed objects. Each is called whatever the others return, and although
// ctx may have ended, for the program waits. A second Resume calls nobody.
func (s *pluginSet) Resume(ctx context.Context, gen uint64, procs []plugin.Process) error {
	ctx = context.WithoutCancel(ctx)
	asked := s.asked
	s.asked = nil
	var errs []error
	for _, m := range ordered(asked, plugin.Resume) {
		errs = append(errs, s.handle(ctx, m, plugin.Event{Kind: plugin.Resume, Generation: gen, Procs: procs}))
	}
	return errors.Join(errs...)
}

// handle delivers one event to one plugin, if it lists the kind.
func (s *pluginSet) handle(ctx context.Context, m *member, ev plugin.Event) error {
	if !slices.Contains(m.def.Kinds, ev.Kind) {
		return nil
	}
	return s.call(ctx, m, ev.Kind.String(), subject{}, func(ctx context.Context) error {
		ev := ev
		ev.Procs = leaseAll(ctx, ev.Procs)
		return m.Handle(ctx, ev)
	})
}

// Hold has the plugins, in reverse, keep the program stopped for as long as
// they want, behind ev. It returns when all have let go. A checkpoint that was
// given up is not held; a restart cannot go without what they complete here.
func (s *pluginSet) Hold(ctx context.Context, ev plugin.Event) error {
	if err := ctx.Err(); err != nil {
		if ev.Kind == plugin.Running {
			return err
		}
		return nil
	}
	var errs []error
	for _, m := range reversed(s.members) {
		if m.holder == nil {
			continue
		}
		errs = append(errs, s.callWithin(ctx, maxHold, m, phaseHold, subject{}, func(ctx context.Context) error {
			ev := ev
			ev.Procs = leaseAll(ctx, ev.Procs)
			return m.holder.Hold(ctx, ev)
		}))
	}
	return errors.Join(errs...)
}

// MapsPaths says whether a plugin may know other places of files.
func (s *pluginSet) MapsPaths() bool {
	return slices.ContainsFunc(s.members, func(m *member) bool { return m.paths != nil })
}

// MapPath asks the plugins, in reverse, where path is now: the first that
// knows another place decides.
func (s *pluginSet) MapPath(path string) string {
	for _, m := range reversed(s.members) {
		if m.paths == nil || m.brokenIn() != "" {
			continue
		}
		if mapped := m.paths.MapPath(path); mapped != path {
			return mapped
		}
	}
	return path
}

// ordered returns members in the order in which they hear of kind.
func ordered(members []*member, kind plugin.Kind) []*member {
	if !kind.Reversed() {
		return members
	}
	return reversed(members)
}

func reversed(members []*member) []*member {
	members = slices.Clone(members)
	slices.Reverse(members)
	return members
}

// find returns the plugin called name.
func (s *pluginSet) find(name string) (*member, error) {
	for _, m := range s.members {
		if m.def.Name == name {
			return m, nil
		}
	}
	if slices.Contains(s.skipped, name) {
		return nil, fmt.Errorf("plugin %s: %w", name, plugin.ErrSkip)
	}
	return nil, fmt.Errorf("plugin %s: not among the plugins in use", name)
}

// pluginInfo describes a plugin for the status of a computation, and for the
// coordinator, which compares State and Barriers across hosts.
type pluginInfo struct {
	Name     string   `json:"name"`
	Summary  string   `json:"summary"`
	State    uint16   `json:"state"`
	Barriers []string `json:"barriers,omitempty"`
	Broken   string   `json:"broken,omitempty"` // the phase in which it outlived its deadline
}

// Infos describes the plugins, in order.
func (s *pluginSet) Infos() []pluginInfo {
	infos := make([]pluginInfo, len(s.members))
	for i, m := range s.members {
		infos[i] = pluginInfo{m.def.Name, m.def.Summary, m.def.State, m.def.Barriers, m.brokenIn()}
	}
	return infos
}

// Definitions returns those of the plugins in use, in order.
func (s *pluginSet) Definitions() []plugin.Definition {
	defs := make([]plugin.Definition, len(s.members))
	for i, m := range s.members {
		defs[i] = m.def
	}
	return defs
}
