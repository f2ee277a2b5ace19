package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/plugin"
)

// freezeTimeout bounds how long threads may take to stop: one in an
// uninterruptible wait cannot.
const freezeTimeout = 30 * time.Second

// mostAdvised is how many checkpoints in a row are given up because the program has changed what was read
// before the pause: from then on that is read in the pause.
const mostAdvised = 2

// stripes is how many files the memory of an image is spread over: one inode's
// lock caps the speed of a file.
const stripes = 2

// coreSection is the section of an image with what the agent itself knows.
const coreSection = "core"

// agentState is the content of coreSection.
type agentState struct {
	Main    int      `json:"main"`            // pid of the command's own process
	Ended   *int     `json:"ended,omitempty"` // its wait status, where only its children live on
	Command []string `json:"command"`
	Size    *winsize `json:"terminal_size,omitempty"` // nil: there is no terminal
}

// checkpoint is one generation in the making.
type checkpoint struct {
	a     *agent
	order coord.Order
	tree  *proc.Tree
	procs []plugin.Process
	state *proc.State
	w     *image.Writer
	// parent is the generation that the image builds on; nil: it is full.
	parent *image.Parent

	survey   *proc.Survey // nil: there was none
	sections []pluginSection
	ended    *int // wait status of the command's own process, in the pause
	memory   *proc.Memory
	inPause  string // why the memory was written in the pause, where it should not have been

	begun   time.Time
	frozen  time.Time
	pause   time.Duration
	timings []coord.Timing
}

// heldTree is a tree that stays frozen until the outcome is known.
type heldTree struct{ c *checkpoint }

// Checkpoint implements coord.Handler: the whole local sequence. Whatever
// fails, the program runs on.
func (a *agent) Checkpoint(ctx context.Context, order coord.Order) (coord.AgentResult, error) {
	a.sequence.Lock()
	c := &checkpoint{a: a, order: order, begun: time.Now()}
	a.meeting.begin(order.Generation)
	err := c.run(ctx)
	if err == nil {
		a.result, err = c.finishImage(ctx)
	}
	if err != nil {
		a.surveyed, a.unsure = nil, true
		if errors.Is(err, proc.ErrAdvised) {
			a.advised++
		}
		err = errors.Join(err, c.giveUp())
		until := ""
		if errors.Is(err, plugin.ErrPassing) { // the coordinator tries again
			until = ", for the moment"
		}
		a.log.Warn().Err(err).Uint64("generation", order.Generation).Msg("checkpoint given up" + until)
		a.toldWhy = true
		return coord.AgentResult{}, err
	}
	if a.advised < mostAdvised { // else it is such a program
		a.advised = 0
	}
	return a.result, nil
}

// run is the sequence from the order to the resumed program.
func (c *checkpoint) run(ctx context.Context) error {
	a, gen := c.a, c.order.Generation
	if err := a.awaitMemory(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.Ordered); err != nil {
		return err
	}
	if err := a.plugins.Dispatch(ctx, plugin.Event{Kind: plugin.PreSuspend, Generation: gen, Request: c.request()}); err != nil {
		return err
	}
	a.tr.AwaitCopies() // of the generation before
	c.look()
	defer c.survey.Close()
	collect := holdCollector()
	defer collect()
	if err := c.suspend(ctx); err != nil {
		return err
	}
	if !c.memory.Snapped() {
		collect()
		if err := c.write(ctx); err != nil {
			return err
		}
	}
	if err := c.meetOthers(ctx); err != nil {
		return err
	}
	if c.order.Kill {
		a.held = &heldTree{c}
		c.pause = time.Since(c.frozen)
	} else if err := c.resume(ctx); err != nil {
		// The program runs: what failed is the plugins' word for it.
		a.log.Error().Err(err).Msg("resume")
	}
	if err := a.coordinator().Barrier(ctx, gen, "resumed"); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.Resumed)
}

// meetOthers waits for the other trees: what they share, as files in memory, all must
// have kept before one of them runs on.
func (c *checkpoint) meetOthers(ctx context.Context) error {
	if c.order.Agents < 2 {
		return nil
	}
	return c.a.coordinator().Barrier(ctx, c.order.Generation, "kept")
}

