package core

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestClaimFile(t *testing.T) {
	file := plugin.OpenFile{ID: 5, Link: "anon_inode:bpf-map", Refs: []plugin.FileRef{{PID: 12, FD: 3}}}
	st := newStage(t, time.Minute, "a", "b", "c")
	st.actors["a"].script["claim-file"] = fails(plugin.ErrNotMine)

	owner, err := st.ClaimFile(t.Context(), file)
	if owner != "b" || err != nil {
		t.Errorf("owner %q, %v", owner, err)
	}
	st.wantTape(t, "a:claim-file", "b:claim-file")

	st.actors["b"].script["claim-file"] = fails(plugin.Refuse(file, "busy"))
	_, err = st.ClaimFile(t.Context(), file)
	var refusal *plugin.RefusalError
	if !errors.As(err, &refusal) || refusal.Reason != "busy" || refusal.PID != 12 || refusal.FD != 3 {
		t.Errorf("error %v", err)
	}
	wantError(t, err, "plugin b: claim-file: pid 12 fd 3: anon_inode:bpf-map: busy")
	st.wantTape(t, "a:claim-file", "b:claim-file")

	for _, a := range st.actors {
		a.script["claim-file"] = fails(plugin.ErrNotMine)
	}
	_, err = st.ClaimFile(t.Context(), file)
	if refusal = nil; !errors.As(err, &refusal) {
		t.Errorf("error %v is no refusal", err)
	}
	wantError(t, err, "pid 12 fd 3: anon_inode:bpf-map: no plugin keeps this kind of object")
	st.wantTape(t, "a:claim-file", "b:claim-file", "c:claim-file")
}

func TestReopenFile(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b")
	fd, err := st.ReopenFile(t.Context(), "b", plugin.OpenFile{ID: 5})
	if fd != 105 || err != nil {
		t.Errorf("fd %d, %v", fd, err)
	}
	st.wantTape(t, "b:reopen-file")
	_, err = st.ReopenFile(t.Context(), "z", plugin.OpenFile{ID: 5, Link: "/x"})
	wantError(t, err, "open file 5 (/x)", "plugin z")
	_, err = st.ReopenFile(t.Context(), "b", plugin.OpenFile{ID: -101, Link: "/x"})
	wantError(t, err, "plugin b: reopen-file: /x: returned neither a descriptor nor an error")
	st.actors["b"].script["reopen-file"] = fails(plugin.ErrNotMine)
	_, err = st.ReopenFile(t.Context(), "b", plugin.OpenFile{ID: 5})
	wantError(t, err, "plugin b: reopen-file: not mine")
}

func TestClaimMap(t *testing.T) {
	self := plugintest.Self(t)
	st := newStage(t, time.Minute, "a", "b")
	a, b := st.actors["a"], st.actors["b"]
	a.script["claim-map"] = fails(plugin.ErrNotMine)
	b.policy = plugin.MapReopen
	owner, policy, err := st.ClaimMap(t.Context(), self, plugin.Mapping{})
	if owner != "b" || policy != plugin.MapReopen || err != nil {
		t.Errorf("%q, %d, %v", owner, policy, err)
	}
	if fd, err := st.ReopenMap(t.Context(), owner, self, plugin.Mapping{}); fd != 7 || err != nil {
		t.Errorf("fd %d, %v", fd, err)
	}
	st.wantTape(t, "a:claim-map", "b:claim-map", "b:reopen-map")

	b.policy = 0
	_, _, err = st.ClaimMap(t.Context(), self, plugin.Mapping{})
	wantError(t, err, "plugin b: claim-map: claimed a mapping with the unknown policy 0")
	b.script["claim-map"] = fails(plugin.ErrNotMine)
	if owner, policy, err := st.ClaimMap(t.Context(), self, plugin.Mapping{}); owner != "" || policy != 0 || err != nil {
		t.Errorf("nobody's: %q, %d, %v", owner, policy, err)
	}

	set := newSet(t, time.Minute, io.Discard, plugin.Definition{
		Name: "c", New: func(plugin.Host) (plugin.Plugin, error) { return noReopen{}, nil },
	})
	_, _, err = set.ClaimMap(t.Context(), self, plugin.Mapping{})
	wantError(t, err, "has no ReopenMap")
	_, err = set.ReopenMap(t.Context(), "c", self, plugin.Mapping{})
	wantError(t, err, "has no ReopenMap")
}

func TestProcessSavers(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b", "c")
	self := plugintest.Self(t)
	if err := st.SaveProcess(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	st.wantTape(t, "a:save-process", "b:save-process", "c:save-process")
	if err := st.RestoreProcess(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	st.wantTape(t, "c:restore-process", "b:restore-process", "a:restore-process")
	st.actors["b"].script["save-process"] = fails(errors.New("no timers"))
	wantError(t, st.SaveProcess(t.Context(), self), "plugin b: save-process: no timers")
	st.wantTape(t, "a:save-process", "b:save-process")
}
