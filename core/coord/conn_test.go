package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// startPair connects two conns with the given dispatchers.
func startPair(t *testing.T, a, b dispatcher) (*conn, *conn) {
	t.Helper()
	na, nb := net.Pipe()
	ca, cb := newConn(na, zerolog.Nop(), a), newConn(nb, zerolog.Nop(), b)
	for _, c := range []*conn{ca, cb} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.run()
		}()
		t.Cleanup(func() {
			c.abort(net.ErrClosed)
			<-ended
		})
	}
	return ca, cb
}

// serveWith dispatches every method to work.
func serveWith(work func(ctx context.Context, in int) (any, error)) dispatcher {
	return func(_ string, body json.RawMessage) (task, error) { return request(body, work) }
}

func TestCallBothWays(t *testing.T) {
	double := serveWith(func(_ context.Context, in int) (any, error) { return 2 * in, nil })
	a, b := startPair(t, double, double)
	for i := range 50 {
		for _, c := range []*conn{a, b} {
			var out int
			if err := c.call(t.Context(), "double", i, &out); err != nil || out != 2*i {
				t.Fatalf("double %d: %d, %v", i, out, err)
			}
		}
	}
}

func TestCallCancelled(t *testing.T) {
	cause := make(chan error)
	started := make(chan struct{})
	a, _ := startPair(t, nil, serveWith(func(ctx context.Context, _ int) (any, error) {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil, nil
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-started
		cancel(givenUp(errors.New("enough")))
	}()
	wantError(t, a.call(ctx, "wait", 0, nil), ErrGivenUp, "given up: enough")
	wantError(t, <-cause, ErrGivenUp, "given up: enough")
	// The late reply is no nonsense.
	if err := a.ctx.Err(); err != nil {
		t.Error(context.Cause(a.ctx))
	}
}

func TestCallLost(t *testing.T) {
	b := make(chan *conn, 1)
	a, cb := startPair(t, nil, serveWith(func(ctx context.Context, _ int) (any, error) {
		(<-b).nc.Close()
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}))
	b <- cb
	wantError(t, a.call(t.Context(), "x", 0, nil), ErrConnectionLost, "")
	wantError(t, a.call(t.Context(), "x", 0, nil), ErrConnectionLost, "")
}

// TestStop answers what is in progress.
func TestStop(t *testing.T) {
	b := make(chan *conn, 1)
	a, cb := startPair(t, nil, serveWith(func(context.Context, int) (any, error) {
		(<-b).stop()
		return 1, nil
	}))
	b <- cb
	var out int
	if err := a.call(t.Context(), "x", 0, &out); err != nil || out != 1 {
		t.Errorf("out %d, error %v", out, err)
	}
	<-a.ctx.Done()
}

func TestIdle(t *testing.T) {
	na, nb := net.Pipe()
	defer na.Close()
	c := newConn(nb, zerolog.Nop(), nil)
	c.setIdle(time.Millisecond)
	if err := c.run(); !isTimeout(err) {
		t.Errorf("run: %v", err)
	}
}

// TestTooManyRequests drops the peer, and cancels what it had asked for.
func TestTooManyRequests(t *testing.T) {
	na, nb := net.Pipe()
	defer na.Close()
	c := newConn(nb, zerolog.Nop(), serveWith(func(ctx context.Context, _ int) (any, error) {
		<-ctx.Done()
		return nil, nil
	}))
	go func() {
		for id := range maxServing + 1 {
			fmt.Fprint(na, rawFrame(fmt.Sprintf(`{"id":%d,"method":"x","body":0}`, id+1)))
		}
	}()
	wantError(t, c.run(), errProtocol, "128 are served")
}

func TestRelay(t *testing.T) {
	seen := make(chan Progress, 100)
	r := newRelay(time.Hour, func(p Progress) { seen <- p })
	r.put(Progress{Done: 1})
	if p := <-seen; p.Done != 1 {
		t.Errorf("first is %+v", p)
	}
	r.put(Progress{Done: 2})
	r.put(Progress{Done: 3})
	r.stop()
	if p := <-seen; p.Done != 3 || len(seen) != 0 {
		t.Errorf("last is %+v, %d more", p, len(seen))
	}
}
