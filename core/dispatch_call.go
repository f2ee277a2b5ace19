package core

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/plugin"
)

// Phases of a plugin's life that are no event; the others have the name of
// their kind.
const (
	phaseNew     = "new"
	phaseSave    = "save"
	phaseContent = "content"
	phaseLoad    = "load"
	phaseClaim   = "claim-file"
	phaseReopen  = "reopen-file"
	phaseFill    = "fill-files"
	phaseMap     = "claim-map"
	phaseMapAt   = "reopen-map"
	phaseAttach  = "attach-map"
	phasePlace   = "free-here"
	phaseProcess = "save-process"
	phaseRestore = "restore-process"
	phaseTake    = "take-file"
	phaseHold    = "hold"
	phasePublish = "publish"
)

// subject is what a call is about, for the log; its zero value is nothing in
// particular.
type subject struct {
	pid    int
	fd     int
	object string
}

// timing is the time that a plugin took in a phase of the last checkpoint or
// restart, all calls together.
type timing struct {
	Plugin string        `json:"plugin"`
	Phase  string        `json:"phase"`
	Calls  int           `json:"calls"`
	Took   time.Duration `json:"took_ns"`
}

var errGoexit = errors.New("ended its goroutine")

// call is the one way into a plugin. It sets the deadline, turns a panic into
// an error, names the plugin and the phase in every error but a claimer's
// ErrNotMine, measures and logs.
//
// fn runs in a goroutine of its own, always: without one nothing could end a
// plugin that ignores its context, and the program would stay stopped. That
// costs about two microseconds a call, which a claim's own readlink and fstat
// outweigh. What a plugin does in a claim may block as well (an open of a file
// on a dead NFS server), so claims are no exception.
//
// A plugin that has not returned when a tenth of its time has passed after
// the end of ctx is broken: its goroutine cannot be ended, and may use the
// plugin's state at any moment. So it is never called again, not even for its
// Resume, each call being an error, and the processes that it was given refuse
// to work for it (see lease). Results that fn stores must be looked at only
// when call returns nil.
func (s *pluginSet) call(ctx context.Context, m *member, phase string, about subject, fn func(context.Context) error) error {
	return s.callWithin(ctx, s.timeout, m, phase, about, fn)
}

// maxHold bounds a hold, whose plugin has a limit of its own.
const maxHold = 24 * time.Hour