// suspend stops the program and takes its state.
func (c *checkpoint) suspend(ctx context.Context) error {
	if err := c.freeze(ctx); err != nil {
		return err
	}
	if err := c.a.coordinator().Barrier(ctx, c.order.Generation, "suspended"); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.Suspended); err != nil {
		return err
	}
	if err := c.save(ctx); err != nil {
		return err
	}
	if err := c.mark(ctx); err != nil {
		return err
	}
	if err := c.collect(ctx); err != nil {
		return err
	}
	return c.snapshot(ctx)
}

func (c *checkpoint) request() plugin.Request {
	return plugin.Request{Kill: c.order.Kill, OpenFiles: c.order.OpenFiles || c.a.opts.OpenFiles}
}

// look reads before the pause what takes long there.
func (c *checkpoint) look() {
	defer c.timed("look", time.Now())
	c.a.tr.Prepare()
	c.parent = c.base()
	pids, err := c.a.all()
	if err != nil { // the freeze tells
		return
	}
	c.a.warnGroups(pids)
	defer c.a.sums.LookBeside(c.a.tree.parent, pids)()
	if c.wantsSnapshot() {
		var changes *proc.Dirty
		if c.parent != nil {
			changes = c.a.chain.dirty
		}
		c.survey = c.a.tr.NewSurvey(pids, changes, c.a.surveyed)
	}
}

// wantsSnapshot says whether the program is to run on while it is written.
func (c *checkpoint) wantsSnapshot() bool {
	return !c.order.Kill && !c.order.NoSnapshot && !c.a.opts.NoSnapshot
}

func (c *checkpoint) freeze(ctx context.Context) error {
	defer c.timed("freeze", time.Now())
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	c.a.standing.Lock()
	c.frozen = time.Now()
	tree, err := c.a.tr.Freeze(ctx, c.a.sleeps, c.a.roots)
	if err != nil {
		c.a.moves()
		return fmt.Errorf("freeze: %w", err)
	}
	c.tree = tree
	for _, s := range tree.ShortCalls() {
		c.a.log.Warn().Uint64("generation", c.order.Generation).Msg(s.String())
	}
	tree.UseSurvey(c.survey, c.a.advised < mostAdvised)
	for _, p := range tree.Procs() {
		c.procs = append(c.procs, p)
	}
	if len(c.procs) == 0 {
		return errors.New("the program has ended before it stood still")
	}
	return faultpoint.At(faultpoint.Frozen)
}

// save lets plugins and engine read all state: nothing is written yet. All
// refusals are joined.
func (c *checkpoint) save(ctx context.Context) error {
	defer c.timed("save", time.Now())
	a, tree := c.a, c.tree
	tree.Track(a.chain.dirty)
	tree.UseFiles(&a.sums, c.order.SelfContained || a.opts.SelfContained, c.request().OpenFiles)
	where := a.surroundings()
	if err := tree.Check(where); err != nil {
		return err
	}
	if err := tree.Open(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.Opened); err != nil {
		return err
	}
	err := a.plugins.Dispatch(ctx, plugin.Event{Kind: plugin.PreCheckpoint, Generation: c.order.Generation,
		Procs: c.procs, Request: c.request()})
	if err != nil {
		return err
	}
	defer tree.DropHeld()
	files, err := c.claimFiles(ctx)
	for _, p := range c.procs {
		err = errors.Join(err, a.plugins.SaveProcess(ctx, p))
	}
	state, err2 := tree.Inspect(ctx, where, a.plugins.ClaimMap)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	state.SetFiles(files)
	c.state = state
	return faultpoint.At(faultpoint.Saved)
}

// collect takes what the plugins have saved.
func (c *checkpoint) collect(ctx context.Context) (err error) {
	if c.sections, err = c.a.plugins.Save(ctx); err != nil {
		return err
	}
	contents, err := c.a.plugins.Contents(ctx)
	if err != nil {
		return err
	}
	c.state.SetContents(contents)
	c.ended = c.a.ended()
	c.memory = c.tree.NewMemory(c.state, contents)
	return nil
}

