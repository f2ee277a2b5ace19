package main

import (
	"errors"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestGate(t *testing.T) {
	h := sdktest.New(t, gate{})
	h.Values = `{"url": "http://localhost/gate", "every": 7}`
	status, failure := 503, error(nil)
	h.OnRequest = func(r sdk.Request) (sdk.Response, error) {
		if r.URL != "http://localhost/gate" {
			t.Errorf("asks %s", r.URL)
		}
		return sdk.Response{Status: status}, failure
	}
	ask := func(want int) {
		t.Helper()
		h.Stopped = 0
		if err := h.Send(sdk.Running); err != nil {
			t.Fatal(err)
		}
		if h.Stopped != want {
			t.Errorf("stays stopped for %d ms, want %d", h.Stopped, want)
		}
	}
	ask(7)
	failure = errors.New("connection refused")
	ask(7)
	status, failure = 200, nil
	ask(0)
}
