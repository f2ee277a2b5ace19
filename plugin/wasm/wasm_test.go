package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// assemble makes a module of its text, with wat2wasm of Debian's wabt.
func assemble(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	src, out := filepath.Join(dir, "guest.wat"), filepath.Join(dir, "guest.wasm")
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("wat2wasm", "-o", out, src).CombinedOutput(); err != nil {
		t.Fatalf("wat2wasm (test/setup.sh installs it): %v\n%s", err, msg)
	}
	return out
}

// guest wraps the body of hiatus_event, and of init behind its subscriptions
// to all kinds.
func guest(imports, init, event string) string {
	return `(module
  (import "hiatus/1" "subscribe" (func $subscribe (param i32) (result i32)))
  (import "hiatus/1" "fail" (func $fail (param i32 i32)))
  (import "hiatus/1" "log" (func $log (param i32 i32 i32)))
  (import "hiatus/1" "event" (func $get_event (param i32 i32) (result i32)))
  (import "hiatus/1" "config" (func $config (param i32 i32) (result i32)))
  (import "hiatus/1" "state_read" (func $state_read (param i32 i32) (result i32)))
  (import "hiatus/1" "state_write" (func $state_write (param i32 i32) (result i32)))
  (import "hiatus/1" "last_error" (func $last_error (param i32 i32) (result i32)))
` + imports + `
  (memory (export "memory") 1)
  (data (i32.const 0) "the seat is taken")
  (global $turn (mut i32) (i32.const 0))
  (func (export "hiatus_init") (result i32)
    (local $k i32)
    (loop $next
      (local.set $k (i32.add (local.get $k) (i32.const 1)))
      (drop (call $subscribe (local.get $k)))
      (br_if $next (i32.lt_u (local.get $k) (i32.const 8))))
    ` + init + `
    i32.const 0)
  (func (export "hiatus_event") (param $kind i32) (result i32) (local $i i32)
    (global.set $turn (i32.add (global.get $turn) (i32.const 1)))
    ` + event + `
    i32.const 0))`
}

func loadModule(t testing.TB, cfg Config) (*Module, error) {
	t.Helper()
	m, err := Load(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { m.Close(context.Background()) })
	}
	return m, err
}

// start loads a guest and makes its plugin.
func start(t testing.TB, text string, cfg Config) (*extension, *plugintest.Host) {
	t.Helper()
	cfg.Path = assemble(t, text)
	m, err := loadModule(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := plugintest.NewHost(t)
	p, err := m.Definition().New(h)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*extension), h
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("an error of several lines: %q", err)
	}
}

type containment struct {
	name, imports, event string
	want                 string
}

// deadline is short only where it is what ends the guest.
func (c containment) deadline() time.Duration {
	if c.name == "loop" {
		return 100 * time.Millisecond
	}
	return 20 * time.Second
}

const spin = `(loop $l (br $l))`

// TestContainment: whatever a guest does wrong ends its call with one error,
// and the next sequence finds a fresh instance.
func TestContainment(t *testing.T) {
	for _, tt := range []containment{
		{"trap", "", "unreachable", "trapped: unreachable"},
		{"loop", "", spin, "has not returned within 100ms"},
		{"division", "", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", "trapped: integer divide by zero"},
		{"stack", "(func $down (call $down))", "(call $down)", "trapped: stack overflow"},
		{"memory", "", `(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable`, "trapped: unreachable"},
		{"table", "(table $t 1 funcref)", `(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 4096)) (i32.const -1)))) unreachable`, "trapped: unreachable"},
		{"own pointer", "", "(drop (i32.load (i32.const 0x7fffffff)))", "trapped: out of bounds memory access"},
		{"wild pointer", "", "(drop (call $state_write (i32.const 0x7ffffff0) (i32.const 4)))", "a pointer outside of its memory"},
		{"huge length", "", "(drop (call $state_write (i32.const 0) (i32.const 0xffffff)))", "a pointer outside of its memory"},
		{"wrapping length", "", "(call $fail (i32.const 0xffffffff) (i32.const 2))", "a pointer outside of its memory"},
		{"wild buffer", "", "(drop (call $get_event (i32.const 0x7ffffff0) (i32.const 0x7fffffff)))", "a pointer outside of its memory"},
		{"silent failure", "", "(return (i32.const 1))", "failed, without a reason"},
		{"failure", "", "(call $fail (i32.const 0) (i32.const 17)) (return (i32.const 1))", "the seat is taken"},
		{"nonsense", "", "(return (i32.const 77))", "returned 77, which means nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := start(t, guest(tt.imports, "", tt.event), Config{Limits: Limits{Deadline: tt.deadline()}})
			for range 2 {
				for _, kind := range []plugin.Kind{plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Outcome} {
					err := p.Handle(t.Context(), plugin.Event{Kind: kind, Outcome: &plugin.Figures{}})
					if kind == plugin.PreSuspend {
						wantError(t, err, tt.want)
					} else if err != nil {
						t.Errorf("%s, after the instance had failed: %v", kind, err)
					}
					if p.in != nil {
						t.Error("the failed instance is still there")
					}
				}
			}
		})
	}
}

