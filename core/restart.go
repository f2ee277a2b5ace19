package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// Restart brings back the tree of an image below this process, which becomes
// its agent, and returns when the whole tree has ended, as Launch does. An
// error is the agent's own: nothing of the tree runs.
func Restart(ctx context.Context, o RestartOptions) (code int, err error) {
	a, err := newAgent(o.Options)
	if err != nil {
		return 0, err
	}
	defer a.close()
	r := &restart{a: a, o: o, loop: newLoop(a)}
	defer r.close()
	if err := r.read(ctx); err != nil { // nothing has happened yet
		return 0, err
	}
	if err := faultpoint.At(faultpoint.RestartRead); err != nil {
		return 0, err
	}
	a.sequence.Lock() // no check yet
	if err := a.enter(ctx, r.agent.ID, r.manifest.Generation); err != nil {
		return 0, err
	}
	a.meeting.begin(r.manifest.Generation)
	r.interruption = a.interruptible(ctx)
	defer r.interruption.close()
	if err := faultpoint.At(faultpoint.RestartJoined); err != nil {
		return 0, err
	}
	err = r.interruption.why(r.rebuild(r.interruption.ctx))
	r.interruption.disarm()
	a.sequence.Unlock()
	if err != nil {
		a.coordinator().Fail(ctx, err)
		return 0, err
	}
	if err := r.tellRestored(ctx); err != nil {
		a.log.Warn().Err(err).Msg("the tree runs, and the coordinator does not know it")
	}
	_ = faultpoint.At(faultpoint.RestartSupervised)
	a.stay(ctx)
	code, err = r.loop.run(ctx)
	return code, errors.Join(err, r.arrived())
}

// tellRestored tells the coordinator, but not for long: until then nobody answers signals,
// nor the ends of processes.
func (r *restart) tellRestored(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.a.coordinator().Restored(ctx)
}

// arrived waits for the end of a lazy restart, and says what it has met. The
// tree has ended: it does not take long.
func (r *restart) arrived() error {
	a := r.a.lateMemory()
	if a == nil {
		return nil
	}
	<-a.Over()
	if err := a.Err(); err != nil {
		return fmt.Errorf("%s: the program was ended, as its memory cannot be brought back: %w", r.o.Generation, err)
	}
	return nil
}

// watchArrival tells the log how memory has arrived.
func (r *restart) watchArrival() {
	a, log, begun := r.a.lateMemory(), r.a.log, time.Now()
	if a == nil {
		return
	}
	go func() {
		<-a.Over()
		_, total := a.Progress()
		if err := a.Err(); err != nil {
			log.Error().Err(err).Msg("the program is ended: its memory cannot be brought back")
			return
		}
		log.Info().Int64("bytes", total).Dur("took", time.Since(begun)).Msg("all memory has arrived")
	}()
}

// restart is one image on its way back to life.
type restart struct {
	a        *agent
	o        RestartOptions
	manifest *image.Manifest
	agent    image.AgentManifest
	image    *image.Reader
	state    *proc.State
	core     agentState
	tree     *proc.Restorer
	loop     *loop
	met      []string // barriers
	mapped   bool     // paths in state are as they are now
	beside   bool     // another restart of the image, or what it was made of, lives

	interruption *interruption
}

func (r *restart) close() {
	r.loop.stop()
	if r.image != nil {
		r.image.Close()
	}
}

// progress tells the caller how far a phase is.
func (r *restart) progress(phase string) func(done, total int64) {
	return func(done, total int64) {
		if r.o.Progress != nil {
			r.o.Progress(phase, done, total)
		}
	}
}

// rebuild makes the tree: in the current namespaces if that is possible and
// wanted, else in new ones.
func (r *restart) rebuild(ctx context.Context) error {
	// Nothing is made before all have read their images.
	if err := r.meet(ctx, "read"); err != nil {
		return err
	}
	fresh, err := r.newNamespaces(ctx)
	if err != nil {
		return err
	}
	err = r.attempt(ctx, fresh)
	if elsewhere(err) && !fresh && r.o.Namespaces == "auto" {
		r.a.log.Debug().Err(err).Msg("restart in new namespaces instead")
		if err := r.loadPlugins(ctx); err != nil {
			return err
		}
		err = r.attempt(ctx, true)
	}
	return err
}

// elsewhere says whether new namespaces have room for what could not be made here.
func elsewhere(err error) bool {
	return errors.Is(err, proc.ErrPidTaken) || errors.Is(err, proc.ErrPidForbidden) || errors.Is(err, plugin.ErrTaken)
}

// meet waits for the other agents, once at each barrier: those who have met there
// wait for nobody who makes a second attempt.
func (r *restart) meet(ctx context.Context, barrier string) error {
	if slices.Contains(r.met, barrier) {
		return nil
	}
	if err := r.a.coordinator().Barrier(ctx, r.manifest.Generation, barrier); err != nil {
		return err
	}
	r.met = append(r.met, barrier)
	return nil
}

// newNamespaces decides where to restart.
func (r *restart) newNamespaces(ctx context.Context) (bool, error) {
	switch r.o.Namespaces {
	case "always":
		return true, nil
	case "never":
		if os.Geteuid() != 0 {
			return false, errors.New("--namespaces never needs root: only a privileged user may choose process ids in the current namespaces (clone3(2), set_tid)")
		}
		return false, r.a.plugins.FreeHere(ctx)
	case "auto", "":
		if os.Geteuid() != 0 || r.state.OwnPtys || !r.state.IDsFree() {
			return true, nil
		}
		err := r.a.plugins.FreeHere(ctx)
		r.a.log.Debug().Err(err).Msg("restart in new namespaces?")
		return err != nil, nil
	}
	return false, fmt.Errorf("namespaces %q: want auto, always or never", r.o.Namespaces)
}

