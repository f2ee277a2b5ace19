package proc

import (
	"fmt"
	"strconv"
	"testing"
)

func benchTarget(b *testing.B, threads int) *target {
	b.Helper()
	return benchSize{threads: threads, processes: 1}.start(b)
}

// benchSize is how large a program is, which stands still at no cost of its own.
type benchSize struct{ threads, processes, mappings int }

// benchSizes grow tenfold in one thing each: what they cost must too, and no more.
var benchSizes = []benchSize{{1, 1, 0}, {100, 1, 0}, {1000, 1, 0}, {1, 100, 0}, {1, 1000, 0}, {1, 1, 6000}, {1, 1, 60000}}

func (s benchSize) String() string {
	switch {
	case s.processes > 1:
		return fmt.Sprintf("%d processes", s.processes)
	case s.mappings > 0:
		return fmt.Sprintf("%d mappings", s.mappings)
	}
	return fmt.Sprintf("%d threads", s.threads)
}

func (s benchSize) start(b *testing.B) *target {
	b.Helper()
	tr := NewTracer()
	b.Cleanup(tr.Close)
	x := launch(b, tr, program(b, "threads"), strconv.Itoa(s.threads), strconv.Itoa(s.processes), strconv.Itoa(s.mappings))
	return x
}

// BenchmarkFreezeRelease is the shortest possible pause of a program.
func BenchmarkFreezeRelease(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(size.String(), func(b *testing.B) {
			x := size.start(b)
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
	for _, size := range benchSizes {
		b.Run(size.String(), func(b *testing.B) {
			x := size.start(b)
			tree := x.freeze()
			defer x.release(tree)
			x.open(tree)
			for b.Loop() {
				if err := tree.Check(here()); err != nil {
					b.Fatal(err)
				}
				x.inspect(tree)
			}
		})
	}
}

// BenchmarkPages finds the pages to save of many mappings.
func BenchmarkPages(b *testing.B) {
	for _, size := range benchSizes {
		if size.mappings == 0 {
			continue
		}
		b.Run(size.String(), func(b *testing.B) {
			x := size.start(b)
			tree := x.freeze()
			defer x.release(tree)
			x.open(tree)
			m := tree.NewMemory(x.inspect(tree), nil)
			defer m.Close()
			for b.Loop() {
				runs, err := m.pageRuns(soon(b), nil, func(*Process, *MapState) bool { return true }, func(p *Process) *Process { return p })
				if err != nil || len(runs) == 0 {
					b.Fatalf("%d runs, %v", len(runs), err)
				}
			}
		})
	}
}
