// Package sdktest runs an extension in a unit test, natively: the test is the
// host.
package sdktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// Host is a fake host of one extension. Fields may be set before an event and
// looked at behind it.
type Host struct {
	Values    string                  // configuration, JSON; "" is {}
	State     []byte                  // committed
	Processes []abi.Process           // of the next event
	Figures   abi.Figures             // of the next outcome
	Memory    map[int]map[uint64]byte // by pid and address
	Mappings  map[int][]abi.Mapping
	Environ   map[int][]string // of processes
	Command   []string         // environment of the command that launched or restarts
	OpenFiles []abi.File
	Kept      map[abi.FDRef][]byte // bytes of owned descriptors
	OnRun     func(abi.Command) (abi.CommandResult, error)
	OnRequest func(abi.Request) (abi.Response, error)

	// What the extension did.
	Logged   []string
	Kinds    []sdk.Kind
	Summary  string
	Barriers []string
	Passed   []string // barriers, in order
	Marks    []abi.Mark
	Owned    []abi.Own
	Reopened map[abi.FDRef]abi.Reopen
	Changes  map[int][]abi.EnvChange
	Paths    [][2]string
	Stopped  int // milliseconds that KeepStopped asked for

	t         testing.TB
	p         sdk.Plugin
	kind      sdk.Kind
	written   []byte
	isWritten bool
	reason    string
	last      string
	answer    []byte
	pending   map[string][]byte
	published map[string][]byte
}

// New makes the host of p and runs its init. Tests that use a host must not
// run in parallel.
func New(t testing.TB, p sdk.Plugin) *Host {
	h := &Host{t: t, p: p, Memory: map[int]map[uint64]byte{}, Mappings: map[int][]abi.Mapping{}, Environ: map[int][]string{},
		Kept: map[abi.FDRef][]byte{}, Reopened: map[abi.FDRef]abi.Reopen{}, Changes: map[int][]abi.EnvChange{},
		pending: map[string][]byte{}, published: map[string][]byte{}}
	old := sdk.SetBackend(h)
	t.Cleanup(func() { sdk.SetBackend(old) })
	if code := sdk.CallInit(p); code == abi.Failed {
		t.Fatalf("init: %s", h.reason)
	}
	return h
}

// Send sends an event, if the extension wants it, and returns how it failed.
func (h *Host) Send(kind sdk.Kind) error {
	h.t.Helper()
	if !slices.Contains(h.Kinds, kind) {
		return nil
	}
	h.kind, h.reason = kind, ""
	defer func() { h.kind = 0 }()
	if code := sdk.CallEvent(h.p, kind); code == abi.Failed {
		return errors.New(h.reason)
	}
	return nil
}

// Checkpoint sends the events of a checkpoint that is committed.
func (h *Host) Checkpoint() error {
	for _, k := range []sdk.Kind{sdk.PreSuspend, sdk.PreCheckpoint, sdk.Resume} {
		if err := h.Send(k); err != nil {
			return err
		}
	}
	h.Figures.Committed = true
	err := h.Send(sdk.Outcome)
	if err == nil && h.isWritten {
		h.State = h.written
	}
	h.written, h.isWritten = nil, false
	return err
}

// Restart sends the events of a restart.
func (h *Host) Restart() error {
	if err := h.Send(sdk.Restart); err != nil {
		return err
	}
	return h.Send(sdk.Running)
}

func (h *Host) fault(code int32, format string, args ...any) int32 {
	h.last = fmt.Sprintf(format, args...)
	return code
}

func give(buf, data []byte) int32 {
	if len(data) <= len(buf) {
		copy(buf, data)
	}
	return int32(len(data))
}

func (h *Host) giveJSON(buf []byte, v any) int32 {
	data, err := json.Marshal(v)
	if err != nil {
		h.t.Fatal(err)
	}
	return give(buf, data)
}

func (h *Host) decode(data []byte, dst any) int32 {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return h.fault(abi.ErrInvalid, "%v", err)
	}
	return abi.OK
}

// Event and the other methods implement sdk.Backend.
func (h *Host) Event(buf []byte) int32 {
	ev := abi.Event{Kind: h.kind.String(), Generation: 1, Processes: h.Processes}
	if h.kind == sdk.Outcome {
		ev.Outcome = &h.Figures
	}
	return h.giveJSON(buf, ev)
}

func (h *Host) StateRead(buf []byte) int32 {
	if h.isWritten {
		return give(buf, h.written)
	}
	return give(buf, h.State)
}

func (h *Host) StateWrite(state []byte) int32 {
	h.written, h.isWritten = slices.Clone(state), true
	return abi.OK
}

func (h *Host) Log(level int32, text []byte) {
	h.Logged = append(h.Logged, string(text))
	h.t.Logf("log %d: %s", level, text)
}

func (h *Host) Subscribe(kind uint32) int32 {
	h.Kinds = append(h.Kinds, sdk.Kind(kind))
	return abi.OK
}

func (h *Host) Fail(reason []byte)            { h.reason = string(reason) }
func (h *Host) Describe(summary []byte) int32 { h.Summary = string(summary); return abi.OK }
func (h *Host) Features(buf []byte) int32     { return give(buf, nil) }
func (h *Host) LastError(buf []byte) int32    { return give(buf, []byte(h.last)) }
func (h *Host) Declare(name []byte) int32 {
	h.Barriers = append(h.Barriers, string(name))
	return abi.OK
}
func (h *Host) EnvOwn(buf []byte) int32       { return give(buf, join(h.Command)) }
func (h *Host) Files(buf []byte) int32        { return h.giveJSON(buf, h.OpenFiles) }
func (h *Host) RunResult(buf []byte) int32    { return give(buf, h.answer) }
func (h *Host) Response(buf []byte) int32     { return give(buf, h.answer) }
func (h *Host) Keep(milliseconds int32) int32 { h.Stopped += int(milliseconds); return abi.OK }
func (h *Host) MapPath(from, to []byte) int32 {
	h.Paths = append(h.Paths, [2]string{string(from), string(to)})
	return abi.OK
}
func (h *Host) Maps(pid int32, buf []byte) int32 { return h.giveJSON(buf, h.Mappings[int(pid)]) }

