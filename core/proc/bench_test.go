package proc

import (
	"fmt"
	"strconv"
	"testing"
)

func benchTarget(b *testing.B, threads int) *target {
	b.Helper()
	tr := NewTracer()
	b.Cleanup(tr.Close)
	return launch(b, tr, program(b, "threads"), strconv.Itoa(threads))
}

// BenchmarkFreezeRelease is the shortest possible pause of a program.
func BenchmarkFreezeRelease(b *testing.B) {
	for _, threads := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d threads", threads), func(b *testing.B) {
			x := benchTarget(b, threads)
			for b.Loop() {
				x.release(x.freeze())
			}
		})
	}
}

// BenchmarkBatch is the cost of injected calls.
func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 10, 70} {
		b.Run(fmt.Sprintf("%d calls", n), func(b *testing.B) {
			x := benchTarget(b, 1)
			tree := x.freeze()
			defer x.release(tree)
			x.open(tree)
			p := tree.Procs()[0]
			ctx, calls := soon(b), getpids(n)
			err := x.tr.Do(func() error {
				for b.Loop() {
					if err := p.run(ctx, p.threads[0], calls); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkInspect reads all state of a frozen program but its memory.
func BenchmarkInspect(b *testing.B) {
	for _, threads := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d threads", threads), func(b *testing.B) {
			x := benchTarget(b, threads)
			tree := x.freeze()
			defer x.release(tree)
			x.open(tree)
			for b.Loop() {
				x.inspect(tree)
			}
		})
	}
}
