package coord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// statusTimeout is for an agent to describe itself.
const statusTimeout = 5 * time.Second

// Status describes the computation. An agent that does not answer within 5 s
// is described by its hello, with an Error; that is no error of Status.
func (s *Server) Status(ctx context.Context) (Status, error) {
	generations, err := s.cfg.Store.Generations()
	if err != nil {
		return Status{}, fmt.Errorf("status: %w", err)
	}
	addr := s.Addr()
	s.mu.Lock()
	st := Status{
		Name: s.name, Computation: s.cfg.Computation, Addr: addr, Dir: s.cfg.Store.Path(),
		Generations: generations, State: StateRunning, Interval: s.interval,
		LastPause: s.last.pause, LastTotal: s.last.total, LastBytes: s.last.bytes, LastTimings: s.last.timings,
		LastError: s.last.err, LastTime: s.last.at, Started: s.started,
	}
	switch {
	case s.restarting:
		st.State = StateRestarting
	case s.session != nil && s.session.generation > 0:
		st.State = StateCheckpointing
	}
	s.mu.Unlock()
	if len(generations) > 0 {
		st.Generation = slices.Max(generations)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	agents := s.list()
	st.Agents = make([]AgentStatus, len(agents))
	var wg sync.WaitGroup
	for i, m := range agents {
		wg.Go(func() { st.Agents[i] = m.status(ctx) })
	}
	wg.Wait()
	return st, nil
}

// status asks the agent; what it says of itself must be its hello's.
func (m *member) status(ctx context.Context) AgentStatus {
	var st AgentStatus
	if err := m.conn.call(ctx, methodStatus, nothing{}, &st); err != nil {
		st = AgentStatus{Error: err.Error()}
		for _, p := range m.hello.Plugins {
			st.Plugins = append(st.Plugins, p.Name)
		}
	}
	st.ID, st.Host, st.PID = m.hello.ID, m.hello.Host, m.hello.PID
	return st
}

// Check returns what could not be checkpointed now, over all agents, which meet
// at the barriers of their plugins as in a checkpoint. It changes nothing.
func (s *Server) Check(ctx context.Context) (refusals []Refusal, err error) {
	free, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	s.awaitRestored(ctx)
	lasts := func(r Refusal) bool { return !r.Passing }
	for again := s.patience(ctx); ; {
		refusals, err = s.check(ctx)
		if err != nil || len(refusals) == 0 || slices.ContainsFunc(refusals, lasts) || !again() {
			return refusals, err
		}
	}
}

// check is Check once.
func (s *Server) check(ctx context.Context) ([]Refusal, error) {
	x, _, err := s.begin(ctx, 0, nil)
	if err != nil {
		return nil, err
	}
	defer s.end(x)
	var mu sync.Mutex
	refusals := []Refusal{}
	_ = s.each(x.ctx, func(ctx context.Context, m *member) error {
		var more []Refusal
		if err := m.conn.call(ctx, methodCheck, nothing{}, &more); err != nil {
			x.giveUp(fmt.Errorf("agent %s: %w", m.hello.ID, err)) // the first counts
			return nil
		}
		mu.Lock()
		refusals = append(refusals, more...)
		mu.Unlock()
		x.finish(m)
		return nil
	})
	err = context.Cause(x.ctx)
	if len(refusals) > 0 && errors.Is(err, errApart) {
		err = nil // whoever refuses does not come to the barriers behind
	}
	return refusals, err
}

// Kill sends sig to all processes of the computation.
func (s *Server) Kill(ctx context.Context, sig syscall.Signal) error {
	if err := validSignal(sig); err != nil {
		return err
	}
	return s.each(ctx, func(ctx context.Context, m *member) error {
		return m.conn.call(ctx, methodKill, killBody{Signal: sig}, nil)
	})
}

// each calls do for every agent at once and joins the errors.
func (s *Server) each(ctx context.Context, do func(context.Context, *member) error) error {
	agents := s.list()
	if len(agents) == 0 {
		return ErrNoAgent
	}
	errs := make([]error, len(agents))
	var wg sync.WaitGroup
	for i, m := range agents {
		wg.Go(func() {
			if err := do(ctx, m); err != nil {
				errs[i] = fmt.Errorf("agent %s: %w", m.hello.ID, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
