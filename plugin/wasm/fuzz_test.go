package wasm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// victim is a process with a little memory, and nothing else.
type victim struct {
	plugin.Process
	mem []byte
}

func (*victim) PID() int                 { return 7 }
func (*victim) HostPID() int             { return 1 << 30 } // nobody
func (*victim) Threads() []plugin.Thread { return nil }

func (v *victim) at(b []byte, off int64) ([]byte, error) {
	if off < 0 || off > int64(len(v.mem)-len(b)) {
		return nil, errors.New("no memory there")
	}
	return v.mem[off : off+int64(len(b))], nil
}

func (v *victim) ReadAt(b []byte, off int64) (int, error) {
	m, err := v.at(b, off)
	return copy(b, m), err
}

func (v *victim) WriteAt(b []byte, off int64) (int, error) {
	m, err := v.at(b, off)
	return copy(m, b), err
}

// caller is a guest that reads its configuration as a list of calls: the
// number of a host function, then eight bytes for each of its arguments.
func caller() (text string, grants []string) {
	var imports, calls strings.Builder
	n := 0
	capabilities := append([]string{""}, abi.Capabilities()...)
	for _, capability := range capabilities {
		module := abi.Base
		if capability != "" {
			module = abi.Module(capability)
			grants = append(grants, map[string]string{abi.Exec: "exec:/bin/true", abi.HTTP: "http:127.0.0.1:1"}[capability])
			if grants[len(grants)-1] == "" {
				grants[len(grants)-1] = capability
			}
		}
		for _, f := range hostFunctions()[capability] {
			params, args := "", ""
			for i, c := range f.in {
				kind, load := "i32", "i32.load"
				if c == 'l' {
					kind, load = "i64", "i64.load"
				}
				params += " " + kind
				args += fmt.Sprintf(" (%s offset=%d (local.get $at))", load, 1+8*i)
			}
			result, drop, end := "", "", ""
			if f.out {
				result, drop, end = "(result i32)", "(drop ", ")"
			}
			fmt.Fprintf(&imports, "(import %q %q (func $f%d (param%s) %s))\n", module, f.name, n, params, result)
			fmt.Fprintf(&calls, "(if (i32.eq (i32.rem_u (i32.load8_u (local.get $at)) (i32.const NUMBER)) (i32.const %d)) (then %s(call $f%d%s)%s))\n", n, drop, n, args, end)
			n++
		}
	}
	// The input stands at 4096; before it is what pointers may hit.
	text = `(module ` + imports.String() + `
  (memory (export "memory") 2)
  (data (i32.const 64) "{\"pid\":7,\"fd\":1,\"action\":\"save\"}")
  (data (i32.const 128) "{\"args\":[\"/bin/true\"]}{\"url\":\"http://127.0.0.1:1/\"}[{\"name\":\"A\",\"value\":\"x\"}]/a/b/c")
  (func $all (local $at i32) (local $end i32)
    (local.set $at (i32.const 4096))
    (local.set $end (i32.add (i32.const 4096) (call $f1 (i32.const 4096) (i32.const 4096))))
    (loop $next
      ` + strings.ReplaceAll(calls.String(), "NUMBER", fmt.Sprint(n)) + `
      (local.set $at (i32.add (local.get $at) (i32.const 33)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
  (func (export "hiatus_init") (result i32)
    (local $k i32)
    (loop $next
      (local.set $k (i32.add (local.get $k) (i32.const 1)))
      (drop (call $f` + fmt.Sprint(slices.IndexFunc(baseFunctions(), func(f hostFunction) bool { return f.name == "subscribe" })) + ` (local.get $k)))
      (br_if $next (i32.lt_u (local.get $k) (i32.const 8))))
    i32.const 0)
  (func (export "hiatus_event") (param i32) (result i32) (call $all) i32.const 0))`
	return text, grants
}

// FuzzHostFunctions calls host functions with any arguments, in each event.
// What a guest gets is an error or its end, and the next one works as ever.
func FuzzHostFunctions(f *testing.F) {
	text, grants := caller()
	m, err := Load(f.Context(), Config{Path: assemble(f, text), Grants: grants, Limits: Limits{Deadline: time.Second, State: 1 << 16, Log: 1 << 10},
		Run: func(context.Context, abi.Command) (abi.CommandResult, error) { return abi.CommandResult{}, nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close(context.Background()) })
	word := func(v uint64) string {
		b := make([]byte, 8)
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		return string(b)
	}
	for i := range 40 {
		for _, a := range []uint64{0, 64, 1<<17 - 4, 1<<32 - 1, 1<<63 - 1} {
			f.Add([]byte(string(rune(i))+word(a)+word(32)+word(a)+word(a)), byte(i))
			f.Add([]byte(string(rune(i))+word(7)+word(a)+word(64)+word(1<<31)), byte(i))
		}
	}
	f.Fuzz(func(t *testing.T, program []byte, kind byte) {
		m.cfg.Values = program[:min(len(program), 4096)]
		p, err := m.Definition().New(plugintest.NewHost(t))
		if err != nil {
			t.Fatal(err)
		}
		procs := []plugin.Process{&victim{mem: make([]byte, 4096)}}
		// An error or none, whichever: no panic is the test.
		_ = p.Handle(t.Context(), plugin.Event{Kind: plugin.Kind(kind%8) + 1, Generation: 1, Procs: procs, Outcome: &plugin.Figures{}})
		p.(*extension).reset()
	})
}
