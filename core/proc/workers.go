package proc

import (
	"context"
	"sync"
	"sync/atomic"
)

// forEach calls do for all items, with as many workers beside each other, and
// returns the first error, after which no more are taken up.
func forEach[T any](ctx context.Context, items []T, workers int, do func(worker int, item *T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range min(workers, len(items)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(items) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(w, &items[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

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
