package main

import (
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestLicense(t *testing.T) {
	h := sdktest.New(t, license{})
	h.Values = `{"server": "http://localhost:1/"}`
	var calls []string
	status := 204
	h.OnRequest = func(r sdk.Request) (sdk.Response, error) {
		calls = append(calls, r.URL[strings.LastIndexByte(r.URL, '/'):])
		return sdk.Response{Status: status}, nil
	}
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(calls, ""); got != "/release/take/take" {
		t.Errorf("calls %s", got)
	}
	status = 409
	if err := h.Restart(); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("error %v, want the status", err)
	}
}
