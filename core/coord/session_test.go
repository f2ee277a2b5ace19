package coord

import (
	"context"
	"errors"
	"testing"
)

func testMembers(ids ...string) []*member {
	list := make([]*member, len(ids))
	for i, id := range ids {
		list[i] = &member{hello: Hello{ID: id}}
	}
	return list
}

// TestBarrierLeft takes an arrival back: it counts no more, and whoever left
// may come again.
func TestBarrierLeft(t *testing.T) {
	m := testMembers("a", "b")
	x := newSession(t.Context(), 1, 2, m...)
	gone, cancel := context.WithCancelCause(t.Context())
	impatient := errors.New("impatient")
	cancel(impatient)
	wantError(t, x.wait(gone, m[0], "met"), impatient, "")
	met := make(chan error)
	b, err := x.arrive(m[1], "met")
	if err != nil || b.arrived != 1 {
		t.Fatalf("arrived %+v, %v", b, err)
	}
	if _, err := x.arrive(m[1], "other"); err == nil {
		t.Error("an agent came to two barriers")
	}
	go func() { met <- x.wait(t.Context(), m[0], "met") }()
	<-b.released
	if err := <-met; err != nil {
		t.Error(err)
	}
	x.leave(m[1], b) // after the release: nothing
	if err := x.err(); err != nil || len(x.barriers) != 0 {
		t.Errorf("error %v, barriers %v", err, x.barriers)
	}
}

func TestBarrierOfStrangers(t *testing.T) {
	m := testMembers("a", "b", "c")
	t.Run("checkpoint", func(t *testing.T) {
		x := newSession(t.Context(), 1, 2, m[:2]...)
		wantError(t, x.enter(m[2]), ErrGivenUp, "agent c takes no part: 2 others do")
	})
	t.Run("restart", func(t *testing.T) {
		x := newSession(t.Context(), 0, 2)
		if err := errors.Join(x.enter(m[0]), x.enter(m[1]), x.enter(m[0])); err != nil {
			t.Fatal(err)
		}
		wantError(t, x.enter(m[2]), ErrGivenUp, "takes no part")
	})
	t.Run("over", func(t *testing.T) {
		x := newSession(t.Context(), 1, 2, m[:2]...)
		x.end()
		wantError(t, x.enter(m[0]), ErrGivenUp, "is over")
	})
}
