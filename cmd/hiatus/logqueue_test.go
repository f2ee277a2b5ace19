package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
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

// TestLogFileFull logs to a full disk: the loss is told once, through the queue.
func TestLogFileFull(t *testing.T) {
	watchStderr(t)
	var told bytes.Buffer
	logger, done, err := logging{level: zerolog.DebugLevel, file: "/dev/full"}.open(&told)
	if err != nil {
		t.Fatal(err)
	}
	log := logger("")
	log.Debug().Msg("a detail")
	log.Warn().Msg("a warning")
	log.Debug().Msg("another detail")
	if err := done(); err != nil {
		t.Fatal(err)
	}
	text := told.String()
	if strings.Count(text, "no space left on device") != 1 || strings.Count(text, "\n") != 2 || !strings.Contains(text, "a warning") {
		t.Errorf("standard error has %q", text)
	}
}

// TestLogFileStuck logs to a FIFO: without a reader it is refused, and one who does not read
// keeps nobody waiting.
func TestLogFileStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := logging{level: zerolog.InfoLevel, file: path}
	if _, _, err := l.open(io.Discard); !errors.Is(err, unix.ENXIO) {
		t.Fatalf("without a reader: %v", err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	logger, done, err := l.open(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log := logger("")
	for range 2 * logQueueLines {
		log.Info().Msg("more than a pipe has room for, which is 64 KiB in most cases")
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
}

// watchStderr fails the test if anything is written to standard error directly.
func watchStderr(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stderr
	os.Stderr = w
	t.Cleanup(func() {
		os.Stderr = was
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		got := make([]byte, 4096)
		if n, _ := r.Read(got); n > 0 {
			t.Errorf("written past the queue: %q", got[:n])
		}
		r.Close()
	})
}
