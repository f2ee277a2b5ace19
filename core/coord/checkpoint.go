package coord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/plugin"
)

// finishTimeout is for an agent to release what it holds, or to end its
// processes.
const finishTimeout = time.Minute

// Checkpoint takes one generation. It returns when the generation is
// committed, or given up: the error then matches ErrGivenUp and wraps the
// reason. Other errors come before anything was asked of an agent: ErrBusy,
// ErrRestarting, ErrNoAgent, ErrMismatch, ErrClosed, or the store's.
//
// progress, unless nil, is called from several goroutines, one at a time; it
// must not block. When ctx is done the checkpoint is given up.
//
// With req.Kill an error may tell that the generation is committed but the
// processes could not be ended; the result is then valid.
//
// It waits for the end of a periodic checkpoint, as long as req.Timeout allows.
func (s *Server) Checkpoint(ctx context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	return s.checkpointFor(ctx, ctx, req, progress)
}

// checkpointFor is Checkpoint that waits for its turn until asking is done.
func (s *Server) checkpointFor(ctx, asking context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	if s.ctx.Err() != nil {
		return CheckpointResult{}, ErrClosed
	}
	if !s.start(false) {
		begun := time.Now()
		if req.Timeout <= 0 {
			req.Timeout = s.cfg.Timeout
		}
		if err := s.awaitTimer(asking, req.Timeout); err != nil {
			return CheckpointResult{}, err
		}
		req.Timeout = max(req.Timeout-time.Since(begun), time.Millisecond)
	}
	defer func() { <-s.running }()
	return s.take(ctx, req, progress)
}

// take is Checkpoint for which nothing is in progress any more.
func (s *Server) take(ctx context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	free, err := s.ask(ctx)
	if err != nil {
		return CheckpointResult{}, err
	}
	defer free()
	started := time.Now()
	result, err := s.persist(ctx, req, progress)
	s.remember(result, err)
	if err == nil {
		s.log.Info().Uint64("generation", result.Generation).Str("path", result.Path).Int64("bytes", result.Bytes).
			Dur("pause", result.Pause).Dur("total", time.Since(started)).Msg("checkpoint committed")
	}
	return result, err
}

// ask waits for its turn to give the agents orders.
func (s *Server) ask(ctx context.Context) (free func(), err error) {
	select {
	case s.asking <- struct{}{}:
		return func() { <-s.asking }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.ctx.Done():
		return nil, ErrClosed
	}
}

// persist takes the checkpoint again where it was refused for a reason that may
// be gone in a moment.
func (s *Server) persist(ctx context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	again := s.patience(ctx)
	for tries := 1; ; tries++ {
		result, err := s.checkpoint(ctx, req, progress)
		if !errors.Is(err, plugin.ErrPassing) {
			return result, err
		}
		if !again() {
			return result, fmt.Errorf("%w (tried %d times)", err, tries)
		}
		s.log.Info().Err(err).Msg("checkpoint tried again")
	}
}

// mostTries is how often is tried what was refused for a reason that may be gone in a moment.
const mostTries = 5

// patience returns what waits until it may be tried again, longer each time, and says whether
// it is to be. No event tells that the reason is gone.
func (s *Server) patience(ctx context.Context) (again func() bool) {
	tries, wait := 1, 10*time.Millisecond
	return func() bool {
		if tries == mostTries {
			return false
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		case <-s.ctx.Done():
			return false
		}
		tries, wait = tries+1, 3*wait
		return true
	}
}

// checkpoint is the coordinator's sequence, from top to bottom.
func (s *Server) checkpoint(ctx context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	started := time.Now()
	if req.Timeout <= 0 {
		req.Timeout = s.cfg.Timeout
	}
	generation, err := s.cfg.Store.Next()
	if err != nil {
		return CheckpointResult{}, fmt.Errorf("checkpoint: %w", err)
	}
	if err := faultpoint.At(faultpoint.Asked); err != nil {
		return CheckpointResult{}, fmt.Errorf("checkpoint: %w", err)
	}
	s.awaitRestored(ctx)
	x, agents, err := s.begin(ctx, generation, progress)
	if err != nil {
		return CheckpointResult{}, fmt.Errorf("checkpoint %d: %w", generation, err)
	}
	defer s.end(x)
	stop := context.AfterFunc(s.ctx, func() { x.giveUp(ErrClosed) })
	defer stop()
	expire := time.AfterFunc(req.Timeout, func() {
		x.giveUp(fmt.Errorf("not finished within %v: %w: %s", req.Timeout, context.DeadlineExceeded, x.place()))
	})
	defer expire.Stop()

	if err := s.cfg.Store.Own(); err != nil {
		return CheckpointResult{}, fmt.Errorf("checkpoint %d: %w", generation, err)
	}
	pending, err := s.cfg.Store.Begin(generation)
	if err != nil {
		return CheckpointResult{}, fmt.Errorf("checkpoint %d: %w", generation, err)
	}
	a := &attempt{server: s, session: x, agents: agents, pending: pending, req: req, deadline: started.Add(req.Timeout)}
	path, err := a.run()
	if err != nil {
		// The agents first: they may still be writing into the folder. One
		// whose connection is lost may even now; the next Begin removes the rest.
		err = errors.Join(err, a.finish(err))
		if abortErr := pending.Abort(); abortErr != nil {
			s.log.Warn().Err(abortErr).Uint64("generation", generation).Msg("rest of the given up generation not removed")
		}
		return CheckpointResult{}, fmt.Errorf("checkpoint %d: %w", generation, givenUp(err))
	}
	result := a.result(path, time.Since(started))
	err = a.finish(nil)
	if _, pruneErr := s.cfg.Store.Prune(s.cfg.Computation, s.cfg.Keep, s.hasEnded); pruneErr != nil {
		s.log.Warn().Err(pruneErr).Int("keep", s.cfg.Keep).Msg("old generations not removed")
	}
	_ = faultpoint.At(faultpoint.Answering)
	if err != nil {
		return result, fmt.Errorf("checkpoint %d is committed in %s, but: %w", generation, path, err)
	}
	return result, nil
}

