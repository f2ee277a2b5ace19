package core

import (
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/proc"
)

// A description that no process has, as one in flight in a socket, has no number.
func TestIgnoredOwnerOfHeldFile(t *testing.T) {
	r := &restart{state: &proc.State{Files: []proc.FileState{{Owner: "file", Link: "/a", Held: true}}},
		o: RestartOptions{Ignore: []string{"file"}}}
	if err := r.checkOwners(); err == nil || !strings.Contains(err.Error(), "plugin file cannot be ignored") {
		t.Errorf("%v: want that the plugin cannot be ignored", err)
	}
}
