package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// listTimeout is for all coordinators to answer ListRunning.
const listTimeout = 2*time.Second + statusTimeout

// Client is a command's connection to a coordinator. Its methods may be
// called from several goroutines; the limits in time are the contexts'.
type Client struct {
	name string
	pid  int // of the coordinator's process
	conn *conn

	mu       sync.Mutex
	progress func(Progress) // of the checkpoint that is waited for
}

// Dial connects to the coordinator of the computation called name. The name
// may be "" where exactly one runs. Otherwise the error, which matches
// ErrNotRunning where there is no such computation, lists those that run.
func Dial(ctx context.Context, name string) (*Client, error) {
	dirs, err := runtimeDirs()
	if err != nil {
		return nil, err
	}
	return dialIn(ctx, dirs, name)
}

func dialIn(ctx context.Context, dirs []string, name string) (*Client, error) {
	at, err := find(dirs, name)
	if err != nil {
		return nil, err
	}
	return connect(ctx, at.dir, at.name)
}

// Find returns the address for Join of the computation called name. Its errors
// are Dial's.
func Find(name string) (addr string, err error) {
	dirs, err := runtimeDirs()
	if err != nil {
		return "", err
	}
	at, err := find(dirs, name)
	if err != nil {
		return "", err
	}
	return unixScheme + socketPath(at.dir, at.name), nil
}

// place is where a coordinator listens.
type place struct{ dir, name string }

