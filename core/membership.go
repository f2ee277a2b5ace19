package core

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/core/image"
)

// membership is the agent's place in its computation, whose coordinator is in
// the agent that came first. Where that one is lost, another takes its place.
type membership struct {
	mu      sync.Mutex
	member  *coord.Member
	server  *coord.Server // nil: the coordinator is elsewhere
	leaving chan struct{} // closed when the agent ends
	stays   sync.WaitGroup
}

// rejoinMost is the longest pause between attempts to find a coordinator.
const rejoinMost = time.Second

// enter makes the agent a member of its computation: of the one that runs, or
// of a new one, whose coordinator it is then. id is the agent's in the restart of
// a generation; both are zero in a launch.
func (a *agent) enter(ctx context.Context, id string, restart uint64) error {
	var addr string
	var err error
	if a.opts.Join {
		addr, err = coord.Find(a.opts.Name)
	} else {
		open := a.opts.newStore
		if restart != 0 {
			open = a.opts.openStore
		}
		addr, err = a.coordinate(ctx, coord.Config{Name: a.opts.Name, Unique: a.opts.UniqueName, Computation: a.computation,
			OpenStore: open,
			Keep:      a.opts.Keep, Interval: a.opts.Interval, Restart: restart})
	}
	if err != nil {
		return err
	}
	hello := a.hello(id)
	hello.Restart = restart
	if err := a.join(ctx, addr, hello); err != nil {
		return err
	}
	w := a.coordinator().Welcome()
	a.computation, a.name, a.dir = w.Computation, w.Name, w.Dir
	return nil
}

// coordinate makes the agent the coordinator, and returns its address.
func (a *agent) coordinate(ctx context.Context, cfg coord.Config) (addr string, err error) {
	cfg.Manifest, cfg.Log = a.manifest, a.log
	server, err := coord.Listen(cfg)
	if err != nil {
		return "", err
	}
	a.place.mu.Lock()
	a.place.server = server
	a.place.mu.Unlock()
	go serve(ctx, server, a.log)
	return server.Addr(), nil
}

// hello presents the agent. In a restart and afterwards the computation must be
// its own.
func (a *agent) hello(id string) coord.Hello {
	host, _ := os.Hostname()
	hello := coord.Hello{ID: id, Host: host, PID: os.Getpid(), Computation: a.computation}
	for _, p := range a.plugins.Infos() {
		hello.Plugins = append(hello.Plugins, coord.PluginInfo{Name: p.Name, State: p.State, Barriers: p.Barriers})
	}
	return hello
}

func (a *agent) join(ctx context.Context, addr string, hello coord.Hello) error {
	member, err := coord.Join(ctx, addr, hello, a, a.log)
	if err != nil {
		return err
	}
	a.place.mu.Lock()
	a.place.member = member
	a.place.mu.Unlock()
	a.meeting.join(member)
	return nil
}

// coordinator is the connection to it, which may be lost.
func (a *agent) coordinator() *coord.Member {
	a.place.mu.Lock()
	defer a.place.mu.Unlock()
	return a.place.member
}

// stay keeps the agent in its computation until leave, when its tree runs.
func (a *agent) stay(ctx context.Context) {
	a.place.stays.Go(func() {
		for {
			member := a.coordinator()
			select {
			case <-member.Done():
			case <-a.place.leaving:
				return
			}
			a.log.Info().Msg("the coordinator is lost; the program runs on")
			if !a.rejoin(ctx, member.Welcome()) {
				return
			}
		}
	})
}

// rejoin goes on until there is a coordinator again: it says whether there is.
func (a *agent) rejoin(ctx context.Context, was coord.Welcome) bool {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, rejoinMost) {
		err := a.joinAgain(ctx, was)
		switch {
		case err == nil:
			a.log.Info().Str("agent", a.coordinator().Welcome().ID).Msg("joined again")
			return true
		case errors.Is(err, coord.ErrOther):
			a.log.Error().Err(err).Str("name", was.Name).Msg("the program cannot be checkpointed any more")
			return false
		case errors.Is(err, coord.ErrIDTaken):
			was.ID = "" // by an agent that is new: any other will do
		}
		a.log.Debug().Err(err).Msg("not joined again yet")
		select {
		case <-time.After(pause):
		case <-a.place.leaving:
			return false
		}
	}
}

var errTreeEnded = errors.New("the tree has ended")

// joinAgain joins the coordinator that there is now, or becomes it. The lock of
// the name lets one agent do so.
func (a *agent) joinAgain(ctx context.Context, was coord.Welcome) error {
	addr, err := coord.Find(was.Name)
	if errors.Is(err, coord.ErrNotRunning) {
		if pids, err := a.all(); err != nil || len(pids) == 0 {
			return errors.Join(errTreeEnded, err) // whoever restarts it wants the name
		}
		a.closeServer()
		addr, err = a.coordinate(ctx, coord.Config{Name: was.Name, Computation: was.Computation, Keep: was.Keep, Interval: was.Interval,
			OpenStore: func(string) (*image.Store, error) { return storeAt(was.Dir) }})
	}
	if err != nil {
		return err
	}
	return a.join(ctx, addr, a.hello(was.ID))
}

// leave ends the membership, and the coordinator if it is here.
func (a *agent) leave() {
	close(a.place.leaving)
	a.place.stays.Wait()
	if member := a.coordinator(); member != nil {
		member.Close()
		<-member.Done()
	}
	a.closeServer()
}

func (a *agent) closeServer() {
	a.place.mu.Lock()
	server := a.place.server
	a.place.server = nil
	a.place.mu.Unlock()
	if server == nil {
		return
	}
	if err := server.Close(); err != nil {
		a.log.Warn().Err(err).Msg("the coordinator's end")
	}
}

// manifest returns what the agent knows of a generation's manifest.
func (a *agent) manifest() image.Manifest {
	return baseManifest(image.Manifest{Command: a.command, Cwd: a.cwd, Settings: a.opts.settings()})
}

// baseManifest adds what is known of this host.
func baseManifest(m image.Manifest) image.Manifest {
	var u unix.Utsname
	_ = unix.Uname(&u)
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	m.Hiatus, m.Uid, m.Arch, m.Kernel = version(), os.Geteuid(), archName, unix.ByteSliceToString(u.Release[:])
	m.BootID = string(slices.DeleteFunc(boot, func(c byte) bool { return c == '\n' }))
	return m
}
