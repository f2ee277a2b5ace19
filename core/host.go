package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
)

// rendezvous is where the agents of a computation meet: the coordinator, as
// an agent sees it.
type rendezvous interface {
	Barrier(ctx context.Context, name string) error
	Publish(ctx context.Context, key string, val []byte) error
	Lookup(ctx context.Context, key string) ([]byte, error)
}

// surroundings is what all plugins may know about where the tree runs. The
// agent changes it as the tree comes to life; plugins read it.
type surroundings struct {
	mu       sync.RWMutex
	root     string
	terminal int // -1: none
	stdio    [3]int
	mapPath  func(string) string // nil: no path has changed
	ended    endedMaker          // nil but in a restart
}

// endedMaker makes a process that has ended, as plugin.Host's Ended.
type endedMaker func(ctx context.Context, status int, use func(hostPID int) error) error

// newSurroundings is the host's own root, no terminal, and the agent's own
// standard descriptors.
func newSurroundings() *surroundings {
	return &surroundings{terminal: -1, stdio: [3]int{0, 1, 2}}
}

// setRoot sets the path under which the agent sees the programs' root
// directory: "" or "/proc/N/root".
func (s *surroundings) setRoot(root string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root = root
}

// setMapPath sets who knows where paths are now, in a restart.
func (s *surroundings) setMapPath(fn func(string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mapPath = fn
}

// setEnded sets who makes processes that have ended, nil for nobody.
func (s *surroundings) setEnded(ended endedMaker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = ended
}

// setTerminal sets the terminal of the command, -1 for none. The descriptor
// stays the caller's.
func (s *surroundings) setTerminal(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terminal = fd
}

// setStdio sets descriptors 0, 1 and 2 of the command. They stay the caller's.
func (s *surroundings) setStdio(fds [3]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stdio = fds
}

// pluginHost is the plugin.Host of one plugin.
type pluginHost struct {
	def    plugin.Definition
	log    zerolog.Logger
	config func(name string, dst any) error
	where  *surroundings
	meet   rendezvous
}

// newPluginHost makes the host of the plugin of def. log has the field plugin
// already; config may be nil where there is no configuration, and meet where
// there is no coordinator.
func newPluginHost(def plugin.Definition, log zerolog.Logger, config func(string, any) error, where *surroundings, meet rendezvous) *pluginHost {
	return &pluginHost{def: def, log: log, config: config, where: where, meet: meet}
}

var errNoCoordinator = errors.New("there is no coordinator")

func (h *pluginHost) Log() *zerolog.Logger { return &h.log }

func (h *pluginHost) Config(dst any) error {
	if h.config == nil {
		return nil
	}
	if err := h.config(h.def.Name, dst); err != nil {
		return fmt.Errorf("configuration of plugin %s: %w", h.def.Name, err)
	}
	return nil
}

func (h *pluginHost) Root() string {
	h.where.mu.RLock()
	defer h.where.mu.RUnlock()
	return h.where.root
}

func (h *pluginHost) MapPath(path string) string {
	h.where.mu.RLock()
	defer h.where.mu.RUnlock()
	if h.where.mapPath == nil {
		return path
	}
	return h.where.mapPath(path)
}

func (h *pluginHost) Terminal() (fd int, ok bool) {
	h.where.mu.RLock()
	defer h.where.mu.RUnlock()
	return h.where.terminal, h.where.terminal >= 0
}

func (h *pluginHost) Stdio(n int) (fd int) {
	h.where.mu.RLock()
	defer h.where.mu.RUnlock()
	if n < 0 || n >= len(h.where.stdio) {
		return -1
	}
	return h.where.stdio[n]
}

func (h *pluginHost) Ended(ctx context.Context, status int, use func(hostPID int) error) error {
	h.where.mu.RLock()
	ended := h.where.ended
	h.where.mu.RUnlock()
	if ended == nil {
		return errNoRestart
	}
	return ended(ctx, status, use)
}

var errNoRestart = errors.New("processes are made in a restart only")

// Barrier refuses a name that the definition does not declare: the
// coordinator compares the declared ones across hosts, and an agent that
// waits at another would wait for ever.
func (h *pluginHost) Barrier(ctx context.Context, name string) error {
	if !slices.Contains(h.def.Barriers, name) {
		return fmt.Errorf("barrier %q is not among the barriers of plugin %s: %q", name, h.def.Name, h.def.Barriers)
	}
	if h.meet == nil {
		return fmt.Errorf("barrier %q: %w", name, errNoCoordinator)
	}
	return h.meet.Barrier(ctx, h.scoped(name))
}

func (h *pluginHost) Publish(ctx context.Context, key string, val []byte) error {
	if h.meet == nil {
		return fmt.Errorf("publish %q: %w", key, errNoCoordinator)
	}
	return h.meet.Publish(ctx, h.scoped(key), val)
}

func (h *pluginHost) Lookup(ctx context.Context, key string) ([]byte, error) {
	if h.meet == nil {
		return nil, fmt.Errorf("lookup %q: %w", key, errNoCoordinator)
	}
	return h.meet.Lookup(ctx, h.scoped(key))
}

// scoped keeps the names of one plugin apart from those of others and of the
// core.
func (h *pluginHost) scoped(name string) string { return "plugin/" + h.def.Name + "/" + name }

var _ plugin.Host = (*pluginHost)(nil)