// places lists the coordinators in all dirs, by name.
func places(dirs []string) (all []place, err error) {
	for _, dir := range dirs {
		names, err := running(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			all = append(all, place{dir, name})
		}
	}
	slices.SortStableFunc(all, func(a, b place) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// find returns the one that is meant.
func find(dirs []string, name string) (place, error) {
	all, err := places(dirs)
	if err != nil {
		return place{}, err
	}
	var names []string
	for _, at := range all {
		names = append(names, at.name)
	}
	if name, err = choose(names, name); err != nil {
		return place{}, err
	}
	i := slices.Index(names, name)
	if i+1 < len(names) && names[i+1] == name { // two that were launched at once
		return place{}, fmt.Errorf("%q runs in %s and in %s: XDG_RUNTIME_DIR chooses", name, all[i].dir, all[i+1].dir)
	}
	return all[i], nil
}

// choose returns the name that is meant.
func choose(names []string, name string) (string, error) {
	list := strings.Join(names, ", ")
	switch {
	case name != "" && slices.Contains(names, name):
		return name, nil
	case name == "" && len(names) == 1:
		return names[0], nil
	case len(names) == 0 && name == "":
		return "", fmt.Errorf("%w: none is", ErrNotRunning)
	case len(names) == 0:
		return "", fmt.Errorf("%q: %w: none is", name, ErrNotRunning)
	case name == "":
		return "", fmt.Errorf("%d computations are running, name one: %s", len(names), list)
	}
	return "", fmt.Errorf("%q: %w, but these: %s", name, ErrNotRunning, list)
}

// connect makes a client for the coordinator of name in dir.
func connect(ctx context.Context, dir, name string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	nc, pid, err := dialSocket(ctx, socketPath(dir, name))
	if err != nil {
		return nil, fmt.Errorf("computation %q: %w", name, err)
	}
	c := &Client{name: name, pid: pid}
	c.conn = newConn(nc, zerolog.Nop(), c.dispatch)
	go c.conn.run()
	in := helloBody{Protocol: protocolVersion, Role: roleCommand}
	if err := c.call(ctx, methodHello, in, nil); err != nil {
		c.Close()
		return nil, fmt.Errorf("computation %q: %w", name, err)
	}
	return c, nil
}

// silence is how long an answer may take before the coordinator's process is
// looked at.
const silence = time.Second

// call is conn.call that gives up with ErrStopped where the coordinator's
// process is stopped: it takes connections, as the kernel does that for it, but
// answers nobody.
func (c *Client) call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := c.attend(ctx)
	defer cancel()
	return c.conn.call(ctx, method, in, out)
}

// attend returns a context that is also done when the coordinator is suspended.
func (c *Client) attend(parent context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		tick := time.NewTicker(silence)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := suspended(c.pid); err != nil {
					cancel(err)
				}
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// suspended returns an ErrStopped where an agent's process is stopped.
func suspended(pid int) error {
	if st, err := procfs.ReadStat(pid); err == nil && st.State == 'T' {
		return fmt.Errorf("%w: fg, or kill -CONT %d, lets it run on", ErrStopped, pid)
	}
	return nil
}

// dispatch is the dispatcher of the connection.
func (c *Client) dispatch(method string, body json.RawMessage) (task, error) {
	if method != methodProgress {
		return nil, unknownMethod(method)
	}
	return request(body, func(_ context.Context, p Progress) (any, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.progress != nil {
			c.progress(p)
		}
		return nil, nil
	})
}

// Name returns the name of the computation.
func (c *Client) Name() string { return c.name }

// Checkpoint asks for a checkpoint and waits until the generation is
// committed, or given up: see Server.Checkpoint for the errors. progress,
// unless nil, is called up to ten times a second, and not after Checkpoint
// has returned; it must not call the Client. When ctx is done Checkpoint
// returns, but the checkpoint goes on.
func (c *Client) Checkpoint(ctx context.Context, req CheckpointRequest, progress func(Progress)) (CheckpointResult, error) {
	c.setProgress(progress)
	defer c.setProgress(nil)
	var result CheckpointResult
	err := c.call(ctx, methodCheckpoint, req, &result)
	return result, err
}

func (c *Client) setProgress(f func(Progress)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress = f
}

// Status returns the state of the computation.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, methodStatus, nothing{}, &st)
	return st, err
}

// Check returns what could not be checkpointed now.
func (c *Client) Check(ctx context.Context) ([]Refusal, error) {
	var refusals []Refusal
	err := c.call(ctx, methodCheck, nothing{}, &refusals)
	return refusals, err
}

// Kill sends sig to all processes of the computation.
func (c *Client) Kill(ctx context.Context, sig syscall.Signal) error {
	return c.call(ctx, methodKill, killBody{Signal: sig}, nil)
}

// SetInterval sets the time between periodic checkpoints; 0 means none.
func (c *Client) SetInterval(ctx context.Context, d time.Duration) error {
	return c.call(ctx, methodInterval, intervalBody{Interval: d}, nil)
}

// Ended waits until the computation has ended: its name is free then.
func (c *Client) Ended(ctx context.Context) error {
	ctx, cancel := c.attend(ctx)
	defer cancel()
	select {
	case <-c.conn.ctx.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close ends the connection.
func (c *Client) Close() error {
	c.conn.abort(errors.New("closed by this end"))
	return nil
}

// ListRunning asks every coordinator in the runtime directories for its status,
// all at once, by name. It waits until ctx is done, 7 s at most; one that has
// not answered is StateUnreachable. What dead coordinators have left behind is
// removed.
func ListRunning(ctx context.Context) ([]Status, error) {
	dirs, err := runtimeDirs()
	if err != nil {
		return nil, err
	}
	return listIn(ctx, dirs)
}

func listIn(ctx context.Context, dirs []string) ([]Status, error) {
	all, err := places(dirs)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list := make([]Status, len(all))
	var wg sync.WaitGroup
	for i, at := range all {
		wg.Go(func() { list[i] = ask(ctx, at.dir, at.name) })
	}
	wg.Wait()
	return slices.DeleteFunc(list, func(st Status) bool { return st.Name == "" }), nil
}

// ask returns the status of one computation, or why there is none. It is empty
// where the computation has ended meanwhile.
func ask(ctx context.Context, dir, name string) Status {
	c, err := connect(ctx, dir, name)
	if err == nil {
		defer c.Close()
		var st Status
		if st, err = c.Status(ctx); err == nil {
			return st
		}
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}
	}
	return Status{Name: name, Addr: unixScheme + socketPath(dir, name), State: StateUnreachable, LastError: err.Error()}
}
