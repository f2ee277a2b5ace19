package image

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMarkRestarted(t *testing.T) {
	s := newStore(t)
	dir := commit(t, s, 1, testComputation)
	if WasRestarted(dir) {
		t.Error("it was not")
	}
	one, two := must[*os.File](t)(MarkRestarted(dir)), must[*os.File](t)(MarkRestarted(dir))
	for _, mark := range []*os.File{one, two} {
		if WasRestarted(dir) {
			t.Error("what was restarted has not ended")
		}
		check(t, mark.Close())
	}
	if !WasRestarted(dir) {
		t.Error("it was")
	}
	must[*Manifest](t)(ReadManifest(dir))

	// Set aside, as by a Prune that was killed, it goes with the rest.
	tmp := filepath.Join(s.Path(), tmpName(1))
	check(t, os.Rename(dir, tmp))
	must[*Pending](t)(s.Begin(2))
	if _, err := os.Stat(tmp); !os.IsNotExist(err) {
		t.Errorf("what was set aside is there: %v", err)
	}
}

// TestMarkRestartedFollowsNoLink marks where another user may have put a link.
func TestMarkRestartedFollowsNoLink(t *testing.T) {
	s := newStore(t)
	dir := commit(t, s, 1, testComputation)
	victim := filepath.Join(t.TempDir(), "victim")
	check(t, os.Symlink(victim, filepath.Join(dir, restartedFile)))
	if _, err := MarkRestarted(dir); err == nil {
		t.Error("a link was marked")
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the link was followed")
	}
	if WasRestarted(dir) {
		t.Error("a link is no mark")
	}
}