// snapshot keeps the memory as it is, so that the program can run on while it
// is written.
func (c *checkpoint) snapshot(ctx context.Context) error {
	if !c.wantsSnapshot() {
		return nil
	}
	defer c.timed("snapshot", time.Now())
	err := c.memory.Snapshot(ctx, c.a.tree.parent)
	if errors.Is(err, proc.ErrNoCopy) {
		c.inPause = err.Error()
		c.a.log.Warn().Err(err).Uint64("generation", c.order.Generation).Msg("written while the program stands still")
		return nil
	}
	return err
}

// write writes the image, but for its index.
func (c *checkpoint) write(ctx context.Context) (err error) {
	defer c.timed("write", time.Now())
	a := c.a
	c.w, err = image.Create(c.order.Dir, image.Options{Compress: a.opts.Compress, Stripes: stripes, Speed: a.storeSpeed, Direct: a.opts.Direct})
	if err != nil {
		return err
	}
	if why := c.w.Buffered(); why != nil {
		a.log.Warn().Err(why).Uint64("generation", c.order.Generation).Msg("written through the page cache")
	}
	own, err := json.Marshal(agentState{Main: a.tree.mainPID, Ended: c.ended, Command: a.command, Size: a.term.size()})
	if err != nil {
		return err
	}
	if err := c.memory.AskCopies(ctx); err != nil {
		return err
	}
	engine, err := c.state.Encode()
	if err != nil {
		return err
	}
	err = errors.Join(c.w.Section(coreSection, 1, own), c.w.Section(proc.SectionName, proc.StateVersion, engine))
	for _, s := range c.sections {
		err = errors.Join(err, c.w.Section(pluginPrefix+s.Name, s.Version, s.Payload))
	}
	if err == nil {
		err = faultpoint.At(faultpoint.SectionsWritten)
	}
	if !c.state.Inherit(c.w) {
		c.stand()
	}
	if err == nil {
		err = c.memory.Write(ctx, c.w, a.coordinator().Progress)
	}
	c.memory.Close()
	return err
}

// pluginPrefix begins the names of the plugins' sections.
const pluginPrefix = "plugin/"

// resume lets plugins refill and the program run on: the pause ends. Until
// hold is done they may keep it stopped.
func (c *checkpoint) resume(hold context.Context) error {
	ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
	defer cancel()
	defer func() { c.pause = time.Since(c.frozen) }()
	err := c.a.plugins.Resume(ctx, c.order.Generation, c.procs)
	_ = faultpoint.At(faultpoint.Refilled)
	err = errors.Join(err, c.a.plugins.Hold(hold, plugin.Event{Kind: plugin.Resume, Generation: c.order.Generation, Procs: c.procs}))
	tree := c.tree
	c.tree = nil
	// Plugins that took their time must not keep the program waiting.
	ctx, cancel2 := context.WithTimeout(context.Background(), freezeTimeout)
	defer cancel2()
	err = errors.Join(err, tree.Release(ctx))
	c.a.moves()
	return err
}

// moves says that the tree stands still no more.
func (a *agent) moves() {
	a.standing.Unlock()
	select {
	case a.released <- struct{}{}:
	default:
	}
}

