package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

var allKinds = []plugin.Kind{
	plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Launch, plugin.Exit, plugin.Outcome,
}

// tape is what the plugins of a test were asked, as "name:phase".
type tape struct {
	mu   sync.Mutex
	said []string
}

func (r *tape) add(name, phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, name+":"+phase)
}

func (r *tape) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	return said
}

// actor is a plugin that does in each phase what its script says, and
// nothing where it says nothing.
type actor struct {
	name   string
	tape   *tape
	script map[string]func(context.Context) error
	policy plugin.MapPolicy
	state  string
	lent   []plugin.Process
}

func (a *actor) act(ctx context.Context, phase string) error {
	a.tape.add(a.name, phase)
	if do := a.script[phase]; do != nil {
		return do(ctx)
	}
	return nil
}

func (a *actor) Handle(ctx context.Context, ev plugin.Event) error {
	a.lent = ev.Procs
	return a.act(ctx, ev.Kind.String())
}

func (a *actor) ClaimFile(ctx context.Context, _ plugin.OpenFile) error {
	return a.act(ctx, "claim-file")
}

func (a *actor) ReopenFile(ctx context.Context, f plugin.OpenFile) (int, error) {
	return 100 + f.ID, a.act(ctx, "reopen-file")
}

func (a *actor) ClaimMap(ctx context.Context, _ plugin.Process, _ plugin.Mapping) (plugin.MapPolicy, error) {
	return a.policy, a.act(ctx, "claim-map")
}

func (a *actor) ReopenMap(ctx context.Context, _ plugin.Process, _ plugin.Mapping) (int, error) {
	return 7, a.act(ctx, "reopen-map")
}

func (a *actor) SaveProcess(ctx context.Context, _ plugin.Process) error {
	return a.act(ctx, "save-process")
}

func (a *actor) RestoreProcess(ctx context.Context, _ plugin.Process) error {
	return a.act(ctx, "restore-process")
}

func (a *actor) Save(ctx context.Context, w io.Writer) error {
	if _, err := io.WriteString(w, a.state); err != nil {
		return err
	}
	return a.act(ctx, "save")
}

func (a *actor) Load(ctx context.Context, format uint16, r io.Reader) error {
	state, err := io.ReadAll(r)
	a.state = string(state)
	return errors.Join(err, a.act(ctx, "load"))
}

// mute is a plugin with no other interface.
type mute struct{ do func(context.Context) error }

func (m mute) Handle(ctx context.Context, _ plugin.Event) error { return m.do(ctx) }

// noReopen claims mappings and cannot make them again.
type noReopen struct{ mute }

func (noReopen) ClaimMap(context.Context, plugin.Process, plugin.Mapping) (plugin.MapPolicy, error) {
	return plugin.MapReopen, nil
}

// stage is a set of actors.
type stage struct {
	*pluginSet
	tape   *tape
	actors map[string]*actor
	logged *syncBuffer
}

func newStage(t *testing.T, timeout time.Duration, names ...string) stage {
	t.Helper()
	st := stage{tape: &tape{}, actors: map[string]*actor{}, logged: &syncBuffer{}}
	var defs []plugin.Definition
	for _, name := range names {
		a := &actor{name: name, tape: st.tape, script: map[string]func(context.Context) error{}, policy: plugin.MapSave}
		st.actors[name] = a
		defs = append(defs, plugin.Definition{
			Name: name, State: 3, Oldest: 2, Kinds: allKinds,
			New: func(plugin.Host) (plugin.Plugin, error) { return a, nil },
		})
	}
	st.pluginSet = newSet(t, timeout, st.logged, defs...)
	return st
}