// TestWarn: with Warn, what fails is left out.
func TestWarn(t *testing.T) {
	p, h := start(t, guest("", "", "unreachable"), Config{Warn: true})
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreSuspend}); err != nil {
		t.Fatal(err)
	}
	if logged := h.Logged(); !strings.Contains(logged, "trapped: unreachable") {
		t.Errorf("logged %q", logged)
	}
}

// TestLoadErrors: modules that never come to run.
func TestLoadErrors(t *testing.T) {
	const memory = `(memory (export "memory") 1)`
	const exports = memory + `(func (export "hiatus_init") (result i32) i32.const 0) (func (export "hiatus_event") (param i32) (result i32) i32.const 0)`
	const needs = ` (func $x (param i32 i32) (result i32)))`
	for _, tt := range []struct {
		name, text string
		grants     []string
		want       string
	}{
		{"newer ABI", `(import "hiatus/2" "event"` + needs + exports, nil, "needs version 2 of the ABI"},
		{"no such ABI", `(import "hiatus/x" "event"` + needs + exports, nil, `needs version "x" of the ABI`},
		{"foreign import", `(import "env" "abort"` + needs + exports, nil, "imports env.abort, which is no function of this ABI"},
		{"no such function", `(import "hiatus/1" "fly"` + needs + exports, nil, "imports hiatus/1.fly, which this hiatus does not have"},
		{"no such capability", `(import "hiatus/1/kernel" "call"` + needs + exports, nil, `capability "kernel"`},
		{"not granted", `(import "hiatus/1/coord" "barrier"` + needs + exports, nil, "asks for coord, which is not granted: --with-plugin"},
		{"another granted", `(import "hiatus/1/mem.read" "maps" (func (param i32 i32 i32) (result i32)))` + exports, []string{"coord"}, "grant=coord+mem.read"},
		{"unknown grant", exports, []string{"root"}, `unknown capability "root"`},
		{"another type", `(import "hiatus/1" "event" (func (param i64) (result i32)))` + exports, nil, "signature mismatch"},
		{"no memory", `(func (export "hiatus_init") (result i32) i32.const 0)`, nil, "does not export its memory"},
		{"foreign memory", `(import "env" "memory" (memory 1))` + `(func (export "hiatus_init") (result i32) i32.const 0)`, nil, "must have its own"},
		{"no init", memory, nil, "does not export the function hiatus_init"},
		{"a command", memory + `(func (export "_start"))`, nil, "build a reactor"},
		{"wrong init", memory + `(func (export "hiatus_init")) (func (export "hiatus_event") (param i32) (result i32) i32.const 0)`, nil, "hiatus_init has another type"},
		{"nothing wanted", exports, nil, "subscribes to no event"},
		{"too much memory", `(memory (export "memory") 2000)` + strings.TrimPrefix(exports, memory), nil, "memory"},
		{"huge table", `(table 200000 funcref)` + exports, nil, "a table of 200000 elements"},
		{"start calls the host", `(import "hiatus/1" "fail" (func $x (param i32 i32)))` + exports + `(func $s (call $x (i32.const 0) (i32.const 0))) (start $s)`, nil, "from the start section"},
		{"start loops", exports + `(func $s ` + spin + `) (start $s)`, nil, "has not returned within"},
		{"init traps", memory + `(func (export "hiatus_init") (result i32) unreachable) (func (export "hiatus_event") (param i32) (result i32) i32.const 0)`, nil, "init: trapped: unreachable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := assemble(t, "(module "+tt.text+")")
			_, err := loadModule(t, Config{Path: path, Grants: tt.grants, Limits: Limits{Deadline: 300 * time.Millisecond}})
			wantError(t, err, "extension guest", tt.want)
		})
	}
}

