package main

import (
	"slices"
	"testing"

	"github.com/hiatus-project/hiatus/core/coord"
)

// TestRefusedLater: an object is listed once, with what was found of it last; what is gone
// by then stays listed, for it is why the checkpoint was refused.
func TestRefusedLater(t *testing.T) {
	files := func(reason string) coord.Refusal {
		return coord.Refusal{PID: 1, FD: -1, Object: "the open files of all processes", Reason: reason}
	}
	passing := coord.Refusal{PID: 1, FD: 7, Object: "socket", Reason: "connecting"}
	other := coord.Refusal{PID: 1, FD: 8, Object: "socket", Reason: "raw"}
	got := refusedLater([]coord.Refusal{passing, files("284 of them")}, []coord.Refusal{other, files("285 of them")})
	want := []coord.Refusal{passing, other, files("285 of them")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