func newSet(t *testing.T, timeout time.Duration, logged io.Writer, defs ...plugin.Definition) *pluginSet {
	t.Helper()
	set, err := trySet(t, timeout, logged, defs...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func trySet(t *testing.T, timeout time.Duration, logged io.Writer, defs ...plugin.Definition) (*pluginSet, error) {
	t.Helper()
	return newPluginSet(defs,
		func(plugin.Definition) plugin.Host { return plugintest.NewHost(t) },
		timeout,
		func(name string) zerolog.Logger { return zerolog.New(logged).With().Str("plugin", name).Logger() })
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func (st stage) dispatch(ctx context.Context, k plugin.Kind) error {
	return st.Dispatch(ctx, plugin.Event{Kind: k, Generation: 1})
}

func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

func (st stage) wantTape(t *testing.T, want ...string) {
	t.Helper()
	if got := st.tape.take(); !slices.Equal(got, want) {
		t.Errorf("calls:\n%q\nwant\n%q", got, want)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// waiter is a Holder.
type waiter struct {
	mute
	hold func() error
}

func (w waiter) Hold(context.Context, plugin.Event) error { return w.hold() }

func TestHoldOfAnEndedContext(t *testing.T) {
	calls := 0
	w := waiter{hold: func() error { calls++; return nil }}
	set := newSet(t, time.Minute, io.Discard, plugin.Definition{
		Name: "waits", State: 1, Oldest: 1, New: func(plugin.Host) (plugin.Plugin, error) { return w, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := set.Hold(ctx, plugin.Event{Kind: plugin.Resume}); err != nil {
		t.Errorf("a checkpoint that was given up: %v", err)
	}
	if err := set.Hold(ctx, plugin.Event{Kind: plugin.Running}); !errors.Is(err, context.Canceled) {
		t.Errorf("a restart that was given up: %v, want %v", err, context.Canceled)
	}
	if calls > 0 {
		t.Errorf("Hold was called %d times", calls)
	}
	if err := set.Hold(t.Context(), plugin.Event{Kind: plugin.Running}); err != nil || calls != 1 {
		t.Errorf("Hold: %v, called %d times, want once", err, calls)
	}
}

func TestNewPluginSet(t *testing.T) {
	def := func(name string, after ...string) plugin.Definition {
		return plugin.Definition{
			Name: name, State: 1, Oldest: 1, After: after,
			New: func(plugin.Host) (plugin.Plugin, error) { return mute{}, nil },
		}
	}
	with := func(change func(*plugin.Definition)) plugin.Definition {
		d := def("b")
		change(&d)
		return d
	}
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		defs []plugin.Definition
		want string // "" for no error
	}{
		{"none", nil, ""},
		{"in order", []plugin.Definition{def("a"), def("b", "a"), def("c", "a", "b")}, ""},
		{"after one that is not in the set", []plugin.Definition{def("b", "a")}, ""},
		{"out of order", []plugin.Definition{def("b", "a"), def("a")}, "plugin b: must stand after a"},
		{"after itself", []plugin.Definition{def("b", "b")}, "plugin b: must stand after b"},
		{"twice", []plugin.Definition{def("a"), def("b"), def("a")}, "plugin a: twice in the list, at 1 and 3"},
		{"no name", []plugin.Definition{def("a"), def("")}, `plugin 2 of the list: name ""`},
		{"bad name", []plugin.Definition{def("Epoll")}, `name "Epoll"`},
		{"oldest above state", []plugin.Definition{with(func(d *plugin.Definition) { d.Oldest = 2 })}, "plugin b: its oldest state format 2"},
		{"no New", []plugin.Definition{with(func(d *plugin.Definition) { d.New = nil })}, "plugin b: its definition has no New"},
		{"New fails", []plugin.Definition{with(func(d *plugin.Definition) {
			d.New = func(plugin.Host) (plugin.Plugin, error) { return nil, broken }
		})}, "plugin b: new: broken"},
		{"New panics", []plugin.Definition{with(func(d *plugin.Definition) {
			d.New = func(plugin.Host) (plugin.Plugin, error) { panic("at the disco") }
		})}, "plugin b: new: panic: at the disco"},
		{"New returns nothing", []plugin.Definition{with(func(d *plugin.Definition) {
			d.New = func(plugin.Host) (plugin.Plugin, error) { return nil, nil }
		})}, "plugin b: New returned neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := trySet(t, time.Minute, io.Discard, tt.defs...)
			if tt.want != "" {
				wantError(t, err, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Definitions(); len(got) != len(tt.defs) {
				t.Errorf("%d plugins, want %d", len(got), len(tt.defs))
			}
		})
	}
}

func TestSkippedPlugin(t *testing.T) {
	var logged syncBuffer
	set := newSet(t, time.Minute, &logged,
		plugin.Definition{Name: "infiniband", New: func(plugin.Host) (plugin.Plugin, error) {
			return nil, fmt.Errorf("no device: %w", plugin.ErrSkip)
		}},
		plugin.Definition{Name: "file", Summary: "files", State: 4, Barriers: []string{"drained"}, New: func(plugin.Host) (plugin.Plugin, error) {
			return mute{}, nil
		}})
	want := []pluginInfo{{Name: "file", Summary: "files", State: 4, Barriers: []string{"drained"}}}
	if got := set.Infos(); !reflect.DeepEqual(got, want) {
		t.Errorf("infos %+v, want %+v", got, want)
	}
	if !strings.Contains(logged.String(), "no device") {
		t.Errorf("the reason is not in the log: %s", &logged)
	}
	err := set.Load(t.Context(), []pluginSection{{Name: "infiniband"}})
	wantError(t, err, "infiniband", plugin.ErrSkip.Error())
}

func TestDispatchOrder(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b", "c")
	for _, k := range allKinds {
		t.Run(k.String(), func(t *testing.T) {
			if k == plugin.Resume {
				if err := st.dispatch(t.Context(), plugin.PreCheckpoint); err != nil {
					t.Fatal(err)
				}
				st.tape.take()
			}
			if err := st.dispatch(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			want := []string{"a:" + k.String(), "b:" + k.String(), "c:" + k.String()}
			if k.Reversed() {
				slices.Reverse(want)
			}
			st.wantTape(t, want...)
		})
	}
}

func TestDispatchOnlyListedKinds(t *testing.T) {
	called := false
	set := newSet(t, time.Minute, io.Discard, plugin.Definition{
		Name: "a", Kinds: []plugin.Kind{plugin.Launch},
		New: func(plugin.Host) (plugin.Plugin, error) {
			return mute{func(context.Context) error { called = true; return nil }}, nil
		},
	})
	for _, k := range allKinds {
		called = false
		if err := set.Dispatch(t.Context(), plugin.Event{Kind: k}); err != nil {
			t.Fatal(err)
		}
		if want := k == plugin.Launch; called != want {
			t.Errorf("%s: called is %t", k, called)
		}
	}
}

func TestDispatchErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		kind plugin.Kind
		want []string
	}{
		{plugin.PreSuspend, []string{"a:presuspend", "b:presuspend"}},
		{plugin.PreCheckpoint, []string{"a:precheckpoint", "b:precheckpoint"}},
		{plugin.Launch, []string{"a:launch", "b:launch"}},
		{plugin.Restart, []string{"c:restart", "b:restart"}},
		{plugin.Running, []string{"c:running", "b:running"}},
		{plugin.Exit, []string{"c:exit", "b:exit", "a:exit"}},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			st := newStage(t, time.Minute, "a", "b", "c")
			st.actors["b"].script[tt.kind.String()] = fails(broken)
			err := st.dispatch(t.Context(), tt.kind)
			if !errors.Is(err, broken) {
				t.Errorf("error %v", err)
			}
			wantError(t, err, "plugin b: "+tt.kind.String()+": broken")
			st.wantTape(t, tt.want...)
		})
	}
}

func TestRollback(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		fails  string   // whose PreCheckpoint
		resume []string // what Resume calls
	}{
		{"none fails", "", []string{"d:resume", "c:resume", "b:resume", "a:resume"}},
		{"in the middle", "c", []string{"c:resume", "b:resume", "a:resume"}},
		{"the first", "a", []string{"a:resume"}},
		{"the last", "d", []string{"d:resume", "c:resume", "b:resume", "a:resume"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, time.Minute, "a", "b", "c", "d")
			if tt.fails != "" {
				st.actors[tt.fails].script["precheckpoint"] = fails(broken)
			}
			if err := st.dispatch(t.Context(), plugin.PreCheckpoint); (err != nil) != (tt.fails != "") {
				t.Fatalf("PreCheckpoint: %v", err)
			}
			st.tape.take()
			if err := st.Resume(t.Context(), 1, nil); err != nil {
				t.Fatal(err)
			}
			st.wantTape(t, tt.resume...)
			if err := st.dispatch(t.Context(), plugin.Resume); err != nil {
				t.Fatal(err)
			}
			st.wantTape(t) // a second one calls nobody
		})
	}
}

// TestRollbackGoesOn: neither a failing Resume nor the end of the checkpoint's
// context keeps the others from theirs.
func TestRollbackGoesOn(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b", "c")
	one, two := errors.New("one"), errors.New("two")
	st.actors["c"].script["resume"] = fails(one)
	st.actors["b"].script["resume"] = func(context.Context) error { panic(two) }
	st.actors["a"].script["resume"] = func(ctx context.Context) error { return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	if err := st.dispatch(ctx, plugin.PreCheckpoint); err != nil {
		t.Fatal(err)
	}
	cancel()
	st.tape.take()
	err := st.Resume(ctx, 1, nil)
	wantError(t, err, "plugin c: resume: one", "plugin b: resume: panic: two")
	if strings.Contains(err.Error(), "plugin a") {
		t.Errorf("a saw the cancelled context: %v", err)
	}
	st.wantTape(t, "c:resume", "b:resume", "a:resume")
}

// TestRollbackWithoutPreCheckpoint: a plugin that wants Resume only may hold
// what it claimed.
func TestRollbackWithoutPreCheckpoint(t *testing.T) {
	rec := &tape{}
	def := func(name string, kinds ...plugin.Kind) plugin.Definition {
		a := &actor{name: name, tape: rec}
		if name == "b" {
			a.script = map[string]func(context.Context) error{"precheckpoint": fails(errors.New("broken"))}
		}
		return plugin.Definition{Name: name, Kinds: kinds, New: func(plugin.Host) (plugin.Plugin, error) { return a, nil }}
	}
	set := newSet(t, time.Minute, io.Discard,
		def("a", plugin.Resume), def("b", plugin.PreCheckpoint, plugin.Resume), def("c", plugin.Resume))
	if err := set.Dispatch(t.Context(), plugin.Event{Kind: plugin.PreCheckpoint}); err == nil {
		t.Fatal("no error")
	}
	if err := set.Resume(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := rec.take(), []string{"b:precheckpoint", "b:resume", "a:resume"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}
