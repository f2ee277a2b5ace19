package proc

import "sync"

// tally reports how much is done, for workers beside each other.
type tally struct {
	total  int64
	report func(done, total int64)

	mu   sync.Mutex
	done int64
}

func (t *tally) add(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	t.report(t.done, t.total)
}
