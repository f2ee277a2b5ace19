package coord

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// The newest image of an agent that was lost stays, whatever the others make; not that of
// one whose tree has ended.
func TestLostAgent(t *testing.T) {
	s := startServer(t, testConfig(t)) // keeps 2
	startAgent(t, s, hello("a"), nil)
	lost, ended := startAgent(t, s, hello("lost"), nil), startAgent(t, s, hello("ended"), nil)
	c := startClient(t, s)
	checkpoint := func() {
		t.Helper()
		if _, err := c.Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(a *testAgent, end func()) {
		t.Helper()
		end()
		for slices.ContainsFunc(s.list(), func(m *member) bool { return m.hello.ID == a.member.Welcome().ID }) {
			time.Sleep(time.Millisecond)
		}
		checkpoint()
	}
	checkpoint()
	gone(ended, func() { ended.member.Close() })
	gone(lost, func() { lost.member.conn.abort(errors.New("killed")) })
	for range 3 {
		checkpoint()
	}
	gens, err := s.cfg.Store.Generations()
	if err != nil || !slices.Equal(gens, []uint64{2, 5, 6}) {
		t.Errorf("generations %v (%v), want the lost agent's 2, and 5 and 6", gens, err)
	}
}