// attempt is the sequence of a restart. On error nothing of it is left.
func (r *restart) attempt(ctx context.Context, fresh bool) (err error) {
	a := r.a
	t := a.tr.NewRestorer(r.state, r.image, proc.RestoreOptions{NewNamespaces: fresh, Sleeps: a.sleeps, Lazy: r.o.Lazy,
		Warn:  func(format string, args ...any) { a.log.Warn().Msgf(format, args...) },
		Debug: func(format string, args ...any) { a.log.Debug().Msgf(format, args...) }})
	r.tree = t
	defer func() {
		if err != nil {
			_ = a.plugins.Dispatch(context.WithoutCancel(ctx), plugin.Event{Kind: plugin.Exit, Failed: true})
			t.Abort()
		}
	}()
	inherit := !fresh || (r.state.Terminal && a.term != nil)
	if err := t.Tree(ctx, inherit); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartTree); err != nil {
		return err
	}
	// The rest of the image is verified here, as it is read: until all agents
	// have theirs, nothing outside of blank processes is touched.
	if err := t.Fill(ctx, r.progress("fill")); err != nil {
		return err
	}
	if err := r.meet(ctx, "verified"); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartPrivate); err != nil {
		return err
	}
	a.where.setRoot(t.Root())
	a.where.setEnded(t.MakeEnded)
	defer a.where.setEnded(nil)
	procs := t.PluginProcs()
	generation := r.manifest.Generation
	// Extensions, who say where paths are now, hear of Restart first.
	a.where.setMapPath(a.plugins.MapPath)
	defer a.where.setMapPath(nil)
	if err := a.plugins.Dispatch(ctx, plugin.Event{Kind: plugin.Restart, Generation: generation, Procs: procs,
		Restarted: !r.beside && image.WasRestarted(r.o.Generation), Beside: r.beside, Dir: a.dir, Here: r.state.IsOfThisBoot()}); err != nil {
		return err
	}
	if err := r.mapPaths(); err != nil {
		return err
	}
	a.sums.Learn(r.state)
	// Until all have looked at what is there, nobody uses any of it.
	if err := r.meet(ctx, "looked"); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartObjects); err != nil {
		return err
	}
	if err := t.MakePlaces(); err != nil {
		return err
	}
	if err := r.fill(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartInstalled); err != nil {
		return err
	}
	for _, p := range procs {
		if err := a.plugins.RestoreProcess(ctx, p); err != nil {
			return err
		}
	}
	if err := faultpoint.At(faultpoint.RestartProcesses); err != nil {
		return err
	}
	if err := t.Threads(ctx); err != nil {
		return err
	}
	if err := r.meet(ctx, "filled"); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartThreads); err != nil {
		return err
	}
	if err := a.plugins.Dispatch(ctx, plugin.Event{Kind: plugin.Running, Generation: generation, Procs: procs}); err != nil {
		return err
	}
	if err := a.plugins.Publish(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartPublished); err != nil {
		return err
	}
	if err := a.plugins.Hold(ctx, plugin.Event{Kind: plugin.Running, Generation: generation, Procs: procs}); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartRunning); err != nil {
		return err
	}
	if err := t.Finish(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartFinished); err != nil {
		return err
	}
	if err := r.meet(ctx, "restored"); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartRestored); err != nil {
		return err
	}
	a.plugins.Published(ctx)
	missing.Forget()
	r.adopt(fresh, inherit)
	r.loop.listenAll()
	r.interruption.disarm()
	if err := t.Run(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.arrival = t.Arrival()
	a.mu.Unlock()
	r.watchArrival()
	_ = faultpoint.At(faultpoint.RestartReleased)
	if err := image.MarkRestarted(r.o.Generation); err != nil {
		a.log.Info().Err(err).Msg("nothing says that the image was restarted: after checkpoint --kill, what the program writes will count as changes by others in the next restart of it")
	}
	return nil
}

// fill has the plugins make the open file descriptions again, in the order of
// their claims, and gives the processes their memory and descriptors.
func (r *restart) fill(ctx context.Context) error {
	fds := map[int]int{}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for i := range r.state.Files {
		f := &r.state.Files[i]
		fd, err := r.a.plugins.ReopenFile(ctx, f.Owner, f.OpenFile())
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		fds[f.ID] = fd
	}
	if err := faultpoint.At(faultpoint.RestartReopened); err != nil {
		return err
	}
	if err := r.a.plugins.FillFiles(ctx, r.tree.PluginProcs(), fds); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartFilled); err != nil {
		return err
	}
	if err := r.tree.Memory(ctx, fds, r.a.plugins.ReopenMap, r.a.plugins.AttachMap, r.a.plugins.ContentTarget); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.RestartMemory); err != nil {
		return err
	}
	return r.tree.Files(ctx, fds)
}

// adopt makes the restored tree the agent's, and gives it the terminal.
func (r *restart) adopt(fresh, inherit bool) {
	a, t := r.a, r.tree
	_, reaper, reports := t.Ended()
	session := r.state.Session
	switch {
	case inherit && fresh:
		session = 0 // the agent's, which has no id in the new pid namespace
	case inherit:
		session, _ = unix.Getsid(0) // never fails
	}
	a.adopt(treeRoots{parent: reaper, reaper: r.state.Reaper, session: session, main: t.HostPID(r.core.Main), mainPID: r.core.Main,
		ended: r.core.Ended, reports: reports})
	r.giveTerminal()
}

// DirOf returns the --ckptdir that holds the folder of a generation.
func DirOf(generation string) string { return filepath.Dir(filepath.Dir(generation)) }
