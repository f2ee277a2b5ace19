package coord

import (
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// numbered is an agent that leaves its id to the coordinator.
func numbered() Hello {
	h := hello("")
	h.Computation = testComputation
	return h
}

func TestNumberedAgents(t *testing.T) {
	cfg := testConfig(t)
	cfg.Interval = time.Hour
	s := startServer(t, cfg)
	a := startAgent(t, s, numbered(), nil)
	b := startAgent(t, s, numbered(), nil)
	startAgent(t, s, numbered(), nil)
	want := Welcome{ID: "1", Name: "job", Computation: testComputation, Dir: cfg.Store.Path(), Keep: 2, Interval: time.Hour}
	if got := b.member.Welcome(); got != want {
		t.Errorf("the second was told %+v, want %+v", got, want)
	}
	a.member.Close()
	<-a.member.Done()
	for len(s.list()) > 2 { // until the server has seen it
		alive(t, s)
	}
	if id := startAgent(t, s, numbered(), nil).member.Welcome().ID; id != "0" {
		t.Errorf("the next has id %s", id)
	}
	result, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
	if err != nil || result.Processes != 3*2 {
		t.Errorf("checkpoint %+v, %v", result, err)
	}
	s.SetInterval(2 * time.Hour)
	alive(t, s) // whose status comes behind on the same connection
	if got := b.member.Welcome().Interval; got != 2*time.Hour {
		t.Errorf("the interval is told as %v", got)
	}
}

// TestLostInRestart: an agent that is lost before it could say that its tree runs
// keeps no checkpoint of the others waiting.
func TestLostInRestart(t *testing.T) {
	for _, first := range []string{"lost", "restored"} {
		t.Run(first+" first", func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Restart, cfg.Agents = 7, 2
			s := startServer(t, cfg)
			h := hello("a")
			h.Restart = 7
			a := startAgent(t, s, h, nil)
			h.ID = "b"
			b := startAgent(t, s, h, nil)
			lose := func() {
				b.member.conn.abort(net.ErrClosed) // as if it was killed
				for len(s.list()) > 1 {
					alive(t, s)
				}
			}
			if first == "lost" {
				lose()
			}
			if err := a.member.Restored(t.Context()); err != nil {
				t.Fatal(err)
			}
			if first == "restored" {
				lose()
			}
			if _, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestJoinRestart: who takes part in a restart, and that checkpoints begin when
// all trees run.
func TestJoinRestart(t *testing.T) {
	cfg := testConfig(t)
	cfg.Restart, cfg.Agents = 7, 2
	s := startServer(t, cfg)
	join := func(id string, generation uint64) error {
		h := hello(id)
		h.Restart = generation
		m, err := Join(t.Context(), s.Addr(), h, &testAgent{}, zerolog.Nop())
		if err == nil {
			m.Close()
		}
		return err
	}
	wantError(t, join("a", 0), ErrRestarting, "")
	if err := join("a", 6); err == nil {
		t.Error("an agent of another generation has joined")
	}
	h := hello("a")
	h.Restart = 7
	a := startAgent(t, s, h, nil)
	h.ID = "b"
	b := startAgent(t, s, h, nil)
	checkpoint := func() error {
		_, err := s.Checkpoint(t.Context(), CheckpointRequest{}, nil)
		return err
	}
	met := make(chan error)
	go func() { met <- a.member.Barrier(t.Context(), 7, "restored") }()
	if err := b.member.Barrier(t.Context(), 7, "restored"); err != nil {
		t.Fatal(err)
	}
	if err := <-met; err != nil {
		t.Fatal(err)
	}
	for range 2 { // one agent is one, however often it says so
		if err := a.member.Restored(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantError(t, checkpoint(), ErrRestarting, "")
	}
	// A program that ends at once gives nothing up.
	a.member.Close()
	<-a.member.Done()
	for len(s.list()) > 1 {
		alive(t, s)
	}
	if err := b.member.Restored(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := checkpoint(); err != nil {
		t.Error(err)
	}
	if err := join("c", 7); err == nil {
		t.Error("an agent has joined a restart that is over")
	}
	if err := join("c", 0); err != nil {
		t.Error(err)
	}
}