// TestDamagedModules: truncated at every length, and with each byte changed,
// a module loads or is refused.
func TestDamagedModules(t *testing.T) {
	code, err := os.ReadFile(assemble(t, guest("(table 2 3 funcref)", "", "")))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "damaged.wasm")
	try := func(code []byte) error {
		if err := os.WriteFile(path, code, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Load(t.Context(), Config{Path: path, Limits: Limits{Deadline: 100 * time.Millisecond}})
		if err == nil {
			m.Close(t.Context())
		}
		return err
	}
	loaded := 0
	for n := range code {
		if try(code[:n]) == nil {
			loaded++
		}
	}
	if loaded > 1 { // without its section of data it is a module still
		t.Errorf("truncated to %d lengths, it loads", loaded)
	}
	for i := range code {
		spoiled := append([]byte(nil), code...)
		spoiled[i] ^= 0xff
		_ = try(spoiled) // no panic is the test
	}
}

// TestStateIsCommitted: state counts with the generation it was saved in.
func TestStateIsCommitted(t *testing.T) {
	write := `(if (i32.eq (local.get $kind) (i32.const 2)) (then
		(i32.store8 (i32.const 100) (i32.add (i32.const 49) (call $state_read (i32.const 200) (i32.const 10))))
		(drop (call $state_write (i32.const 0) (i32.add (i32.const 1) (call $state_read (i32.const 200) (i32.const 10)))))))`
	p, _ := start(t, guest("", "", write), Config{})
	checkpoint := func(committed bool) string {
		t.Helper()
		for _, kind := range []plugin.Kind{plugin.PreSuspend, plugin.PreCheckpoint} {
			if err := p.Handle(t.Context(), plugin.Event{Kind: kind}); err != nil {
				t.Fatal(err)
			}
		}
		var image strings.Builder
		if err := p.Save(t.Context(), &image); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []plugin.Kind{plugin.Resume, plugin.Outcome} {
			if err := p.Handle(t.Context(), plugin.Event{Kind: kind, Outcome: &plugin.Figures{Committed: committed}}); err != nil {
				t.Fatal(err)
			}
		}
		return image.String()
	}
	want := func(image, guest string) {
		t.Helper()
		var s state
		if err := json.Unmarshal([]byte(image), &s); err != nil || string(s.Guest) != guest {
			t.Errorf("state %q (%v), want %q", s.Guest, err, guest)
		}
	}
	want(checkpoint(true), "t")
	want(checkpoint(false), "th")
	want(checkpoint(false), "th")
	image := checkpoint(true)
	want(image, "th")

	again, _ := start(t, guest("", "", write), Config{})
	if err := again.Load(t.Context(), stateFormat, strings.NewReader(image)); err != nil {
		t.Fatal(err)
	}
	p = again
	want(checkpoint(true), "the")
}

