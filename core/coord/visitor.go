package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// member is an agent as the coordinator sees it.
type member struct {
	hello    Hello
	conn     *conn
	pid      int  // of the connection's other end, as it is known here; 0: it is not
	restored bool // its tree runs, after a restart; under Server.mu
}

// visitor is the coordinator's side of one connection. Its role is set by
// hello, on the reader's goroutine, where dispatch runs too.
type visitor struct {
	server *Server
	conn   *conn
	pid    int // of the peer
	role   string
	member atomic.Pointer[member] // of role agent
}

// dispatch is the dispatcher of the connection.
func (v *visitor) dispatch(method string, body json.RawMessage) (task, error) {
	switch v.role {
	case roleAgent:
		return v.dispatchAgent(method, body)
	case roleCommand:
		return v.dispatchCommand(method, body)
	}
	if method != methodHello {
		return nil, fmt.Errorf("%w: %q before hello", errProtocol, method)
	}
	return v.hello(body)
}

// hello admits the peer; a refused one may read why, and has no role.
func (v *visitor) hello(body json.RawMessage) (task, error) {
	var in helloBody
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: hello: %w", errProtocol, err)
	}
	switch {
	case in.Protocol != protocolVersion:
		return nil, fmt.Errorf("the coordinator speaks protocol %d, the peer %d: use one version of hiatus for both", protocolVersion, in.Protocol)
	case in.Role == roleAgent && in.Agent != nil:
		m := &member{hello: *in.Agent, conn: v.conn, pid: v.pid}
		if err := v.server.join(m); err != nil {
			return nil, err
		}
		v.member.Store(m)
	case in.Role != roleCommand:
		return nil, fmt.Errorf("%w: hello as %q", errProtocol, in.Role)
	}
	v.role = in.Role
	v.conn.setIdle(0)
	return func(context.Context) (any, error) {
		return welcomeBody{protocolVersion, v.server.welcome(v.member.Load())}, nil
	}, nil
}

func (v *visitor) dispatchAgent(method string, body json.RawMessage) (task, error) {
	s, m := v.server, v.member.Load()
	switch method {
	case methodBarrier:
		return request(body, func(ctx context.Context, in barrierBody) (any, error) {
			x, err := s.sessionFor(m, in.Generation)
			if err != nil {
				return nil, err
			}
			return nil, x.wait(ctx, m, in.Name)
		})
	case methodPublish:
		return request(body, func(_ context.Context, in entryBody) (any, error) {
			x, err := s.sessionFor(m, in.Generation)
			if err != nil {
				return nil, err
			}
			x.publish(in.Key, in.Value)
			return nil, nil
		})
	case methodLookup:
		return request(body, func(_ context.Context, in entryBody) (any, error) {
			x, err := s.sessionFor(m, in.Generation)
			if err != nil {
				return nil, err
			}
			in.Value, err = x.lookup(in.Key)
			return in, err
		})
	case methodProgress:
		return request(body, func(_ context.Context, in Progress) (any, error) {
			s.progress(m, in)
			return nil, nil
		})
	case methodFailed:
		return request(body, func(_ context.Context, in failedBody) (any, error) {
			if in.Error == nil {
				return nil, fmt.Errorf("%w: failed without an error", errProtocol)
			}
			x, err := s.sessionFor(m, 0)
			if err == nil && !x.checkpoint {
				x.giveUp(fmt.Errorf("agent %s: %w", m.hello.ID, in.Error.decode()))
			}
			return nil, nil
		})
	case methodEnded:
		s.treeEnded(m) // before the connection's end is met
		return request(body, func(context.Context, nothing) (any, error) { return nil, nil })
	case methodRestored:
		return request(body, func(_ context.Context, _ nothing) (any, error) {
			s.agentRestored(m)
			return nil, nil
		})
	}
	return nil, unknownMethod(method)
}

func (v *visitor) dispatchCommand(method string, body json.RawMessage) (task, error) {
	s := v.server
	switch method {
	case methodCheckpoint:
		return request(body, v.checkpoint)
	case methodStatus:
		return request(body, func(ctx context.Context, _ nothing) (any, error) { return s.Status(ctx) })
	case methodCheck:
		return request(body, func(ctx context.Context, _ nothing) (any, error) {
			if err := v.refuseOwn(); err != nil {
				return nil, err
			}
			return s.Check(ctx)
		})
	case methodKill:
		return request(body, func(ctx context.Context, in killBody) (any, error) { return nil, s.Kill(ctx, in.Signal) })
	case methodInterval:
		return request(body, func(_ context.Context, in intervalBody) (any, error) {
			s.SetInterval(in.Interval)
			return nil, nil
		})
	}
	return nil, unknownMethod(method)
}

// checkpoint runs on the server's context, not the request's: the checkpoint
// goes on when the command that asked for it goes away, once it has begun.
func (v *visitor) checkpoint(ctx context.Context, in CheckpointRequest) (any, error) {
	if err := v.refuseOwn(); err != nil {
		return nil, err
	}
	progress := newRelay(relayEvery, func(p Progress) { v.conn.notify(methodProgress, p) })
	defer progress.stop()
	return v.server.checkpointFor(v.server.ctx, ctx, in, progress.put)
}

// refuseOwn refuses a command that is a process of the computation: it would stand still with it, and
// no restart could bring back what it waits for.
func (v *visitor) refuseOwn() error {
	s := v.server
	agents := map[int]bool{}
	s.mu.Lock()
	for _, m := range s.members {
		agents[m.pid] = true
	}
	s.mu.Unlock()
	for pid := v.pid; pid > 1; {
		st, err := procfs.ReadStat(pid)
		if err != nil {
			return nil // of another host, or gone
		}
		if pid = st.PPID; pid > 0 && agents[pid] {
			return fmt.Errorf("process %d, which asks for it, is of the computation itself: ask from outside, or have --interval ask", v.pid)
		}
	}
	return nil
}

// validSignal accepts what kill(2) sends, signal(7).
func validSignal(sig syscall.Signal) error {
	const last = 64 // SIGRTMAX
	if sig < 1 || sig > last {
		return fmt.Errorf("signal %d: want 1 to %d", int(sig), last)
	}
	return nil
}
