package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/plugin"
)

// agent is an agent of one process, whose memory is one page.
type agent struct{ refuse *plugin.RefusalError }

func (h *agent) Checkpoint(ctx context.Context, order coord.Order) (coord.AgentResult, error) {
	if h.refuse != nil {
		return coord.AgentResult{}, h.refuse
	}
	w, err := image.Create(order.Dir, image.Options{Stripes: 1})
	if err != nil {
		return coord.AgentResult{}, err
	}
	defer w.Abort()
	page := bytes.Repeat([]byte{1}, os.Getpagesize())
	if err := errors.Join(w.Section("file", 1, []byte(`{}`)), w.PageWriter(0).Write(0, 0, page)); err != nil {
		return coord.AgentResult{}, err
	}
	s, err := w.Close(ctx)
	return coord.AgentResult{
		Files: s.Files, Bytes: s.Bytes, RawBytes: s.RawBytes, Pause: time.Millisecond, Processes: 1, Threads: 1,
	}, err
}

func (h *agent) Finish(context.Context, coord.Order, bool, string) error { return nil }

func (h *agent) Status(context.Context) (coord.AgentStatus, error) {
	return coord.AgentStatus{ID: "0", Processes: []coord.ProcessStatus{{PID: 10, HostPID: 40, Threads: 1, Command: "work"}}}, nil
}

func (h *agent) Check(context.Context) ([]coord.Refusal, error) {
	if h.refuse != nil {
		return []coord.Refusal{*h.refuse}, nil
	}
	return nil, nil
}

func (h *agent) Kill(context.Context, syscall.Signal) error { return nil }

// startComputation runs a coordinator and its agent under name; images go to
// dir.
func startComputation(t *testing.T, dir, name string, h *agent) {
	t.Helper()
	store, err := image.OpenStore(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	server, err := coord.Listen(coord.Config{
		Name: name, Computation: strings.Repeat("ab", 16), Store: store, Keep: 2, Log: zerolog.Nop(),
		Manifest: func() image.Manifest {
			return image.Manifest{Command: []string{"work", "hard"}, Arch: "amd64", Uid: os.Geteuid()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background()) }()
	member, err := coord.Join(t.Context(), server.Addr(), coord.Hello{ID: "0", Host: "here", PID: os.Getpid()}, h, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		member.Close()
		<-member.Done()
		server.Close()
		<-served
	})
}

// hiatus runs a command line as a user would, with a fake engine.
func hiatus(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := fakeEngine()
	e.Running = coord.ListRunning
	code = run(e, args, os.Stdin, &out, &errs)
	return code, out.String(), errs.String()
}

// privateWorld gives the test a runtime directory and a working directory.
func privateWorld(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Chdir(dir)
	return dir
}

// The commands against a real coordinator and a real image.
func TestComputation(t *testing.T) {
	dir := privateWorld(t)
	startComputation(t, dir, "sim", &agent{})

	steps := []struct {
		args []string
		want []string // in stdout
	}{
		{[]string{"check"}, nil},
		{[]string{"checkpoint"}, []string{filepath.Join(dir, "sim", "00001") + "\n", "1ms\n", "1 process, 1 thread\n"}},
		{[]string{"interval", "sim", "1h"}, nil},
		{[]string{"list"}, []string{"sim", "running", "1h0m0s", "work\n"}},
		{[]string{"status", "sim"}, []string{"1h0m0s\n", "40", "0 on here", "work\n"}},
		{[]string{"verify", "."}, []string{"00001 is whole"}},
		{[]string{"inspect", "."}, []string{"work hard\n", "file", "4.0 KiB"}},
		{[]string{"kill", "--signal", "TERM"}, nil},
	}
	for _, s := range steps {
		t.Run(strings.Join(s.args, " "), func(t *testing.T) {
			code, out, errs := hiatus(t, s.args...)
			if code != 0 || errs != "" {
				t.Fatalf("code %d, stderr %q", code, errs)
			}
			for _, want := range s.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
	for _, args := range [][]string{
		{"checkpoint", "sim"}, {"list"}, {"status"}, {"check"}, {"verify", "sim"}, {"inspect", "sim/00001"},
	} {
		t.Run("json "+strings.Join(args, " "), func(t *testing.T) {
			code, out, errs := hiatus(t, append(args, "--json")...)
			if code != 0 || errs != "" || !json.Valid([]byte(out)) {
				t.Errorf("code %d, stderr %q, stdout:\n%s", code, errs, out)
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		gen, err := resolveGeneration(".", 1)
		if want := filepath.Join(dir, "sim", "00001"); err != nil || gen != want {
			t.Errorf("%q, %v; want %q", gen, err, want)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		pages := filepath.Join(dir, "sim", "00002", "agent-0", "pages.0")
		data, err := os.ReadFile(pages)
		if err != nil {
			t.Fatal(err)
		}
		data[7] ^= 1
		if err := os.WriteFile(pages, data, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := hiatus(t, "verify", "sim", "--json")
		if code != 1 || !strings.Contains(errs, pages) || !strings.Contains(out, `"ok": false`) {
			t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
		}
		if code, _, errs := hiatus(t, "verify", "sim", "--generation", "1"); code != 0 {
			t.Errorf("generation 1: code %d, stderr %q", code, errs)
		}
	})
}

func TestComputationRefuses(t *testing.T) {
	dir := privateWorld(t)
	startComputation(t, dir, "sim", &agent{refuse: &plugin.RefusalError{PID: 10, FD: 3, Object: "socket:[1]", Reason: "peer is outside"}})
	code, _, errs := hiatus(t, "checkpoint")
	if want := "hiatus: checkpoint refused; the program runs on\npid 10 fd 3: socket:[1]: peer is outside\n"; code != 1 || errs != want {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	if code, out, _ := hiatus(t, "check"); code != 1 || out != "pid 10 fd 3: socket:[1]: peer is outside\n" {
		t.Errorf("code %d, stdout %q", code, out)
	}
}

func TestSeveralComputations(t *testing.T) {
	dir := privateWorld(t)
	startComputation(t, dir, "one", &agent{})
	startComputation(t, dir, "two", &agent{})
	code, _, errs := hiatus(t, "checkpoint")
	if code != 1 || !strings.Contains(errs, "one, two") {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	if code, _, errs := hiatus(t, "checkpoint", "two"); code != 0 {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	if code, out, _ := hiatus(t, "__complete", "status", ""); code != 0 || !strings.HasPrefix(out, "one\ntwo\n") {
		t.Errorf("code %d, stdout %q", code, out)
	}
	a := &app{engine: fakeEngine()}
	a.engine.Running = coord.ListRunning
	if got := a.freeName(t.Context(), t.TempDir(), "two"); got != "two-2" {
		t.Errorf("free name %q, want two-2", got)
	}
}
