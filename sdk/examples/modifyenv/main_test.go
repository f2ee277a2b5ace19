package main

import (
	"testing"

	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestModifyEnv(t *testing.T) {
	h := sdktest.New(t, modifyenv{})
	h.Command = []string{"HOME=/home/me", "HOST=two"}
	h.Values = `{"env": "# new place\nPLAIN=a b\nGONE\nFROM=$HOME/x-${HOST}!$NONE.\nQ=\"a # \\\"b\\n\" # said\n\nEMPTY=\n"}`
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	want := []struct{ name, value string }{{"PLAIN", "a b"}, {"GONE", "-"}, {"FROM", "/home/me/x-two!."}, {"Q", "a # \"b\n"}, {"EMPTY", ""}}
	got := h.Changes[0]
	if len(got) != len(want) {
		t.Fatalf("%d changes, want %d", len(got), len(want))
	}
	for i, w := range want {
		value := "-"
		if got[i].Value != nil {
			value = *got[i].Value
		}
		if got[i].Name != w.name || value != w.value {
			t.Errorf("change %d: %s=%q, want %s=%q", i, got[i].Name, value, w.name, w.value)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, text := range []string{`{"env": "=x"}`, `{"env": "A=\"x"}`, `{"env": "A=x\\"}`, `{"env": "A B"}`, `{"enw": ""}`} {
		h := sdktest.New(t, modifyenv{})
		h.Values = text
		if h.Restart() == nil {
			t.Errorf("%s: no error", text)
		}
	}
}