// callWithin is call with a deadline of its own.
func (s *pluginSet) callWithin(ctx context.Context, timeout time.Duration, m *member, phase string, about subject, fn func(context.Context) error) error {
	if broken := m.brokenIn(); broken != "" {
		return fmt.Errorf("plugin %s: %s: not called, since it has not come back from %s", m.def.Name, phase, broken)
	}
	if faultpoint.Enabled {
		if err := faultpoint.At(faultpoint.Plugin(m.def.Name, phase)); err != nil {
			return fmt.Errorf("plugin %s: %s: %w", m.def.Name, phase, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begin := time.Now()
	done := make(chan error, 1)
	go contain(ctx, m, phase, fn, done)

	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = s.overdue(ctx, m, phase, done)
	}
	took := time.Since(begin)
	s.record(m, phase, took)
	m.logCall(phase, about, took, err)
	if err == nil || notMine(phase, err) {
		return err
	}
	return fmt.Errorf("plugin %s: %s: %w", m.def.Name, phase, err)
}

// contain runs fn and sends what it returns, or how else it ended.
func contain(ctx context.Context, m *member, phase string, fn func(context.Context) error, done chan<- error) {
	err := errGoexit
	defer func() {
		if v := recover(); v != nil {
			m.log.Debug().Str("phase", phase).Bytes("stack", debug.Stack()).Msg("panic")
			err = fmt.Errorf("panic: %v", v)
		}
		done <- err
	}()
	err = fn(ctx)
}

// overdue waits a little longer for a plugin whose time is over, for a plugin
// that heeds its context returns a moment after the deadline.
func (s *pluginSet) overdue(ctx context.Context, m *member, phase string, done <-chan error) error {
	grace := time.NewTimer(s.timeout / 10)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
	}
	m.mu.Lock()
	m.broken = phase
	m.mu.Unlock()
	return fmt.Errorf("did not return in time (limit %v): %w", s.timeout, ctx.Err())
}

// notMine says whether err is a claimer's answer, which is no failure. In any
// other phase ErrNotMine is an error like others.
func notMine(phase string, err error) bool {
	return (phase == phaseClaim || phase == phaseMap || phase == phaseTake) && errors.Is(err, plugin.ErrNotMine)
}

// brokenIn returns the phase from which the plugin has not come back, or "".
func (m *member) brokenIn() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// logCall writes one line a call: at debug for a phase, at trace for one
// object of it. The error is the caller's to show.
func (m *member) logCall(phase string, about subject, took time.Duration, err error) {
	level := zerolog.DebugLevel
	if about != (subject{}) {
		level = zerolog.TraceLevel
	}
	line := m.log.WithLevel(level)
	if !line.Enabled() {
		return
	}
	decision := "done"
	switch {
	case notMine(phase, err):
		decision = "not mine"
	case errors.Is(err, plugin.ErrSkip):
		decision = "skipped"
	case err != nil:
		decision = "failed"
	}
	line = line.Str("phase", phase).Dur("took", took).Str("decision", decision)
	if about != (subject{}) {
		line = line.Int("pid", about.pid).Int("fd", about.fd).Str("object", about.object)
	}
	line.Msg("call")
}

// record adds to the timings.
func (s *pluginSet) record(m *member, phase string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.timings {
		if t := &s.timings[i]; t.Plugin == m.def.Name && t.Phase == phase {
			t.Calls++
			t.Took += took
			return
		}
	}
	s.timings = append(s.timings, timing{m.def.Name, phase, 1, took})
}

func (s *pluginSet) resetTimings() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timings = nil
}

// Timings returns the times of the last checkpoint, or of the restart or
// launch before the first, in the order in which plugins were first called.
func (s *pluginSet) Timings() []timing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]timing(nil), s.timings...)
}

// lease is a process lent to a plugin for one call. When the call is over,
// its system calls and accesses to memory fail: the process may run again, or
// be in the hands of another plugin.
type lease struct {
	plugin.Process
	ctx context.Context // of the call
}

func leaseOf(ctx context.Context, p plugin.Process) plugin.Process { return lease{p, ctx} }

func leaseAll(ctx context.Context, procs []plugin.Process) []plugin.Process {
	lent := make([]plugin.Process, len(procs))
	for i, p := range procs {
		lent[i] = leaseOf(ctx, p)
	}
	return lent
}

func (l lease) over() error {
	if err := l.ctx.Err(); err != nil {
		return fmt.Errorf("pid %d: the call that received the process is over: %w", l.PID(), err)
	}
	return nil
}

func (l lease) ReadAt(b []byte, off int64) (int, error) {
	if err := l.over(); err != nil {
		return 0, err
	}
	return l.Process.ReadAt(b, off)
}

func (l lease) WriteAt(b []byte, off int64) (int, error) {
	if err := l.over(); err != nil {
		return 0, err
	}
	return l.Process.WriteAt(b, off)
}

func (l lease) PendingSignals() ([][]byte, error) {
	if err := l.over(); err != nil {
		return nil, err
	}
	return l.Process.PendingSignals()
}

func (l lease) Syscall(ctx context.Context, nr uintptr, args ...uintptr) (uintptr, error) {
	if err := l.over(); err != nil {
		return 0, err
	}
	return l.Process.Syscall(ctx, nr, args...)
}

func (l lease) Batch(ctx context.Context, calls []plugin.Call) error {
	if err := l.over(); err != nil {
		return err
	}
	return l.Process.Batch(ctx, calls)
}

var _ plugin.Process = lease{}
