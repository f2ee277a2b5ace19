package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// instance is one life of a guest.
type instance struct {
	ext *extension
	mod api.Module

	// What its init said.
	kinds    []plugin.Kind
	barriers []string
	summary  string

	state   []byte // written by this instance
	written bool
	answer  []byte // of the last command or request, until it is fetched
	cur     *call  // the one in progress
	stderr  tail
}

// call is one call into a guest.
type call struct {
	in    *instance
	ctx   context.Context
	clock *clock
	kind  plugin.Kind // 0 in init
	event plugin.Event

	json    []byte // of the event, once it was asked for
	reason  string // given to fail
	last    string // of the last host function that failed
	logged  int
	dropped bool
	keep    time.Duration // that hold.keep asked for
}

type instanceKey struct{}

// clock ends a call when its time is over. Time in which the guest waits for
// others is not its own.
type clock struct {
	limit  time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	begun time.Time
	left  time.Duration
}

var errDeadline = errors.New("time is over")

func startClock(ctx context.Context, limit time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{limit: limit, cancel: cancel, begun: time.Now(), left: limit}
	c.timer = time.AfterFunc(limit, func() { cancel(errDeadline) })
	return ctx, c
}

// wait runs fn with the clock stopped.
func (c *clock) wait(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.timer.Stop() { // it is over: fn's own context says so
		fn()
		return
	}
	c.left = max(c.left-time.Since(c.begun), time.Millisecond)
	defer func() {
		c.begun = time.Now()
		c.timer.Reset(c.left)
	}()
	fn()
}

func (c *clock) stop() {
	c.timer.Stop()
	c.cancel(nil)
}

// instantiate makes a fresh instance and runs its init. skip says that the
// guest has nothing to do here; the instance is closed then.
func (m *Module) instantiate(ctx context.Context, ext *extension) (in *instance, skip bool, err error) {
	in = &instance{ext: ext}
	in.stderr.limit = 2048
	code := int32(abi.OK)
	err = in.run(ctx, 0, plugin.Event{}, func(ctx context.Context) error {
		config := wazero.NewModuleConfig().
			WithName(""). // any number of instances may be there
			WithStartFunctions().
			WithStdout(logWriter{in, abi.LevelInfo}).
			WithStderr(logWriter{in, abi.LevelWarn}).
			WithRandSource(rand.Reader).
			WithSysWalltime().
			WithSysNanotime().
			WithNanosleep(in.sleep)
		if err := in.make(ctx, config); err != nil {
			return err
		}
		if start := in.mod.ExportedFunction(abi.ExportStart); start != nil {
			if _, err := start.Call(ctx); err != nil {
				return err
			}
		}
		results, err := in.mod.ExportedFunction(abi.ExportInit).Call(ctx)
		if err != nil {
			return err
		}
		code = api.DecodeI32(results[0])
		return in.cur.returned(code)
	})
	if err != nil {
		in.close()
		return nil, false, fmt.Errorf("init: %w", err)
	}
	if code == abi.Skip {
		in.close()
	}
	return in, code == abi.Skip, nil
}

func (in *instance) make(ctx context.Context, config wazero.ModuleConfig) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	m := in.ext.mod
	in.mod, err = m.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, &m.memory), m.compiled, config)
	return err
}

// handle has the guest handle one event. keep is how long it wants the
// program to stay stopped. After an error the instance must be closed.
func (in *instance) handle(ctx context.Context, ev plugin.Event) (keep time.Duration, err error) {
	err = in.run(ctx, ev.Kind, ev, func(ctx context.Context) error {
		results, err := in.mod.ExportedFunction(abi.ExportEvent).Call(ctx, uint64(ev.Kind))
		if err != nil {
			return err
		}
		keep = in.cur.keep
		return in.cur.returned(api.DecodeI32(results[0]))
	})
	return keep, err
}

// run sets the frame of one call, and makes one error of whatever ends it.
func (in *instance) run(ctx context.Context, kind plugin.Kind, ev plugin.Event, fn func(context.Context) error) error {
	limit := in.ext.mod.limits.Deadline
	ctx, clock := startClock(context.WithValue(ctx, instanceKey{}, in), limit)
	defer clock.stop()
	in.cur = &call{in: in, ctx: ctx, clock: clock, kind: kind, event: ev}
	defer func() { in.cur = nil }()
	err := fn(ctx)
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) == errDeadline:
		return fmt.Errorf("has not returned within %v, and was ended", limit)
	case ctx.Err() != nil:
		return fmt.Errorf("was ended: %w", context.Cause(ctx))
	}
	return in.explain(err)
}

// explain makes one line of an error of the engine's.
func (in *instance) explain(err error) error {
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		err = fmt.Errorf("exited with code %d", exit.ExitCode())
	} else if failure, ok := errors.AsType[*guestFailure](err); ok {
		return failure
	} else if text, trace, traced := strings.Cut(err.Error(), "\nwasm stack trace:"); traced {
		in.ext.log.Debug().Str("trace", trace).Msg("stack of the guest")
		text = strings.TrimPrefix(strings.TrimSuffix(text, " (recovered by wazero)"), "wasm error: ")
		err = fmt.Errorf("trapped: %s", text)
	}
	if err.Error() == "stack overflow" { // the engine's, without a trace
		err = errors.New("trapped: stack overflow")
	}
	if said := in.stderr.firstLine(); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// guestFailure is what the guest itself says of its failure.
type guestFailure struct{ reason string }

func (e *guestFailure) Error() string { return e.reason }

// returned judges what a guest's function returned.
func (c *call) returned(code int32) error {
	switch code {
	case abi.OK, abi.Skip:
		return nil
	case abi.Failed:
		if c.reason == "" {
			return &guestFailure{"failed, without a reason"}
		}
		return &guestFailure{c.reason}
	}
	return &guestFailure{fmt.Sprintf("returned %d, which means nothing", code)}
}

// sleep is the guest's poll_oneoff: it ends with the call.
func (in *instance) sleep(ns int64) {
	if in.cur == nil || ns <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-in.cur.ctx.Done():
	}
}

// currentState is what the guest reads back: what it wrote, else what was
// committed.
func (in *instance) currentState() []byte {
	if in.written {
		return in.state
	}
	return in.ext.committed
}

func (in *instance) close() {
	if in != nil && in.mod != nil {
		_ = in.mod.Close(context.Background()) // closes WASI's descriptors, of which there are none
		in.mod = nil
	}
}

// subscribed says whether the guest wants to hear of kind.
func (m *Module) subscribed(kind plugin.Kind) bool { return slices.Contains(m.Kinds, kind) }

// logWriter logs what a guest writes to its standard output or error.
type logWriter struct {
	in    *instance
	level int
}

func (w logWriter) Write(p []byte) (int, error) {
	if w.level >= abi.LevelWarn {
		w.in.stderr.write(p)
	}
	for line := range bytes.Lines(p) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 && w.in.cur != nil {
			w.in.cur.log(int32(w.level), line)
		}
	}
	return len(p), nil
}

// tail keeps the first bytes of what was written: of a panic, its reason.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) write(p []byte) {
	t.buf = append(t.buf, p[:min(len(p), t.limit-len(t.buf))]...)
}

func (t *tail) firstLine() string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(t.buf)), "\n")
	return clean(line)
}

// clean makes text of a guest safe for a terminal, and valid UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