// finishImage completes the image while the program runs.
func (c *checkpoint) finishImage(ctx context.Context) (coord.AgentResult, error) {
	if c.memory.Snapped() {
		if err := c.write(ctx); err != nil {
			return coord.AgentResult{}, err
		}
	}
	if err := c.state.WriteFiles(ctx, c.w); err != nil {
		return coord.AgentResult{}, err
	}
	begun := time.Now()
	written := make(chan error, 1)
	go func() { written <- c.state.SyncFiles(ctx) }()
	sum, err := c.w.Close(ctx)
	if err = errors.Join(err, <-written); err != nil {
		return coord.AgentResult{}, err
	}
	c.w = nil
	c.timed("sync", begun)
	c.a.storeSpeed = cmp.Or(sum.Speed, c.a.storeSpeed)
	err = c.a.coordinator().Barrier(ctx, c.order.Generation, "written")
	if err == nil {
		err = faultpoint.At(faultpoint.Written)
	}
	if err != nil {
		return coord.AgentResult{}, err
	}
	// Mappings that are watched since it has not seen so. And what many programs advise between two generations
	// would have the next given up, and be full.
	if c.a.chain.dirty == nil && !c.a.unsure {
		c.a.surveyed = c.survey
	}
	c.a.chain.written(c.order.Generation, sum)
	r := coord.AgentResult{Files: sum.Files, Parent: c.parent, Bytes: sum.Bytes, RawBytes: sum.RawBytes, Pause: c.pause, InPause: c.inPause,
		Total: time.Since(c.begun), Processes: len(c.state.Processes), Timings: c.timings}
	for _, p := range c.state.Processes {
		r.Threads += len(p.Threads)
	}
	for _, t := range c.a.plugins.Timings() {
		r.Timings = append(r.Timings, coord.Timing{Plugin: t.Plugin, Phase: t.Phase, Took: t.Took})
	}
	for _, p := range c.a.plugins.Infos() {
		r.Plugins = append(r.Plugins, image.PluginVersion{Name: p.Name, State: p.State})
	}
	return r, nil
}

// giveUp undoes what was begun.
func (c *checkpoint) giveUp() error {
	c.a.held = nil
	if c.state != nil {
		c.state.CloseFiles()
	}
	if c.memory != nil {
		c.memory.Close()
		defer c.a.tr.AwaitCopies()
	}
	if c.w != nil {
		c.w.Abort()
		c.w = nil
	}
	if c.tree == nil {
		return nil
	}
	return c.resume(ended())
}

// ended returns a context that is done.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// timed notes how long a phase of the engine took.
func (c *checkpoint) timed(phase string, begun time.Time) {
	c.timings = append(c.timings, coord.Timing{Plugin: "engine", Phase: phase, Took: time.Since(begun)})
}

// Finish implements coord.Handler: a tree that was held is ended, or runs on
// if the generation was not committed.
func (a *agent) Finish(_ context.Context, order coord.Order, committed bool, reason string) error {
	_ = faultpoint.At(faultpoint.Finishing)
	defer a.sequence.Unlock()
	defer func() { _ = faultpoint.At(faultpoint.Finished) }()
	defer a.tellOutcome(order, committed, reason)
	a.chain.end(committed)
	held, told := a.held, a.toldWhy
	a.held, a.toldWhy = nil, false
	switch {
	case !committed && told:
	case !committed:
		a.log.Warn().Uint64("generation", order.Generation).Str("reason", reason).Msg("generation not committed")
	default:
		a.log.Info().Uint64("generation", order.Generation).Msg("generation committed")
	}
	if committed && !order.Kill {
		if err := a.uses.goOnFrom(a.dirOf(order.Generation), a.coordinator().Welcome().ID); err != nil {
			a.log.Debug().Err(err).Msg("a restart beside this will not be told of it")
		}
	}
	if held == nil || held.c.tree == nil {
		return nil
	}
	if committed && order.Kill {
		defer a.moves()
		return held.c.tree.Kill()
	}
	return held.c.resume(ended())
}

// dirOf returns the folder of a generation.
func (a *agent) dirOf(generation uint64) string {
	return filepath.Join(a.dir, fmt.Sprintf("%05d", generation))
}

// tellOutcome tells the plugins how the checkpoint ended.
func (a *agent) tellOutcome(order coord.Order, committed bool, reason string) {
	r := a.result
	a.result = coord.AgentResult{}
	err := a.plugins.Dispatch(context.Background(), plugin.Event{Kind: plugin.Outcome, Generation: order.Generation,
		Outcome: &plugin.Figures{Committed: committed, Reason: reason,
			Dir:   a.dirOf(order.Generation),
			Bytes: r.Bytes, RawBytes: r.RawBytes, Pause: r.Pause, Total: r.Total, Processes: r.Processes, Threads: r.Threads}})
	if err != nil {
		a.log.Warn().Err(err).Uint64("generation", order.Generation).Msg("after the checkpoint")
	}
}
