package main

import (
	"testing"

	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestExampleDB(t *testing.T) {
	h := sdktest.New(t, exampledb{})
	h.Values = `{"key": "a", "value": "host-a:1", "peer": "a"}`
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := h.Changes[0]; len(got) != 1 || *got[0].Value != "host-a:1" {
		t.Errorf("changes %+v", got)
	}
	// The image has them too.
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	h.Values = `{"value": "host-b:2"}`
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := h.Changes[0]; *got[len(got)-1].Value != "host-b:2" {
		t.Errorf("changes %+v", got)
	}
	h.Values = `{"key": "a", "value": "x", "peer": "nobody"}`
	if h.Restart() == nil {
		t.Error("a peer that nobody published was found")
	}
}
