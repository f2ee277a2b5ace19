package main

import (
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressDelay is how long work may take before it shows its progress.
const progressDelay = time.Second

// progress shows on a terminal how far long work is.
type progress struct {
	w     io.Writer // nil: shows nothing
	since time.Time

	mu  sync.Mutex
	bar *progressbar.ProgressBar
}

// newProgress starts the clock. Elsewhere than on a terminal nothing is shown.
func newProgress(w io.Writer) *progress {
	p := &progress{since: time.Now()}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

// show says that done of total bytes are there. A total of 0 is unknown.
func (p *progress) show(phase string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || time.Since(p.since) < progressDelay {
		return
	}
	if total <= 0 {
		total = -1
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	p.bar.Describe(phase)
	if p.bar.GetMax64() != total {
		p.bar.ChangeMax64(total)
	}
	// A bar that cannot be drawn must not end the work it shows.
	_ = p.bar.Set64(done)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Exit()
		_ = p.bar.Clear()
	}
	p.w = nil
}
