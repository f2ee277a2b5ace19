package core

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 20 * time.Second
		st := newStage(t, limit, "a", "b")
		begin, release := time.Now(), make(chan struct{})
		defer close(release)
		st.actors["b"].script["precheckpoint"] = func(context.Context) error { <-release; return nil }

		err := st.dispatch(t.Context(), plugin.PreCheckpoint)
		wantError(t, err, "plugin b: precheckpoint: did not return in time (limit 20s)")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v is no context.DeadlineExceeded", err)
		}
		if took := time.Since(begin); took != limit+limit/10 {
			t.Errorf("gave up after %v", took)
		}

		st.tape.take()
		err = st.Resume(t.Context(), 1, nil)
		wantError(t, err, "plugin b: resume: not called, since it has not come back from precheckpoint")
		st.wantTape(t, "a:resume")
		if got := st.Infos()[1].Broken; got != "precheckpoint" {
			t.Errorf("the status says broken in %q", got)
		}
		_, err = st.ClaimFile(t.Context(), plugin.OpenFile{})
		if err != nil {
			t.Errorf("a still claims: %v", err)
		}
		st.actors["a"].script["claim-file"] = fails(plugin.ErrNotMine)
		_, err = st.ClaimFile(t.Context(), plugin.OpenFile{})
		wantError(t, err, "plugin b: claim-file: not called")
	})
}

// TestDeadlineHeeded: a plugin that returns when its context ends is not broken.
func TestDeadlineHeeded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cancel time.Duration // of the caller's context
		want   error
	}{
		{"deadline", time.Hour, context.DeadlineExceeded},
		{"cancelled", time.Second, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, 20*time.Second, "a")
				st.actors["a"].script["precheckpoint"] = func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer time.AfterFunc(tt.cancel, cancel).Stop()
				if err := st.dispatch(ctx, plugin.PreCheckpoint); !errors.Is(err, tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
				if err := st.Resume(t.Context(), 1, nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestLease(t *testing.T) {
	st := newStage(t, time.Minute, "a")
	self := plugintest.Self(t)
	addr, _ := self.Scratch()
	use := func(p plugin.Process) []error {
		b := make([]byte, 1)
		_, read := p.ReadAt(b, int64(addr))
		_, write := p.WriteAt(b, int64(addr))
		_, call := p.Syscall(t.Context(), ^uintptr(0))
		if errors.Is(call, syscall.ENOSYS) {
			call = nil
		}
		return []error{read, write, call, p.Batch(t.Context(), nil)}
	}
	a := st.actors["a"]
	a.script["precheckpoint"] = func(context.Context) error { return errors.Join(use(a.lent[0])...) }
	if err := st.Dispatch(t.Context(), plugin.Event{Kind: plugin.PreCheckpoint, Procs: []plugin.Process{self}}); err != nil {
		t.Fatalf("during the call: %v", err)
	}
	for i, err := range use(a.lent[0]) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after the call, use %d: %v", i, err)
		}
	}
}

func TestPanic(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b")
	st.actors["a"].script["claim-file"] = func(context.Context) error { panic("index out of range") }
	_, err := st.ClaimFile(t.Context(), plugin.OpenFile{})
	wantError(t, err, "plugin a: claim-file: panic: index out of range")
	if logged := st.logged.String(); !strings.Contains(logged, `"plugin":"a"`) || !strings.Contains(logged, "dispatch_test.go") {
		t.Errorf("the stack is not in the plugin's log: %s", logged)
	}
	if st.Infos()[0].Broken != "" {
		t.Error("a panic counts as a missed deadline")
	}
	st.actors["a"].script["claim-file"] = func(context.Context) error { runtime.Goexit(); return nil }
	_, err = st.ClaimFile(t.Context(), plugin.OpenFile{})
	wantError(t, err, "plugin a: claim-file: ended its goroutine")
}

func TestTimings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, time.Minute, "a", "b")
		st.actors["b"].script["claim-file"] = func(context.Context) error { time.Sleep(3 * time.Second); return nil } // of the bubble's clock
		st.actors["a"].script["claim-file"] = fails(plugin.ErrNotMine)
		if err := st.dispatch(t.Context(), plugin.Exit); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := st.dispatch(t.Context(), plugin.PreSuspend); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := st.ClaimFile(t.Context(), plugin.OpenFile{}); err != nil {
					t.Fatal(err)
				}
			}
			want := []timing{
				{"a", "presuspend", 1, 0}, {"b", "presuspend", 1, 0},
				{"a", "claim-file", 2, 0}, {"b", "claim-file", 2, 6 * time.Second},
			}
			if got := st.Timings(); !slices.Equal(got, want) {
				t.Errorf("timings %v, want %v", got, want)
			}
		}
	})
}

func TestCallLog(t *testing.T) {
	st := newStage(t, time.Minute, "a")
	if err := st.dispatch(t.Context(), plugin.PreSuspend); err != nil {
		t.Fatal(err)
	}
	st.actors["a"].script["claim-file"] = fails(plugin.ErrNotMine)
	file := plugin.OpenFile{Link: "pipe:[7]", Refs: []plugin.FileRef{{PID: 12, FD: 3}}}
	if _, err := st.ClaimFile(t.Context(), file); err == nil {
		t.Fatal("no error")
	}
	logged := st.logged.String()
	for _, want := range []string{
		`"level":"debug","plugin":"a","phase":"presuspend"`,
		`"level":"trace","plugin":"a","phase":"claim-file"`,
		`"decision":"not mine","pid":12,"fd":3,"object":"pipe:[7]"`,
	} {
		if !strings.Contains(logged, want) {
			t.Errorf("the log lacks %s:\n%s", want, logged)
		}
	}
}

// BenchmarkClaimFile is one call of one plugin, with logging at info.
func BenchmarkClaimFile(b *testing.B) {
	set, err := newPluginSet([]plugin.Definition{{
		Name: "a",
		New:  func(plugin.Host) (plugin.Plugin, error) { return claimer{}, nil },
	}}, func(plugin.Definition) plugin.Host { return nil }, time.Minute,
		func(string) zerolog.Logger { return zerolog.New(io.Discard).Level(zerolog.InfoLevel) })
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := set.ClaimFile(b.Context(), plugin.OpenFile{}); err != nil {
			b.Fatal(err)
		}
	}
}

type claimer struct{ mute }

func (claimer) ClaimFile(context.Context, plugin.OpenFile) error { return nil }

func (claimer) ReopenFile(context.Context, plugin.OpenFile) (int, error) { return -1, nil }
