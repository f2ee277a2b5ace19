// Package parallel does work with several goroutines.
package parallel

import (
	"context"
	"sync"
	"sync/atomic"
)

// Each calls do for all items, with as many workers beside each other, and
// returns the first error, after which no more are taken up.
func Each[T any](ctx context.Context, items []T, workers int, do func(worker int, item *T) error) error {
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
