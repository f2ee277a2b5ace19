package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// ErrExercise says that a step of Exercise failed.
var ErrExercise = errors.New("the extension failed")

// Step is one event of Exercise.
type Step struct {
	Sequence string
	Event    string
	Wanted   bool // the guest has subscribed to it
	Took     time.Duration
	Log      []byte // what the guest logged
	Err      error
}

// Exercise takes an extension through every event of a made-up computation.
// No process is touched. It goes on behind an error, and returns ErrExercise
// then.
func Exercise(ctx context.Context, m *Module) ([]Step, error) {
	x := &exercise{ctx: ctx, m: m}
	x.host.log = zerolog.New(&x.logged).Level(zerolog.InfoLevel)
	p, err := x.plugin()
	if errors.Is(err, plugin.ErrSkip) {
		return []Step{{Sequence: "init", Event: "init", Wanted: true}}, nil
	}
	if err != nil {
		return nil, err
	}
	x.run(p, "launch", plugin.Launch)
	x.checkpoint(p, "checkpoint", true)
	x.checkpoint(p, "given up", false)
	x.run(p, "check", plugin.PreCheckpoint, plugin.Resume)
	// The state of a third checkpoint goes into the restart.
	x.checkpoint(p, "checkpoint", true)
	again, err := x.plugin()
	if err != nil {
		return x.steps, err
	}
	if len(x.image) > 0 {
		x.step("restart", "load", true, func() error { return again.Load(ctx, stateFormat, bytes.NewReader(x.image)) })
	}
	x.run(again, "restart", plugin.Restart, plugin.Running)
	x.checkpoint(again, "checkpoint", true)
	x.run(again, "exit", plugin.Exit)
	if slices.ContainsFunc(x.steps, func(s Step) bool { return s.Err != nil }) {
		return x.steps, ErrExercise
	}
	return x.steps, nil
}

type exercise struct {
	ctx    context.Context
	m      *Module
	host   madeUpHost
	logged bytes.Buffer
	steps  []Step
	image  []byte
}

func (x *exercise) plugin() (*extension, error) {
	p, err := x.m.Definition().New(&x.host)
	if err != nil {
		return nil, err
	}
	return p.(*extension), nil
}

func (x *exercise) checkpoint(p *extension, name string, committed bool) {
	x.run(p, name, plugin.PreSuspend, plugin.PreCheckpoint)
	x.step(name, "save", true, func() error {
		var image bytes.Buffer
		err := p.Save(x.ctx, &image)
		if committed {
			x.image = image.Bytes()
		}
		return err
	})
	x.run(p, name, plugin.Resume)
	x.event(p, name, plugin.Event{Kind: plugin.Outcome, Generation: 1, Outcome: &plugin.Figures{Committed: committed, Reason: "an exercise",
		Dir: "/nowhere/00001", Bytes: 4096, RawBytes: 8192, Pause: time.Millisecond, Total: time.Second, Processes: 2, Threads: 3}})
}

func (x *exercise) run(p *extension, name string, kinds ...plugin.Kind) {
	for _, kind := range kinds {
		ev := plugin.Event{Kind: kind, Generation: 1}
		if kind != plugin.Launch && kind != plugin.PreSuspend && kind != plugin.Exit {
			ev.Procs = []plugin.Process{&madeUp{pid: 2, threads: 1}, &madeUp{pid: 3, threads: 2}}
		}
		x.event(p, name, ev)
	}
}

func (x *exercise) event(p *extension, name string, ev plugin.Event) {
	x.step(name, ev.Kind.String(), x.m.subscribed(ev.Kind), func() error { return p.Handle(x.ctx, ev) })
}

func (x *exercise) step(sequence, event string, wanted bool, fn func() error) {
	x.logged.Reset()
	begun := time.Now()
	err := fn()
	x.steps = append(x.steps, Step{sequence, event, wanted, time.Since(begun), bytes.Clone(x.logged.Bytes()), err})
}

// madeUp is a process that nobody runs: a page of memory at 64 KiB.
type madeUp struct {
	pid, threads int
	page         [4096]byte
}

const madeUpAddr = 64 << 10

func (p *madeUp) PID() int     { return p.pid }
func (p *madeUp) HostPID() int { return os.Getpid() } // /proc must have something to show

func (p *madeUp) Threads() []plugin.Thread { return make([]plugin.Thread, p.threads) }

func (p *madeUp) PendingSignals() ([][]byte, error) { return nil, nil }

func (p *madeUp) maps() []abi.Mapping {
	return []abi.Mapping{{Start: madeUpAddr, End: madeUpAddr + uint64(len(p.page)), Perms: "rw-p"}}
}

func (p *madeUp) at(b []byte, off int64) ([]byte, error) {
	if off < madeUpAddr || off-madeUpAddr > int64(len(p.page)-len(b)) {
		return nil, fmt.Errorf("pid %d: no memory at %#x", p.pid, off)
	}
	return p.page[off-madeUpAddr:][:len(b)], nil
}

func (p *madeUp) ReadAt(b []byte, off int64) (int, error) {
	m, err := p.at(b, off)
	return copy(b, m), err
}

func (p *madeUp) WriteAt(b []byte, off int64) (int, error) {
	m, err := p.at(b, off)
	return copy(m, b), err
}

var errMadeUp = errors.New("the process is made up")

func (p *madeUp) Scratch() (uint64, int) { return madeUpAddr, len(p.page) }

func (p *madeUp) Syscall(context.Context, uintptr, ...uintptr) (uintptr, error) { return 0, errMadeUp }

func (p *madeUp) Batch(context.Context, []plugin.Call) error { return errMadeUp }

// madeUpHost is alone in its computation.
type madeUpHost struct {
	plugin.Host // nil: what no extension asks for

	log       zerolog.Logger
	published map[string][]byte
}

func (h *madeUpHost) Log() *zerolog.Logger                  { return &h.log }
func (h *madeUpHost) Config(any) error                      { return nil }
func (h *madeUpHost) Root() string                          { return "" }
func (h *madeUpHost) MapPath(path string) string            { return path }
func (h *madeUpHost) Terminal() (int, bool)                 { return -1, false }
func (h *madeUpHost) Stdio(n int) int                       { return n }
func (h *madeUpHost) Barrier(context.Context, string) error { return nil }

func (h *madeUpHost) Publish(_ context.Context, key string, val []byte) error {
	if h.published == nil {
		h.published = map[string][]byte{}
	}
	h.published[key] = val
	return nil
}

func (h *madeUpHost) Lookup(_ context.Context, key string) ([]byte, error) {
	if val, ok := h.published[key]; ok {
		return val, nil
	}
	return nil, errors.New("nothing was published")
}

var (
	_ plugin.Process = (*madeUp)(nil)
	_ plugin.Host    = (*madeUpHost)(nil)
)
