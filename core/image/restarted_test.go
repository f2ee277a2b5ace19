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
	for range 2 {
		check(t, MarkRestarted(dir))
		if !WasRestarted(dir) {
			t.Error("it was")
		}
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
	_ = MarkRestarted(dir)
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the link was followed")
	}
	if WasRestarted(dir) {
		t.Error("a link is no mark")
	}
}

func TestUse(t *testing.T) {
	dir := commit(t, newStore(t), 1, testComputation)
	use := func(n int, want bool) *os.File {
		t.Helper()
		f, others, err := Use(dir, n)
		check(t, err)
		if others != want {
			t.Errorf("agent %d: others use it: %v", n, others)
		}
		return f
	}
	one := use(0, false)
	use(1, false).Close() // of the same restart
	two := use(0, true)
	check(t, one.Close())
	check(t, two.Close())
	use(0, false).Close()
}
