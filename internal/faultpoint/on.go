//go:build faults

package faultpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enabled says whether this build has fault points.
const Enabled = true

// Variable names the file that says what happens at which step.
const Variable = "HIATUS_FAULTS"

// counter counts the steps that were reached under one version of the file:
// there is one process, and one file.
var counter struct {
	mu     sync.Mutex
	orders string
	counts map[string]int
}

// At is called at a step, and does what the file says. The error is the one
// that the step is to fail with.
func At(s Step) error {
	path := os.Getenv(Variable)
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil // no orders yet, or none any more
	}
	n := count(string(text), string(s))
	for line := range strings.Lines(string(text)) {
		step, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
		action, arg, _ := strings.Cut(what, " ")
		switch {
		case step == "trace":
			trace(what, s)
		case step == string(s) && n == 1, step == fmt.Sprintf("%s#%d", s, n):
			return act(s, action, arg)
		}
	}
	return nil
}

func count(orders, step string) int {
	counter.mu.Lock()
	defer counter.mu.Unlock()
	if counter.counts == nil || counter.orders != orders {
		counter.orders, counter.counts = orders, map[string]int{}
	}
	counter.counts[step]++
	return counter.counts[step]
}

func trace(path string, s Step) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(string(s) + "\n")
}

func act(s Step, action, arg string) error {
	switch action {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "stop":
		return unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "wait":
		return wait(arg)
	case "error":
		for e := syscall.Errno(1); e < 200; e++ {
			if unix.ErrnoName(e) == arg {
				return fmt.Errorf("fault at %s: %w", s, e)
			}
		}
	}
	return fmt.Errorf("fault at %s: unknown action %q %q", s, action, arg)
}

// wait blocks in open(2) until there is a writer, and in read(2) until it is
// gone.
func wait(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
