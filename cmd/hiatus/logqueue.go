package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	logQueueLines = 4096
	// logPatience is how long the last lines may take at the end.
	logPatience = time.Second
)

// logQueue writes lines to standard error behind the caller's back: a terminal
// that is stopped with ^S, or a pipe that nobody reads, must not keep an agent
// waiting whose program stands still. What finds no room is dropped, and counted.
type logQueue struct {
	out   io.Writer
	lines chan []byte
	ended chan struct{} // closed when all is written

	mu      sync.Mutex
	closed  bool
	dropped int
}

func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, lines: make(chan []byte, logQueueLines), ended: make(chan struct{})}
	go q.run()
	return q
}

func (q *logQueue) run() {
	defer close(q.ended)
	for line := range q.lines {
		_, _ = q.out.Write(line) // there is nobody to tell
		q.mu.Lock()
		n := q.dropped
		q.dropped = 0
		q.mu.Unlock()
		if n > 0 {
			fmt.Fprintf(q.out, "{\"level\":\"warn\",\"message\":\"%d lines of the log were dropped\"}\n", n)
		}
	}
}

// Write implements io.Writer. It never blocks and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return len(line), nil
	}
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.dropped++
	}
	return len(line), nil
}

// Close waits for the last lines, for a moment at most.
func (q *logQueue) Close() error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	select {
	case <-q.ended:
	case <-time.After(logPatience):
	}
	return nil
}