// restartPatience is how long a checkpoint waits for a restart to end: programs run
// a little before their agents have said so, and who watches one may ask.
const restartPatience = 2 * time.Second

// awaitRestored waits for the end of a restart, but not for long.
func (s *Server) awaitRestored(ctx context.Context) {
	late := time.NewTimer(restartPatience)
	defer late.Stop()
	select {
	case <-s.restored:
	case <-late.C:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
}

// begin opens the session of a checkpoint, or of a check, for all members.
func (s *Server) begin(ctx context.Context, generation uint64, progress func(Progress)) (*session, []*member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	agents := slices.Collect(maps.Values(s.members))
	sortMembers(agents)
	switch {
	case s.closing:
		return nil, nil, ErrClosed
	case s.restarting, s.session != nil && s.session.inUse():
		return nil, nil, ErrRestarting
	case len(agents) == 0:
		return nil, nil, ErrNoAgent
	}
	if s.session != nil {
		s.session.end()
	}
	s.begun = true
	s.session = newSession(ctx, generation, len(agents), agents...)
	s.session.report = progress
	return s.session, agents, nil
}

// end closes the session of a checkpoint or a check.
func (s *Server) end(x *session) {
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
	x.end()
}

// progress passes on how far m is with writing.
func (s *Server) progress(m *member, p Progress) {
	s.mu.Lock()
	x := s.session
	s.mu.Unlock()
	if x != nil {
		x.advance(m, p)
	}
}

// remember keeps the outcome for the status. A committed generation has a
// path, even where the processes could not be ended.
func (s *Server) remember(r CheckpointResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.at = time.Now()
	s.last.err = ""
	if err != nil {
		s.last.err = err.Error()
	}
	if r.Path != "" {
		s.last.pause, s.last.total, s.last.bytes, s.last.timings = r.Pause, r.Total, r.Bytes, r.Timings
	}
}

// attempt is a checkpoint of which the agents have heard, or are about to.
type attempt struct {
	server   *Server
	session  *session
	agents   []*member // by id
	pending  *image.Pending
	req      CheckpointRequest
	deadline time.Time

	orders  []orderBody   // as agents
	results []AgentResult // as agents
	asked   bool          // the orders are out
}

// run asks the agents and commits what they have written.
func (a *attempt) run() (path string, err error) {
	if err := faultpoint.At(faultpoint.Begun); err != nil {
		return "", err
	}
	for _, m := range a.agents {
		dir, err := a.pending.AgentDir(m.hello.ID)
		if err != nil {
			return "", fmt.Errorf("agent %s: %w", m.hello.ID, err)
		}
		a.orders = append(a.orders, orderBody{
			Generation: a.session.generation, Dir: dir, Kill: a.req.Kill, OpenFiles: a.req.OpenFiles,
			NoSnapshot: a.req.NoSnapshot, SelfContained: a.req.SelfContained, Agents: len(a.agents), Left: time.Until(a.deadline),
		})
	}
	if err := a.ask(); err != nil {
		return "", err
	}
	manifest := a.manifest()
	return a.pending.Commit(&manifest)
}

// ask gives every agent its order and waits for all. The first failure is
// the reason to give up, and cancels the others. So does an agent that is
// suspended with its program: the others' would stand still until it goes on.
func (a *attempt) ask() error {
	if err := a.suspended(); err != nil {
		return err
	}
	a.asked = true
	over := make(chan struct{})
	defer close(over)
	go a.watch(over)
	a.results = make([]AgentResult, len(a.agents))
	var wg sync.WaitGroup
	for i, m := range a.agents {
		wg.Go(func() {
			err := m.conn.call(a.session.ctx, methodCheckpoint, a.orders[i], &a.results[i])
			if err != nil {
				a.session.giveUp(a.name(m, err))
				return
			}
			a.session.finish(m)
		})
	}
	wg.Wait()
	return context.Cause(a.session.ctx)
}

// watch gives up when an agent is found suspended.
func (a *attempt) watch(over <-chan struct{}) {
	tick := time.NewTicker(silence)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			if err := a.suspended(); err != nil {
				a.session.giveUp(err)
			}
		}
	}
}

