package main

import (
	"slices"
	"testing"

	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestRelocate(t *testing.T) {
	h := sdktest.New(t, relocate{})
	h.Values = `{"moved": [{"from": "/data/run", "to": "/scratch"}, {"from": "/data", "to": "/archive"}]}`
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if want := [][2]string{{"/data/run", "/scratch"}, {"/data", "/archive"}}; !slices.Equal(h.Paths, want) {
		t.Errorf("paths %q, want %q", h.Paths, want)
	}
}
