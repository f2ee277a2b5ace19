package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// gate is a writer that blocks until it is opened.
type gate struct {
	bytes.Buffer
	open chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.Buffer.Write(b)
}

// TestLogQueue writes more than there is room for to somebody who does not
// take it: no Write waits, and when it is taken the loss is told.
func TestLogQueue(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	q := newLogQueue(g)
	for i := range logQueueLines + 10 {
		if n, err := fmt.Fprintf(q, "line %d\n", i); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	close(g.open)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	<-q.ended
	text := g.String()
	if !strings.HasPrefix(text, "line 0\n") || !strings.Contains(text, fmt.Sprintf("line %d\n", logQueueLines-1)) {
		t.Error("lines are missing")
	}
	if !strings.Contains(text, "lines of the log were dropped") {
		t.Error("the loss is not told")
	}
	if n, err := fmt.Fprintln(q, "late"); err != nil || n != 5 {
		t.Error(n, err)
	}
}

// TestLogQueueStuck closes a queue whose reader never comes.
func TestLogQueueStuck(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	q := newLogQueue(g)
	fmt.Fprintln(q, "line")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	<-q.ended
}
