package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// unixScheme begins the address of a coordinator on a UNIX socket.
const unixScheme = "unix:"

// Handler is the agent's side of the coordinator's orders. Checkpoint and
// Finish alternate; Status, Check and Kill may come at any time, also at
// once and during a checkpoint.
type Handler interface {
	// Checkpoint runs the whole local sequence up to "written", in which it
	// meets the others with Member.Barrier. With order.Kill the tree stays
	// frozen until Finish. When the checkpoint is given up ctx is done, with
	// a cause that matches ErrGivenUp and tells the reason.
	Checkpoint(ctx context.Context, order Order) (AgentResult, error)
	// Finish tells the outcome, once after every Checkpoint has returned. If
	// committed is false the checkpoint was given up, for the reason, and
	// all that is held for it must be released. A connection that is lost
	// before the outcome is known counts as given up. ctx has a deadline of
	// 1 min.
	Finish(ctx context.Context, order Order, committed bool, reason string) error
	// Status describes the agent and its processes.
	Status(ctx context.Context) (AgentStatus, error)
	// Check returns what could not be checkpointed now.
	Check(ctx context.Context) ([]Refusal, error)
	// Kill sends sig to all processes of the agent.
	Kill(ctx context.Context, sig syscall.Signal) error
}

// Member is an agent's membership in a computation. Its methods may be called
// from several goroutines.
type Member struct {
	conn     *conn
	handler  Handler
	log      zerolog.Logger
	progress *relay
	done     chan struct{} // closed when the connection and its tasks have ended

	mu      sync.Mutex
	welcome Welcome
	current *localRun // nil: no order
}

// localRun is an order from its receipt until Finish has returned.
type localRun struct {
	order    Order
	ctx      context.Context
	cancel   context.CancelCauseFunc
	returned chan struct{} // closed when Checkpoint has returned
	claimed  bool          // somebody calls Finish, or has
}

