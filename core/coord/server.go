package coord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
)

const (
	maxConns       = 512
	defaultTimeout = time.Hour
	closeGrace     = 5 * time.Second        // for each step of Close
	acceptPause    = 100 * time.Millisecond // where accept(2) lacks a descriptor or memory
)

// Config is what a coordinator is made from.
type Config struct {
	Name        string // letters, digits and "._+-", at most 64
	Unique      bool   // where Name is taken, or OpenStore has an [image.FormatError], add -2, -3, ...
	Computation string // id, kept across restarts
	Store       *image.Store
	// OpenStore opens the store of a name, unless it is nil.
	OpenStore  func(name string) (*image.Store, error)
	Keep       int                   // committed generations kept; less than 1 means 1
	Interval   time.Duration         // between periodic checkpoints; 0: none
	Timeout    time.Duration         // of a checkpoint whose request has none; 0: 1 hour
	Restart    uint64                // the generation that is restarted; 0: none. Until all Agents are Restored, ErrRestarting refuses checkpoints
	Agents     int                   // that a restart brings back: its barriers wait for all of them; 0: 1
	Manifest   func() image.Manifest // the base fields of a manifest: command, cwd, ...
	Log        zerolog.Logger
	RuntimeDir string // "": RuntimeDir()

	elsewhere []string // other runtime directories, whose names are taken too
	lasting   string   // see stay; "": that of the user
	stayEach  time.Duration
}

// Server is the coordinator of one computation.
type Server struct {
	cfg     Config
	name    string
	log     zerolog.Logger
	started time.Time

	ctx             context.Context // done when Close begins
	cancel          context.CancelCauseFunc
	closed          chan struct{}  // closed when Close has ended
	conns           sync.WaitGroup // connections being served; added to under mu, unless closing
	intervalChanged chan struct{}  // holds at most one

	running chan struct{} // holds one value while a checkpoint is in progress
	asking  chan struct{} // holds one value while a checkpoint or a check is

	mu      sync.Mutex
	slot    *slot // they move, see stay
	ln      *net.UnixListener
	staying sync.WaitGroup
	closing bool
	open    map[*conn]struct{}
	members map[string]*member // by id
	ended   map[string]bool    // ids of agents that have left as they should, with their trees
	session *session           // nil: none
	begun   bool               // a checkpoint has been tried: no restart any more
	byTimer bool               // the checkpoint in progress is a periodic one
	awaited bool               // somebody waits for its end
	// restarting: the tree of an agent does not run yet, and no checkpoint may begin.
	restarting bool
	restored   chan struct{} // closed when not restarting
	interval   time.Duration
	last       outcome
}

// outcome is what is remembered of checkpoints.
type outcome struct {
	pause, total time.Duration
	bytes        int64
	timings      []Timing
	err          string
	at           time.Time
}