// TestCheckIsASequence: a check has PreCheckpoint and Resume only.
func TestCheckIsASequence(t *testing.T) {
	p, _ := start(t, guest("", "", `(if (i32.ne (global.get $turn) (i32.sub (local.get $kind) (i32.const 1))) (then unreachable))`), Config{})
	for range 3 {
		for _, kind := range []plugin.Kind{plugin.PreCheckpoint, plugin.Resume} {
			if err := p.Handle(t.Context(), plugin.Event{Kind: kind}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRollBack: what a guest wrote to a process is put back when it fails,
// be it in the same call or behind it.
func TestRollBack(t *testing.T) {
	self := plugintest.Self(t)
	addr, _ := self.Scratch()
	imports := `(import "hiatus/1/mem.write" "write" (func $write (param i32 i64 i32 i32) (result i32)))
		(import "hiatus/1/mem.read" "read" (func $read (param i32 i64 i32 i32) (result i32)))`
	pid, at := itoa(self.PID()), itoa(int(addr))
	event := `(if (i32.ne (local.get $kind) (i32.const 2)) (then (return (i32.const 1))))
		(drop (call $write (i32.const ` + pid + `) (i64.const ` + at + `) (i32.const 0) (i32.const 4)))
		(drop (call $write (i32.const ` + pid + `) (i64.const ` + at + `) (i32.const 4) (i32.const 4)))`
	p, _ := start(t, guest(imports, "", event), Config{Grants: []string{"mem.read", "mem.write"}})
	procs := []plugin.Process{self}
	show := func() string {
		b := make([]byte, 4)
		if _, err := self.ReadAt(b, int64(addr)); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if _, err := self.WriteAt([]byte("abcd"), int64(addr)); err != nil {
		t.Fatal(err)
	}
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreCheckpoint, Procs: procs}); err != nil {
		t.Fatal(err)
	}
	if got := show(); got != "seat" && got != " sea" {
		t.Errorf("after PreCheckpoint: %q", got)
	}
	wantError(t, p.Handle(t.Context(), plugin.Event{Kind: plugin.Resume, Procs: procs}), "failed, without a reason")
	if got := show(); got != "abcd" {
		t.Errorf("after the failure: %q", got)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestLogLimit(t *testing.T) {
	event := `(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 17))
		(br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))`
	p, h := start(t, guest("", "", event), Config{Limits: Limits{Log: 1000}})
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreSuspend}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(h.Logged(), "the seat is taken"); n != 1000/logLeast {
		t.Errorf("%d lines, want %d", n, 1000/logLeast)
	}
	if !strings.Contains(h.Logged(), "logs too much") {
		t.Error("nothing tells that lines were left out")
	}
}

// TestEmptyLines: lines without a text count as well.
func TestEmptyLines(t *testing.T) {
	event := `(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 0))
		(br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))`
	p, h := start(t, guest("", "", event), Config{Limits: Limits{Log: 1000}})
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreSuspend}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(h.Logged(), `"info"`); n != 1000/logLeast {
		t.Errorf("%d lines, want %d", n, 1000/logLeast)
	}
}

// TestOwn decides about descriptors: only about those that a process has, and for
// as many bytes together as its state may have.
func TestOwn(t *testing.T) {
	self := plugintest.Self(t)
	p, _ := start(t, guest("", "", ""), Config{Limits: Limits{State: 1000}})
	p.reset()
	p.in = &instance{ext: p}
	c := &call{in: p.in, kind: plugin.PreCheckpoint, event: plugin.Event{Kind: plugin.PreCheckpoint, Procs: []plugin.Process{self}}}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a, b := int(r.Fd()), int(w.Fd())
	own := func(fd, size int) int32 {
		return c.decide(self.PID(), fd, fileState{Action: actionOwn, Content: make([]byte, size-100), Reopen: abi.Reopen{Send: make([]byte, 100)}})
	}
	for i, step := range []struct {
		fd, size int
		want     int32
	}{
		{a, 1001, abi.ErrLimit}, {a, 600, abi.OK}, {b, 600, abi.ErrLimit}, {b, 400, abi.OK},
		{a, 601, abi.ErrLimit}, {a, 500, abi.OK}, {b, 500, abi.OK}, {b, 501, abi.ErrLimit},
	} {
		if got := own(step.fd, step.size); got != step.want {
			t.Errorf("step %d: %d, want %d: %s", i, got, step.want, c.last)
		}
	}
	w.Close()
	for _, fd := range []int{-1, b, 1 << 30} {
		if got := own(fd, 100); got != abi.ErrNotFound {
			t.Errorf("descriptor %d: %d, want %d", fd, got, abi.ErrNotFound)
		}
	}
}

// TestSmallBuffer: a buffer that is too small is left as it is.
func TestSmallBuffer(t *testing.T) {
	event := `(if (i32.lt_s (call $get_event (i32.const 0) (i32.const 5)) (i32.const 20)) (then unreachable))
		(if (i32.ne (i32.load8_u (i32.const 0)) (i32.const 116)) (then unreachable))
		(call $log (i32.const 2) (i32.const 1000) (call $get_event (i32.const 1000) (i32.const 1000)))`
	p, h := start(t, guest("", "", event), Config{})
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreSuspend, Generation: 7}); err != nil {
		t.Fatal(err)
	}
	if want := `{\"kind\":\"presuspend\",\"generation\":7,\"processes\":[]}`; !strings.Contains(h.Logged(), want) {
		t.Errorf("logged %s, want %s", h.Logged(), want)
	}
}

func TestSkip(t *testing.T) {
	path := assemble(t, guest("", "(return (i32.const 2))", ""))
	m, err := loadModule(t, Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Definition().New(plugintest.NewHost(t)); !errors.Is(err, plugin.ErrSkip) {
		t.Errorf("error %v, want ErrSkip", err)
	}
}

// TestCache: a damaged entry does no harm, and a directory of others' is not
// used.
func TestCache(t *testing.T) {
	path := assemble(t, guest("", "", ""))
	dir := filepath.Join(t.TempDir(), "cache", "hiatus")
	warned := ""
	load := func() {
		t.Helper()
		_, err := loadModule(t, Config{Path: path, CacheDir: dir, Warning: func(string, ...any) { warned = "yes" }})
		if err != nil {
			t.Fatal(err)
		}
	}
	load()
	entries, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if len(entries) == 0 || warned != "" {
		t.Fatalf("entries %q, warned %q", entries, warned)
	}
	for _, damage := range []string{"", "WAZEVO", strings.Repeat("x", 5000)} {
		for _, e := range entries {
			if err := os.WriteFile(e, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		load()
		warned = ""
		for range 2 { // the first writes it anew
			if load(); warned != "" {
				t.Errorf("damaged to %.10q, the cache was never used again", damage)
			}
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	load()
	if warned == "" {
		t.Error("a directory that any user may write to was used")
	}
}

// TestKeptGuest: a guest that was built when version 1 of the ABI was new runs
// for as long as there is a version 1. It counts checkpoints in its state.
func TestKeptGuest(t *testing.T) {
	m, err := loadModule(t, Config{Path: "testdata/guest-v1.wasm"})
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Exercise(t.Context(), m)
	if err != nil {
		t.Fatalf("%v: %+v", err, steps)
	}
	var logged strings.Builder
	for _, s := range steps {
		logged.Write(s.Log)
	}
	for _, want := range []string{"checkpoints: 0001", "checkpoints: 0004"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("logged %s, want %s", &logged, want)
		}
	}
	if m.Summary != "counts checkpoints, in C" || len(m.Kinds) != 2 {
		t.Errorf("summary %q, kinds %v", m.Summary, m.Kinds)
	}
}

// TestHold: the event comes again until the guest lets go, and no longer than
// is granted.
func TestHold(t *testing.T) {
	imports := `(import "hiatus/1/hold" "keep" (func $keep (param i32) (result i32)))`
	for _, tt := range []struct {
		name, event, grant string
		turns              int32
	}{
		{"lets go", `(if (i32.lt_u (global.get $turn) (i32.const 4)) (then (drop (call $keep (i32.const 1)))))`, "hold:1m", 4},
		{"for ever", `(drop (call $keep (i32.const 5)))`, "hold:50ms", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, h := start(t, guest(imports, "", tt.event+`(call $log (i32.const 2) (i32.const 0) (i32.const 17))`), Config{Grants: []string{tt.grant}})
			ev := plugin.Event{Kind: plugin.Running}
			if err := p.Handle(t.Context(), ev); err != nil {
				t.Fatal(err)
			}
			if err := p.Hold(t.Context(), ev); err != nil {
				t.Fatal(err)
			}
			turns := strings.Count(h.Logged(), "the seat is taken")
			if tt.turns > 0 && turns != int(tt.turns) || turns < 2 {
				t.Errorf("%d turns, want %d", turns, tt.turns)
			}
			if limited := strings.Contains(h.Logged(), "as long as is granted"); limited != (tt.turns == 0) {
				t.Errorf("the limit was told: %t", limited)
			}
			if p.in != nil {
				t.Error("the instance is still there")
			}
		})
	}
}