// suspended looks for an agent of this host whose process is stopped.
func (a *attempt) suspended() error {
	for _, m := range a.agents {
		if err := m.suspended(); err != nil {
			return a.name(m, err)
		}
	}
	return nil
}

func (m *member) suspended() error {
	if host, _ := os.Hostname(); m.hello.Host != host {
		return nil
	}
	return suspended(m.hello.PID)
}

// name says whose error it is, where there are several agents.
func (a *attempt) name(m *member, err error) error {
	if len(a.agents) == 1 {
		return err
	}
	return fmt.Errorf("agent %s: %w", m.hello.ID, err)
}

// finish tells the agents the outcome: failure is nil where the generation is
// committed. It returns what kept an agent from ending its processes; a
// connection that is lost then is what was asked for.
func (a *attempt) finish(failure error) error {
	if !a.asked {
		return nil
	}
	body := finishBody{Generation: a.session.generation, Committed: failure == nil}
	if failure != nil {
		body.Reason = failure.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	errs := make([]error, len(a.agents))
	var wg sync.WaitGroup
	for i, m := range a.agents {
		wg.Go(func() {
			if failure != nil && m.suspended() != nil {
				// It reads the outcome when it goes on: nobody waits for that.
				ctx, cancel := context.WithTimeout(ctx, silence)
				defer cancel()
				_ = m.conn.call(ctx, methodFinish, body, nil)
				return
			}
			err := m.conn.call(ctx, methodFinish, body, nil)
			if err != nil && !errors.Is(err, ErrConnectionLost) {
				errs[i] = fmt.Errorf("finish: %w", a.name(m, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// manifest adds to the base fields what the coordinator knows.
func (a *attempt) manifest() image.Manifest {
	var manifest image.Manifest
	if a.server.cfg.Manifest != nil {
		manifest = a.server.cfg.Manifest()
	}
	manifest.Computation = cmp.Or(manifest.Computation, a.server.cfg.Computation)
	manifest.Name = cmp.Or(manifest.Name, a.server.Name())
	manifest.Generation = a.session.generation
	manifest.Created = time.Now()
	manifest.Settings.Keep = a.server.cfg.Keep
	manifest.Settings.Interval = a.server.currentInterval()
	manifest.Agents = nil
	for i, m := range a.agents {
		r := a.results[i]
		manifest.Agents = append(manifest.Agents, image.AgentManifest{
			ID: m.hello.ID, Host: m.hello.Host, Folder: filepath.Base(a.orders[i].Dir),
			Files: r.Files, Parent: r.Parent, Processes: r.Processes, Threads: r.Threads,
			Pause: r.Pause, Write: max(r.Total-r.Pause, 0), Bytes: r.Bytes, Plugins: r.Plugins,
		})
	}
	return manifest
}

// result sums the agents' results up.
func (a *attempt) result(path string, total time.Duration) CheckpointResult {
	sum := CheckpointResult{Name: a.server.Name(), Generation: a.session.generation, Path: path, Total: total}
	for _, r := range a.results {
		sum.Bytes += r.Bytes
		sum.RawBytes += r.RawBytes
		sum.Pause = max(sum.Pause, r.Pause)
		sum.InPause = cmp.Or(sum.InPause, r.InPause)
		sum.Processes += r.Processes
		sum.Threads += r.Threads
		sum.Timings = slowest(sum.Timings, r.Timings)
	}
	return sum
}

// slowest merges timings: of each plugin and phase the longest, in the order
// of their first appearance.
func slowest(sum, more []Timing) []Timing {
	for _, t := range more {
		i := slices.IndexFunc(sum, func(s Timing) bool { return s.Plugin == t.Plugin && s.Phase == t.Phase })
		if i < 0 {
			sum = append(sum, t)
		} else {
			sum[i].Took = max(sum[i].Took, t.Took)
		}
	}
	return sum
}

// compare names the first difference between the plugins of two agents.
func compare(first, second Hello) error {
	if what := difference(first.Plugins, second.Plugins); what != "" {
		return fmt.Errorf("%w: %s and %s: %s", ErrMismatch, first.ID, second.ID, what)
	}
	return nil
}

// difference describes how b differs from a, "" where not at all. The order
// counts: it is that of saving, and so of the barriers.
func difference(a, b []PluginInfo) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(b):
			return fmt.Sprintf("plugin %q on the first only", a[i].Name)
		case i >= len(a):
			return fmt.Sprintf("plugin %q on the second only", b[i].Name)
		case a[i].Name != b[i].Name:
			return fmt.Sprintf("plugin %d is %q on the first, %q on the second", i+1, a[i].Name, b[i].Name)
		case a[i].State != b[i].State:
			return fmt.Sprintf("plugin %q: state %d on the first, %d on the second", a[i].Name, a[i].State, b[i].State)
		case !slices.Equal(a[i].Barriers, b[i].Barriers):
			return fmt.Sprintf("plugin %q: barriers %q on the first, %q on the second", a[i].Name, a[i].Barriers, b[i].Barriers)
		}
	}
	return ""
}
