package coord

import (
	"sync"
	"time"
)

// relayEvery is the least time between two messages of progress.
const relayEvery = 100 * time.Millisecond

// relay passes the newest progress on to a function that may be slow, from a
// goroutine of its own; what is overtaken is dropped.
type relay struct {
	newest chan Progress // holds at most one
	quit   chan struct{}
	ended  sync.WaitGroup
	every  time.Duration
	mu     sync.Mutex // makes put one at a time
}

func newRelay(every time.Duration, deliver func(Progress)) *relay {
	r := &relay{newest: make(chan Progress, 1), quit: make(chan struct{}), every: every}
	r.ended.Go(func() { r.run(deliver) })
	return r
}

func (r *relay) run(deliver func(Progress)) {
	defer r.last(deliver)
	for {
		select {
		case p := <-r.newest:
			deliver(p)
		case <-r.quit:
			return
		}
		select {
		case <-time.After(r.every):
		case <-r.quit:
			return
		}
	}
}

// last delivers what is left, so that the end of the work is always seen.
func (r *relay) last(deliver func(Progress)) {
	select {
	case p := <-r.newest:
		deliver(p)
	default:
	}
}

// put replaces what has not been passed on. It never blocks.
func (r *relay) put(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.newest:
	default:
	}
	r.newest <- p
}

// stop returns when deliver will not be called again.
func (r *relay) stop() {
	close(r.quit)
	r.ended.Wait()
}