func (h *Host) EnvProcess(pid int32, buf []byte) int32 {
	return give(buf, join(h.Environ[int(pid)]))
}

func join(list []string) []byte {
	if len(list) == 0 {
		return nil
	}
	return []byte(strings.Join(list, "\x00") + "\x00")
}

func (h *Host) Barrier(name []byte) int32 {
	if !slices.Contains(h.Barriers, string(name)) {
		return h.fault(abi.ErrFailed, "barrier %q was not declared", name)
	}
	h.Passed = append(h.Passed, string(name))
	for k, v := range h.pending {
		h.published[k] = v
	}
	clear(h.pending)
	return abi.OK
}

func (h *Host) Publish(key, value []byte) int32 {
	h.pending[string(key)] = slices.Clone(value)
	return abi.OK
}

func (h *Host) Lookup(key, buf []byte) int32 {
	value, ok := h.published[string(key)]
	if !ok {
		return h.fault(abi.ErrNotFound, "nothing was published under %q before the last barrier", key)
	}
	return give(buf, value)
}

// SetConfig is what the extension reads as its configuration.
func (h *Host) SetConfig(object string) { h.Values = object }

// Fill puts bytes into the memory of a process, with a mapping of their own.
func (h *Host) Fill(pid int, addr uint64, data []byte) {
	if h.Memory[pid] == nil {
		h.Memory[pid] = map[uint64]byte{}
	}
	for i, b := range data {
		h.Memory[pid][addr+uint64(i)] = b
	}
	h.Mappings[pid] = append(h.Mappings[pid], abi.Mapping{Start: addr, End: addr + uint64(len(data)), Perms: "rw-p"})
}

// Bytes returns memory of a process.
func (h *Host) Bytes(pid int, addr uint64, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = h.Memory[pid][addr+uint64(i)]
	}
	return out
}

func (h *Host) Read(pid int32, addr uint64, buf []byte) int32 {
	for i := range buf {
		b, ok := h.Memory[int(pid)][addr+uint64(i)]
		if !ok {
			return h.fault(abi.ErrFailed, "pid %d: no memory at %#x", pid, addr)
		}
		buf[i] = b
	}
	return abi.OK
}

func (h *Host) Write(pid int32, addr uint64, data []byte) int32 {
	if code := h.Read(pid, addr, make([]byte, len(data))); code != abi.OK {
		return code
	}
	for i, b := range data {
		h.Memory[int(pid)][addr+uint64(i)] = b
	}
	return abi.OK
}

func (h *Host) Run(cmd []byte) int32 {
	var c abi.Command
	if code := h.decode(cmd, &c); code != abi.OK {
		return code
	}
	if h.OnRun == nil {
		return h.fault(abi.ErrNotAllowed, "the test runs no programs")
	}
	result, err := h.OnRun(c)
	return h.keep(result, err)
}

func (h *Host) Request(r []byte) int32 {
	var req abi.Request
	if code := h.decode(r, &req); code != abi.OK {
		return code
	}
	if h.OnRequest == nil {
		return h.fault(abi.ErrNotAllowed, "the test answers no requests")
	}
	response, err := h.OnRequest(req)
	return h.keep(response, err)
}

func (h *Host) keep(answer any, err error) int32 {
	if err != nil {
		return h.fault(abi.ErrFailed, "%v", err)
	}
	if h.answer, err = json.Marshal(answer); err != nil {
		h.t.Fatal(err)
	}
	return int32(len(h.answer))
}

func (h *Host) EnvChange(pid int32, changes []byte) int32 {
	var list []abi.EnvChange
	if code := h.decode(changes, &list); code != abi.OK {
		return code
	}
	h.Changes[int(pid)] = append(h.Changes[int(pid)], list...)
	return abi.OK
}

func (h *Host) Mark(mark []byte) int32 {
	var m abi.Mark
	if code := h.decode(mark, &m); code != abi.OK {
		return code
	}
	h.Marks = append(h.Marks, m)
	return abi.OK
}

func (h *Host) Own(own []byte) int32 {
	var o abi.Own
	if code := h.decode(own, &o); code != abi.OK {
		return code
	}
	h.Owned = append(h.Owned, o)
	h.Kept[abi.FDRef{PID: o.PID, FD: o.FD}] = o.Bytes
	return abi.OK
}

func (h *Host) Saved(pid, fd int32, buf []byte) int32 {
	return give(buf, h.Kept[abi.FDRef{PID: int(pid), FD: int(fd)}])
}

func (h *Host) Config(buf []byte) int32 {
	if h.Values == "" {
		return give(buf, []byte("{}"))
	}
	return give(buf, []byte(h.Values))
}

func (h *Host) Reopen(pid, fd int32, r []byte) int32 {
	var reopen abi.Reopen
	if code := h.decode(r, &reopen); code != abi.OK {
		return code
	}
	h.Reopened[abi.FDRef{PID: int(pid), FD: int(fd)}] = reopen
	return abi.OK
}

var _ sdk.Backend = (*Host)(nil)
