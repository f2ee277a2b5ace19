package core

import (
	"runtime/debug"
	"sync"
)

// collector is Go's, of all agents of this process.
var collector struct {
	mu      sync.Mutex
	held    int // by so many
	percent int // to be set again
}

// holdCollector has Go's collector wait until release is called: in the pause it would
// take the processors from what the program waits for.
func holdCollector() (release func()) {
	c := &collector
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held++; c.held == 1 {
		c.percent = debug.SetGCPercent(-1)
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.held--; c.held == 0 {
			debug.SetGCPercent(c.percent)
		}
	})
}
