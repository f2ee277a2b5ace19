// Package extension measures what extensions add to a checkpoint, as a share of
// what they may:
//
//	go test -bench . ./bench/extension
//
// An empty extension may add 3 ms to a checkpoint once its code is compiled, an
// event call 20 µs, and twenty extensions 60 ms. Two guests that do nothing are
// measured: one in C, which is what the host itself costs, and one in Go, whose
// instances bring a runtime along.
package extension
