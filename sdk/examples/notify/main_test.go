package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestNotify(t *testing.T) {
	h := sdktest.New(t, notify{})
	h.Values = `{"url": "http://localhost:1/hook", "command": ["/bin/tell", "me"]}`
	h.Figures.Bytes = 4711
	var posts, runs []string
	h.OnRequest = func(r sdk.Request) (sdk.Response, error) {
		posts = append(posts, string(r.Body))
		return sdk.Response{Status: 200}, nil
	}
	h.OnRun = func(c sdk.Command) (sdk.CommandResult, error) {
		runs = append(runs, string(c.Stdin))
		return sdk.CommandResult{}, errors.New("gone")
	}
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if len(posts) != 2 || len(runs) != 2 || !strings.Contains(posts[0], `"presuspend"`) || !strings.Contains(posts[1], `"bytes":4711`) {
		t.Errorf("posts %q, runs %q", posts, runs)
	}
	if len(h.Logged) != 2 || !strings.Contains(h.Logged[0], "gone") {
		t.Errorf("logged %q", h.Logged)
	}
}