// Listen claims the name and makes the socket. The caller calls Serve, and
// Close in any case.
func Listen(cfg Config) (*Server, error) {
	if err := checkName("name", cfg.Name); err != nil {
		return nil, err
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	slot, ln, err := claim(cfg.RuntimeDir, cfg.Name, cfg.Unique, cfg.open)
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	s := &Server{
		cfg: cfg, name: slot.name, slot: slot, ln: ln, started: time.Now(),
		log:             cfg.Log,
		closed:          make(chan struct{}),
		intervalChanged: make(chan struct{}, 1),
		running:         make(chan struct{}, 1),
		asking:          make(chan struct{}, 1),
		open:            make(map[*conn]struct{}),
		members:         make(map[string]*member),
		ended:           make(map[string]bool),
		interval:        max(cfg.Interval, 0),
		restarting:      cfg.Restart != 0,
		restored:        make(chan struct{}),
	}
	if !s.restarting {
		close(s.restored)
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// open opens the store of the final name.
func (cfg *Config) open(name string) (err error) {
	for _, dir := range cfg.elsewhere {
		if answers(socketPath(dir, name)) {
			return fmt.Errorf("name %q: %w (%s)", name, ErrNameTaken, dir)
		}
	}
	if cfg.OpenStore != nil {
		cfg.Store, err = cfg.OpenStore(name)
	}
	return err
}

// complete fills in what was left out.
func (cfg *Config) complete() (err error) {
	cfg.Keep = max(cfg.Keep, 1)
	cfg.Agents = max(cfg.Agents, 1)
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	cfg.stayEach = cmp.Or(cfg.stayEach, stayEach)
	cfg.lasting = cmp.Or(cfg.lasting, lastingDir("/tmp", os.Geteuid()))
	if cfg.RuntimeDir == "" {
		var dirs []string
		if dirs, err = runtimeDirs(); err == nil {
			cfg.RuntimeDir, cfg.elsewhere = dirs[0], dirs[1:]
		}
	}
	return err
}

// Name returns the name of the computation, which may have got a number.
func (s *Server) Name() string { return s.name }

// Addr returns the address for Join: "unix:" and the path of the socket.
// It changes where the socket is removed by others.
func (s *Server) Addr() string {
	slot, _ := s.listening()
	return unixScheme + socketPath(slot.dir, slot.name)
}

// listening returns the socket of the moment.
func (s *Server) listening() (*slot, *net.UnixListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot, s.ln
}

// Serve accepts connections and takes the periodic checkpoints until ctx is
// done or Close is called; then it closes the server and returns nil. A
// listener that fails otherwise is an error.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	go s.periodic()
	s.mu.Lock()
	if !s.closing {
		s.staying.Go(func() { s.stay(s.cfg.stayEach) })
	}
	s.mu.Unlock()
	for {
		_, ln := s.listening()
		nc, err := ln.AcceptUnix()
		switch {
		case err == nil:
			s.admit(nc)
		case s.ctx.Err() != nil:
			<-s.closed
			return nil
		case errors.Is(err, net.ErrClosed): // it has moved
		case passing(err):
			s.log.Warn().Err(err).Msg("connection not accepted")
			within(s.ctx.Done(), acceptPause)
		default:
			return fmt.Errorf("coordinator: %w", err)
		}
	}
}

// passing says whether accept(2) failed for want of something that will be
// there again, or for a peer that went away.
func passing(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED,
	}, func(known error) bool { return errors.Is(err, known) })
}

// admit serves a connection on a goroutine of its own, if its peer may come.
func (s *Server) admit(nc *net.UnixConn) {
	pid, err := checkPeer(nc)
	if err != nil {
		s.log.Warn().Err(err).Msg("connection refused")
		nc.Close()
		return
	}
	v := &visitor{server: s, pid: pid}
	v.conn = newConn(nc, s.log, v.dispatch)
	v.conn.setIdle(handshakeTimeout)
	s.mu.Lock()
	refuse := s.closing || len(s.open) >= maxConns
	if !refuse {
		s.open[v.conn] = struct{}{}
		s.conns.Add(1)
	}
	s.mu.Unlock()
	if refuse {
		s.log.Warn().Int("limit", maxConns).Msg("connection refused: too many, or closing")
		nc.Close()
		return
	}
	go s.serve(v)
}

func (s *Server) serve(v *visitor) {
	defer s.conns.Done()
	stop := context.AfterFunc(v.conn.ctx, func() { s.leave(v, context.Cause(v.conn.ctx)) })
	defer stop()
	v.conn.logEnd(v.conn.run())
	s.leave(v, context.Cause(v.conn.ctx))
}

// leave removes a connection, and with an agent's the member. A session that
// the agent takes part in is given up.
func (s *Server) leave(v *visitor, cause error) {
	s.mu.Lock()
	delete(s.open, v.conn)
	m := v.member.Load()
	if m == nil || s.members[m.hello.ID] != m {
		s.mu.Unlock()
		return
	}
	delete(s.members, m.hello.ID)
	s.endRestart()
	x := s.session
	restored, ended := m.restored, s.ended[m.hello.ID] || s.closing
	s.mu.Unlock()
	if ended {
		s.log.Info().Str("agent", m.hello.ID).Str("host", m.hello.Host).Msg("agent left")
	} else {
		s.log.Warn().Str("agent", m.hello.ID).Str("host", m.hello.Host).
			Msg("agent lost: checkpoints go on without its tree, and the newest image of that is kept")
	}
	if x != nil && x.has(m) && (x.checkpoint || !restored) { // a restored one has met all it had to
		x.giveUp(fmt.Errorf("agent %s: %w", m.hello.ID, cause))
	}
}

// treeEnded notes that m leaves because its tree has ended.
func (s *Server) treeEnded(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[m.hello.ID] = true
}

// hasEnded says whether the tree of an agent has. Of those that left another
// coordinator it is not known.
func (s *Server) hasEnded(agent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[agent]
}

