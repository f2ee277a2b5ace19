package main

import (
	"slices"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestFilePolicy(t *testing.T) {
	h := sdktest.New(t, filepolicy{})
	h.Values = `{"rules": [
		{"pattern": "/tmp/keep.*", "action": "leave"},
		{"pattern": "*.log", "action": "skip"},
		{"pattern": "/tmp/*", "action": "replace", "path": "/new/*"}]}`
	h.OpenFiles = []sdk.File{
		{PID: 1, FD: 3, Type: "file", Link: "/tmp/keep.log"},
		{PID: 1, FD: 4, Type: "file", Link: "/var/x/a.log"},
		{PID: 1, FD: 5, Type: "file", Link: "/tmp/d/data"},
		{PID: 1, FD: 6, Type: "fifo", Link: "/tmp/fifo"},
		{PID: 1, FD: 7, Type: "file", Link: "/etc/passwd"},
	}
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	want := []sdk.Mark{{PID: 1, FD: 4, Action: "skip"}, {PID: 1, FD: 5, Action: "replace", Path: "/new/data"}}
	if !slices.Equal(h.Marks, want) {
		t.Errorf("marks %+v, want %+v", h.Marks, want)
	}
}
