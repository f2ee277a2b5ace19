package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/plugin"
)

// fakeClient is a running computation.
type fakeClient struct {
	result   coord.CheckpointResult
	err      error
	status   coord.Status
	found    []coord.Refusal
	request  coord.CheckpointRequest
	signal   syscall.Signal
	interval time.Duration
	closed   bool
	awaited  bool // its end
}

func (c *fakeClient) Checkpoint(_ context.Context, r coord.CheckpointRequest, progress func(coord.Progress)) (coord.CheckpointResult, error) {
	c.request = r
	progress(coord.Progress{Done: 1, Total: 2})
	return c.result, c.err
}
func (c *fakeClient) Status(context.Context) (coord.Status, error)     { return c.status, c.err }
func (c *fakeClient) Check(context.Context) ([]coord.Refusal, error)   { return c.found, nil }
func (c *fakeClient) Kill(_ context.Context, sig syscall.Signal) error { c.signal = sig; return c.err }
func (c *fakeClient) SetInterval(_ context.Context, d time.Duration) error {
	c.interval = d
	return c.err
}
func (c *fakeClient) Ended(context.Context) error { c.awaited = true; return nil }
func (c *fakeClient) Close() error                { c.closed = true; return nil }

// command runs one command line against c, the computation sim.
func command(t *testing.T, c *fakeClient, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	e := fakeEngine()
	e.Dial = func(_ context.Context, name string) (client, error) {
		if name != "sim" && name != "" {
			return nil, fmt.Errorf("%s: %w", name, coord.ErrNotRunning)
		}
		return c, nil
	}
	var out, errs bytes.Buffer
	code = run(e, args, os.Stdin, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCheckpoint(t *testing.T) {
	result := coord.CheckpointResult{
		Name: "sim", Generation: 3, Path: "/ckpt/sim/00003", Bytes: 3 << 20, RawBytes: 5 << 20,
		Pause: 41234 * time.Microsecond, Total: 1234567 * time.Microsecond, Processes: 2, Threads: 9,
	}
	t.Run("text", func(t *testing.T) {
		c := &fakeClient{result: result}
		code, out, errs := command(t, c, "checkpoint", "--kill", "--timeout", "5m")
		if code != 0 || errs != "" {
			t.Fatalf("code %d, stderr %q", code, errs)
		}
		for _, want := range []string{"/ckpt/sim/00003\n", "3.0 MiB, of 5.0 MiB\n", "41ms\n", "1.23s\n", "2 processes, 9 threads\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if !c.request.Kill || c.request.Timeout != 5*time.Minute || !c.awaited || !c.closed {
			t.Errorf("request %+v, awaited %v, closed %v", c.request, c.awaited, c.closed)
		}
	})
	t.Run("json", func(t *testing.T) {
		code, out, _ := command(t, &fakeClient{result: result}, "checkpoint", "sim", "--json")
		var got coord.CheckpointResult
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got.Path != result.Path {
			t.Errorf("code %d, %v, %+v", code, err, got)
		}
	})
	t.Run("timeout from the environment", func(t *testing.T) {
		t.Setenv("HIATUS_TIMEOUT", "7s")
		c := &fakeClient{result: result}
		if code, _, errs := command(t, c, "checkpoint"); code != 0 || c.request.Timeout != 7*time.Second {
			t.Errorf("code %d, timeout %v, stderr %q", code, c.request.Timeout, errs)
		}
	})
	t.Run("failure", func(t *testing.T) {
		code, out, errs := command(t, &fakeClient{err: errors.New("disk full")}, "checkpoint")
		if code != 1 || out != "" || errs != "hiatus: disk full\n" {
			t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
		}
	})
}

func TestCheckpointRefused(t *testing.T) {
	first := plugin.RefusalError{PID: 7, FD: 3, Object: "socket:[1]", Reason: "peer is outside"}
	second := plugin.RefusalError{PID: 8, FD: -1, Object: "io_uring\x1b", Reason: "not kept"}
	c := &fakeClient{
		err:   fmt.Errorf("given up: %w", errors.Join(coord.ErrGivenUp, &first)),
		found: []coord.Refusal{first, second},
	}
	lines := "pid 7 fd 3: socket:[1]: peer is outside\npid 8: io_uring?: not kept\n"

	code, out, errs := command(t, c, "checkpoint")
	if want := "hiatus: checkpoint refused; the program runs on\n" + lines; code != 1 || out != "" || errs != want {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}

	code, out, _ = command(t, c, "checkpoint", "--json")
	var got struct {
		Error    string
		Refusals []coord.Refusal
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || len(got.Refusals) != 2 || got.Error == "" {
		t.Errorf("code %d, %v, %+v", code, err, got)
	}

	code, out, errs = command(t, c, "check", "sim")
	if code != 1 || out != lines || errs != "" {
		t.Errorf("check: code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestCheckFindsNothing(t *testing.T) {
	if code, out, errs := command(t, &fakeClient{}, "check"); code != 0 || out != "" || errs != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	if code, out, _ := command(t, &fakeClient{}, "check", "--json"); code != 0 || out != "[]\n" {
		t.Errorf("code %d, stdout %q", code, out)
	}
}

func TestStatus(t *testing.T) {
	c := &fakeClient{status: coord.Status{
		Name: "sim", State: coord.StateRunning, Dir: "/ckpt", Generations: []uint64{2, 3}, Interval: time.Hour,
		LastPause: 12 * time.Millisecond, LastTotal: 2 * time.Second, LastBytes: 1 << 20, LastTime: time.Now(),
		LastTimings: []coord.Timing{
			{Plugin: "file", Phase: "save", Took: 2 * time.Millisecond}, {Plugin: "event", Phase: "save", Took: 10},
			{Plugin: "file", Phase: "claim-file", Took: 30 * time.Millisecond},
		},
		Agents: []coord.AgentStatus{{
			ID: "agent-0", Host: "here", PID: 40, Plugins: []string{"file", "event"},
			Processes: []coord.ProcessStatus{
				{PID: 10, PPID: 1, HostPID: 4010, Threads: 3, State: "S", Command: "sh -c \x1b[2J"},
				{PID: 11, PPID: 10, HostPID: 4011, Threads: 1, State: "R", Command: "work"},
			},
		}},
	}}
	code, out, errs := command(t, c, "status")
	if code != 0 || errs != "" {
		t.Fatalf("code %d, stderr %q", code, errs)
	}
	for _, want := range []string{"2, 3\n", "1h0m0s\n", "pause 12ms", "file, event\n", "file    32ms  claim-file 30ms, save 2ms\n", "event   0s    \n", "2 processes, 4 threads\n", "4010", "sh -c ?[2J\n", "work\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	code, out, _ = command(t, c, "status", "sim", "--json")
	var got coord.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got.Agents[0].Processes[1].HostPID != 4011 || len(got.LastTimings) != 3 {
		t.Errorf("code %d, %v, %s", code, err, out)
	}
}

func TestKillAndInterval(t *testing.T) {
	c := &fakeClient{}
	if code, _, errs := command(t, c, "kill"); code != 0 || c.signal != syscall.SIGKILL || !c.awaited {
		t.Errorf("code %d, signal %v, stderr %q", code, c.signal, errs)
	}
	if code, _, errs := command(t, c, "kill", "sim", "--signal", "TERM"); code != 0 || c.signal != syscall.SIGTERM {
		t.Errorf("code %d, signal %v, stderr %q", code, c.signal, errs)
	}
	c.err = fmt.Errorf("agent 0: %w", coord.ErrConnectionLost)
	if code, _, errs := command(t, c, "kill", "sim"); code != 0 {
		t.Errorf("ended before the answer: code %d, stderr %q", code, errs)
	}
	c.err = nil
	if code, _, errs := command(t, c, "interval", "sim", "90s"); code != 0 || c.interval != 90*time.Second {
		t.Errorf("code %d, interval %v, stderr %q", code, c.interval, errs)
	}
	if code, _, errs := command(t, c, "interval", "sim", "0"); code != 0 || c.interval != 0 {
		t.Errorf("code %d, interval %v, stderr %q", code, c.interval, errs)
	}
	if code, _, _ := command(t, c, "kill", "nosuch"); code != 1 {
		t.Errorf("code %d, want 1", code)
	}
}

func TestSuggestions(t *testing.T) {
	for word, want := range map[string]string{
		"bogus":  `unknown command "bogus" for "hiatus"; did you mean logs?`,
		"ch":     `unknown command "ch" for "hiatus"; did you mean checkpoint or check?`,
		"foobar": `unknown command "foobar" for "hiatus"`,
	} {
		code, _, errs := command(t, &fakeClient{}, word)
		if first, _, _ := strings.Cut(errs, "\n"); code != exitUsage || first != "hiatus: "+want {
			t.Errorf("code %d, stderr %q, want %q", code, errs, want)
		}
	}
}