// join adds a member.
func (s *Server) join(m *member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.hello.ID == "" {
		m.hello.ID = s.freeID()
	}
	if err := checkName("agent id", m.hello.ID); err != nil {
		return err
	}
	if s.closing {
		return ErrClosed
	}
	if err := s.suits(m.hello); err != nil {
		return err
	}
	s.members[m.hello.ID] = m
	delete(s.ended, m.hello.ID)
	s.log.Info().Str("agent", m.hello.ID).Str("host", m.hello.Host).Int("pid", m.hello.PID).Msg("agent joined")
	return nil
}

// freeID returns the lowest number that no member has. The caller holds mu.
func (s *Server) freeID() string {
	for n := 0; ; n++ {
		id := strconv.Itoa(n)
		if _, taken := s.members[id]; !taken {
			return id
		}
	}
}

// suits says why an agent cannot become a member now. The caller holds mu.
func (s *Server) suits(h Hello) error {
	switch _, taken := s.members[h.ID]; {
	case h.Computation != "" && h.Computation != s.cfg.Computation:
		return ErrOther
	case taken:
		return fmt.Errorf("agent id %q: %w", h.ID, ErrIDTaken)
	case s.restarting && h.Restart == 0:
		return ErrRestarting
	case s.restarting && h.Restart != s.cfg.Restart:
		return fmt.Errorf("agent %s: generation %d is restarted, not %d", h.ID, s.cfg.Restart, h.Restart)
	case !s.restarting && h.Restart != 0:
		return fmt.Errorf("agent %s: no restart is in progress", h.ID)
	}
	for _, other := range s.members {
		return compare(other.hello, h) // all members are alike
	}
	return nil
}

// welcome is what a member, nil for a command, is told.
func (s *Server) welcome(m *member) Welcome {
	w := Welcome{Name: s.Name(), Computation: s.cfg.Computation, Dir: s.cfg.Store.Path(), Keep: s.cfg.Keep, Interval: s.currentInterval()}
	if m != nil {
		w.ID = m.hello.ID
	}
	return w
}

// list returns the members, by id.
func (s *Server) list() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.members))
	sortMembers(list)
	return list
}

// sessionFor returns the session that m works in: the checkpoint of that
// generation, or before the first checkpoint the restart, which opens here.
func (s *Server) sessionFor(m *member, generation uint64) (*session, error) {
	s.mu.Lock()
	if s.session == nil && !s.begun && !s.closing {
		s.session = newSession(s.ctx, 0, s.cfg.Agents)
	}
	x := s.session
	s.mu.Unlock()
	if x == nil || x.checkpoint && x.generation != generation {
		return nil, givenUp(fmt.Errorf("generation %d is not in progress", generation))
	}
	return x, x.enter(m)
}

// agentRestored notes that the tree of m runs.
func (s *Server) agentRestored(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.restored = true
	s.endRestart()
}

// endRestart ends the restart when the trees of all members run. All agents have
// met for the last time before the first of them says so: one that is missing has
// been lost since. The caller holds mu.
func (s *Server) endRestart() {
	if !s.restarting || len(s.members) == 0 {
		return
	}
	for _, m := range s.members {
		if !m.restored {
			return
		}
	}
	s.restarting = false
	close(s.restored)
}

func (s *Server) currentInterval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interval
}

// Close ends the coordinator: the socket is removed, a checkpoint that is not
// committed is given up, replies that are due are sent, connections are closed
// and the name is freed. It takes 15 s at most. Calls after the first
// wait for it and return nil.
func (s *Server) Close() error {
	s.mu.Lock()
	again := s.closing
	s.closing = true
	slot, ln := s.slot, s.ln // which do not change any more
	s.mu.Unlock()
	if again {
		<-s.closed
		return nil
	}
	defer close(s.closed)
	s.cancel(ErrClosed)
	s.staying.Wait()
	err := errors.Join(slot.unlisten(), ln.Close())

	select {
	case s.running <- struct{}{}: // never given back
	case <-time.After(closeGrace):
	}
	s.eachConn((*conn).stop)
	ended := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(ended)
	}()
	if !within(ended, closeGrace) {
		s.eachConn(func(c *conn) { c.abort(ErrClosed) })
		within(ended, closeGrace)
	}
	return errors.Join(err, s.cfg.Store.Close(), slot.release())
}

// within waits for done, at most for d.
func within(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

func (s *Server) eachConn(do func(*conn)) {
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range list {
		do(c)
	}
}