// Join connects to the coordinator at addr, a Server's Addr, and presents the
// agent. Orders may reach handler before Join returns.
func Join(ctx context.Context, addr string, h Hello, handler Handler, log zerolog.Logger) (*Member, error) {
	path, ok := strings.CutPrefix(addr, unixScheme)
	if !ok {
		return nil, fmt.Errorf("join: address %q: want %q and a path", addr, unixScheme)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	nc, _, err := dialSocket(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	m := &Member{handler: handler, log: log, done: make(chan struct{})}
	m.conn = newConn(nc, log, m.dispatch)
	m.progress = newRelay(relayEvery, func(p Progress) {
		if err := m.conn.notify(methodProgress, p); err != nil {
			log.Debug().Err(err).Msg("progress not sent")
		}
	})
	go m.run()
	in := helloBody{Protocol: protocolVersion, Role: roleAgent, Agent: &h}
	var out welcomeBody
	if err := m.conn.call(ctx, methodHello, in, &out); err != nil {
		m.Close()
		return nil, fmt.Errorf("join %s: %w", path, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.welcome = out.Welcome
	return m, nil
}

// Welcome tells of the computation; the interval is today's.
func (m *Member) Welcome() Welcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.welcome
}

// Fail gives the restart up for all agents, for the reason err. It is told
// before the agent leaves, so that the others do not only hear of that.
func (m *Member) Fail(ctx context.Context, err error) {
	if err := m.conn.call(ctx, methodFailed, failedBody{encodeError(err)}, nil); err != nil {
		m.log.Debug().Err(err).Msg("failure not told")
	}
}

// Restored tells that the tree of this agent runs. When those of all agents of
// a restart do, checkpoints may begin.
func (m *Member) Restored(ctx context.Context) error {
	return m.conn.call(ctx, methodRestored, nothing{}, nil)
}

// run serves the connection. An order whose outcome has not come when it is
// lost is finished here.
func (m *Member) run() {
	defer close(m.done)
	m.conn.logEnd(m.conn.run())
	if r := m.claim(0); r != nil {
		reason := context.Cause(m.conn.ctx).Error()
		if err := m.finish(r, false, reason); err != nil {
			m.log.Error().Err(err).Uint64("generation", r.order.Generation).Msg("checkpoint not undone")
		}
	}
	m.progress.stop()
}

// Done is closed when the connection to the coordinator has ended and Finish
// has returned for the last order.
func (m *Member) Done() <-chan struct{} { return m.done }

// Close leaves the computation. An order in progress is given up; it may be
// unfinished when Close returns, but not when Done is closed.
func (m *Member) Close() error {
	_ = m.conn.notify(methodEnded, nothing{}) // where nobody hears it, nobody is left who cares
	m.conn.abort(net.ErrClosed)
	return nil
}

// Barrier waits until every agent of the checkpoint, or of the restart, has
// come to name. The error matches ErrGivenUp and wraps the reason where the
// session was given up meanwhile, also by a lost connection; else it is ctx's
// cause. An agent waits at one barrier at a time.
func (m *Member) Barrier(ctx context.Context, generation uint64, name string) error {
	err := m.conn.call(ctx, methodBarrier, barrierBody{Generation: generation, Name: name}, nil)
	if err == nil {
		return nil
	}
	return fmt.Errorf("barrier %q: %w", name, lostMeansGivenUp(err))
}

// Publish makes val known to all agents under key, from the next release of a
// barrier on. Of several values the last counts. A value may have up to 12 MB.
func (m *Member) Publish(ctx context.Context, key string, val []byte) error {
	in := entryBody{Generation: m.generation(), Key: key, Value: val}
	if err := m.conn.call(ctx, methodPublish, in, nil); err != nil {
		return fmt.Errorf("publish %q: %w", key, lostMeansGivenUp(err))
	}
	return nil
}

// Lookup returns what was published under key before the last barrier, or an
// error that matches ErrNotFound.
func (m *Member) Lookup(ctx context.Context, key string) ([]byte, error) {
	var out entryBody
	in := entryBody{Generation: m.generation(), Key: key}
	if err := m.conn.call(ctx, methodLookup, in, &out); err != nil {
		return nil, fmt.Errorf("lookup: %w", lostMeansGivenUp(err))
	}
	return out.Value, nil
}

// Progress tells whoever waits for the checkpoint how many bytes are written.
// It never blocks; what comes faster than ten a second is passed over.
func (m *Member) Progress(done, total int64) {
	m.progress.put(Progress{Done: done, Total: total})
}

// lostMeansGivenUp: without a coordinator nothing can be committed.
func lostMeansGivenUp(err error) error {
	if errors.Is(err, ErrConnectionLost) {
		return givenUp(err)
	}
	return err
}

// generation returns that of the order in progress, 0 without one.
func (m *Member) generation() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		return 0
	}
	return m.current.order.Generation
}

// dispatch is the dispatcher of the connection.
func (m *Member) dispatch(method string, body json.RawMessage) (task, error) {
	switch method {
	case methodCheckpoint:
		return m.accept(body)
	case methodFinish:
		return m.acceptOutcome(body)
	case methodInterval:
		return request(body, func(_ context.Context, in intervalBody) (any, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.welcome.Interval = in.Interval
			return nil, nil
		})
	case methodStatus:
		return request(body, func(ctx context.Context, _ nothing) (any, error) { return m.handler.Status(ctx) })
	case methodCheck:
		return request(body, func(ctx context.Context, _ nothing) (any, error) { return m.handler.Check(ctx) })
	case methodKill:
		return request(body, func(ctx context.Context, in killBody) (any, error) {
			return nil, m.handler.Kill(ctx, in.Signal)
		})
	}
	return nil, unknownMethod(method)
}

// accept notes an order at once, so that its outcome, which may be the next
// message, finds it; the handler runs in the task.
func (m *Member) accept(body json.RawMessage) (task, error) {
	var in orderBody
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: order: %w", errProtocol, err)
	}
	r := &localRun{
		order: Order{Generation: in.Generation, Dir: in.Dir, Kill: in.Kill, OpenFiles: in.OpenFiles,
			NoSnapshot: in.NoSnapshot, SelfContained: in.SelfContained, Agents: in.Agents, Deadline: time.Now().Add(in.Left)},
		returned: make(chan struct{}),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil {
		return nil, fmt.Errorf("generation %d is not finished: %w", m.current.order.Generation, ErrBusy)
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	m.current = r
	return func(ctx context.Context) (any, error) { return m.checkpoint(ctx, r) }, nil
}

// checkpoint runs the handler. What cancels the request gives the run up.
func (m *Member) checkpoint(ctx context.Context, r *localRun) (any, error) {
	defer close(r.returned)
	stop := context.AfterFunc(ctx, func() { r.cancel(givenUp(context.Cause(ctx))) })
	defer stop()
	runCtx, cancel := context.WithDeadlineCause(r.ctx, r.order.Deadline,
		givenUp(fmt.Errorf("deadline of generation %d: %w", r.order.Generation, context.DeadlineExceeded)))
	defer cancel()
	return m.handler.Checkpoint(runCtx, r.order)
}

// acceptOutcome claims the order at once, before the connection can be lost.
func (m *Member) acceptOutcome(body json.RawMessage) (task, error) {
	var in finishBody
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: outcome: %w", errProtocol, err)
	}
	r := m.claim(in.Generation)
	if r == nil {
		// The order never came to be: it was refused, or could not be sent.
		return func(context.Context) (any, error) { return nil, nil }, nil
	}
	return func(context.Context) (any, error) { return nil, m.finish(r, in.Committed, in.Reason) }, nil
}

// claim returns the order in progress to the one who is to finish it, nil to
// everybody else. Generation 0 stands for any.
func (m *Member) claim(generation uint64) *localRun {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.current
	if r == nil || r.claimed || generation != 0 && generation != r.order.Generation {
		return nil
	}
	r.claimed = true
	return r
}

// finish waits for the handler's Checkpoint and calls its Finish. It does not
// depend on the connection, which may be lost.
func (m *Member) finish(r *localRun, committed bool, reason string) error {
	if !committed {
		r.cancel(givenUp(errors.New(reason)))
	}
	<-r.returned
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	err := m.handler.Finish(ctx, r.order, committed, reason)
	r.cancel(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = nil
	return err
}
