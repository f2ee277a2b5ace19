package main

import (
	"slices"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestRedirect(t *testing.T) {
	h := sdktest.New(t, redirect{})
	h.Values = `{"files": {"1": "/new/out"}}`
	h.OpenFiles = []sdk.File{{PID: 5, FD: 0, Link: "pipe:[1]"}, {PID: 5, FD: 1, Link: "pipe:[2]"}}
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if want := []sdk.Mark{{PID: 5, FD: 1, Action: "reopen", Path: "/new/out"}}; !slices.Equal(h.Marks, want) {
		t.Errorf("marks %+v, want %+v", h.Marks, want)
	}
}
