package main

import (
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestScrub(t *testing.T) {
	h := sdktest.New(t, scrub{})
	h.Values = `{"variable": "TOKEN"}`
	h.Command = []string{"TOKEN=hush-hush"}
	h.Processes = []sdk.Process{{PID: 7}}
	const text = "..hush-hush..hush-hush"
	h.Fill(7, 4096, []byte(text))
	if err := h.Send(sdk.PreCheckpoint); err != nil {
		t.Fatal(err)
	}
	if got := string(h.Bytes(7, 4096, len(text))); got != "..\x00\x00\x00\x00\x00\x00\x00\x00\x00..\x00\x00\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("memory %q", got)
	}
	if err := h.Send(sdk.Resume); err != nil {
		t.Fatal(err)
	}
	if got := string(h.Bytes(7, 4096, len(text))); got != text {
		t.Errorf("memory %q, want %q", got, text)
	}
}
