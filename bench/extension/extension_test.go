package extension

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
	"github.com/hiatus-project/hiatus/plugin/wasm"
)

// The budgets.
const (
	perCheckpoint = 3 * time.Millisecond
	perEvent      = 20 * time.Microsecond
	perTwenty     = 60 * time.Millisecond
)

const emptyC = `#include "hiatus_plugin.h"
HIATUS_INIT { for (int k = HIATUS_PRESUSPEND; k <= HIATUS_OUTCOME; k++) hiatus_subscribe(k); return HIATUS_OK; }
HIATUS_EVENT(kind) { (void)kind; return HIATUS_OK; }
`

// guests builds both.
func guests(b *testing.B) map[string]string {
	b.Helper()
	dir := b.TempDir()
	src := filepath.Join(dir, "empty.c")
	if err := os.WriteFile(src, []byte(emptyC), 0o600); err != nil {
		b.Fatal(err)
	}
	out := map[string]string{"C": filepath.Join(dir, "empty-c.wasm"), "Go": filepath.Join(dir, "empty-go.wasm")}
	for _, command := range [][]string{
		{"clang", "--target=wasm32", "-O2", "-nostdlib", "-Wl,--no-entry", "-I../../sdk/c", "-o", out["C"], src},
		{"env", "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "go", "build", "-buildmode=c-shared", "-o", out["Go"], "../../sdk/examples/empty"},
	} {
		if msg, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%q: %v\n%s", command, err, msg)
		}
	}
	return out
}

func load(b *testing.B, path, cache string) (plugin.Plugin, *wasm.Module) {
	b.Helper()
	m, err := wasm.Load(b.Context(), wasm.Config{Path: path, CacheDir: cache})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close(context.Background()) })
	p, err := m.Definition().New(plugintest.NewHost(b))
	if err != nil {
		b.Fatal(err)
	}
	return p, m
}

func send(b *testing.B, p plugin.Plugin, kinds ...plugin.Kind) {
	for _, k := range kinds {
		if err := p.Handle(b.Context(), plugin.Event{Kind: k, Outcome: &plugin.Figures{Committed: true}}); err != nil {
			b.Fatal(err)
		}
	}
}

func checkpoint(b *testing.B, p plugin.Plugin) {
	send(b, p, plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Outcome)
}

// share reports how much of the budget a turn took.
func share(b *testing.B, budget time.Duration) {
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(budget), "of-budget")
}

func BenchmarkCheckpoint(b *testing.B) {
	for name, path := range guests(b) {
		p, m := load(b, path, filepath.Join(b.TempDir(), "cache"))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				checkpoint(b, p)
				b.StopTimer() // the program runs
				m.Settle()
				b.StartTimer()
			}
			share(b, perCheckpoint)
		})
	}
}

func BenchmarkEvent(b *testing.B) {
	for name, path := range guests(b) {
		p, _ := load(b, path, filepath.Join(b.TempDir(), "cache"))
		b.Run(name, func(b *testing.B) {
			send(b, p, plugin.PreSuspend)
			for b.Loop() {
				send(b, p, plugin.Resume)
			}
			share(b, perEvent)
			send(b, p, plugin.Outcome)
		})
	}
}

func BenchmarkTwenty(b *testing.B) {
	for name, path := range guests(b) {
		cache := filepath.Join(b.TempDir(), "cache")
		var all []plugin.Plugin
		var modules []*wasm.Module
		for range 20 {
			p, m := load(b, path, cache)
			all, modules = append(all, p), append(modules, m)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, p := range all {
					checkpoint(b, p)
				}
				b.StopTimer()
				for _, m := range modules {
					m.Settle()
				}
				b.StartTimer()
			}
			share(b, perTwenty)
		})
	}
}
