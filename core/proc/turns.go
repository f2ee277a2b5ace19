package proc

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// turn is work on one process that Tracer.each has begun. Where it would wait for a
// thread it leaves, and is resumed when the others have had their turn.
type turn struct {
	resume func() (struct{}, bool)
	leave  func(struct{}) bool
	moved  bool            // what it waited for has come
	ctx    context.Context // of its wait
}

// maxTurns bounds how many processes have a batch under way: with more, looking for the
// next that has ended takes as long as a batch.
var maxTurns = min(2+2*runtime.GOMAXPROCS(0), 16)

// each runs f for all processes, and returns all errors. It must be called on the tracer's
// thread, which is the only one that may use ptrace(2): while a process runs our calls, f
// goes on with others. What a batch costs is mostly that its thread waits for a
// processor; so the waits of a tree, on a busy machine some milliseconds each, do not add
// up.
func (t *Tracer) each(procs []*Process, f func(*Process) error) error {
	if len(procs) == 1 {
		return f(procs[0])
	}
	errs := make([]error, len(procs))
	var open []*turn
	for left := procs; len(left) > 0 || len(open) > 0; open = t.round(open) {
		for ; len(left) > 0 && len(open) < maxTurns; left = left[1:] {
			p, err := left[0], &errs[len(procs)-len(left)]
			open = append(open, newTurn(func() { *err = f(p) }))
		}
	}
	return errors.Join(errs...)
}

func newTurn(work func()) *turn {
	o := &turn{}
	o.resume, _ = iter.Pull(func(leave func(struct{}) bool) {
		o.leave = leave
		work()
	})
	return o
}

// round gives each a turn until one has moved, and returns those that are not done yet.
func (t *Tracer) round(open []*turn) []*turn {
	idle := t.newIdling()
	defer idle.end()
	var waits []context.Context
	for {
		n, moved := len(open), false
		open = slices.DeleteFunc(open, func(o *turn) bool {
			more := t.resume(o)
			moved = moved || o.moved
			return !more
		})
		if moved || len(open) < n {
			return open
		}
		waits = waits[:0]
		for _, o := range open {
			waits = append(waits, o.ctx)
		}
		idle.pass(waits...)
	}
}

// resume lets o go on, and says whether it is not done yet.
func (t *Tracer) resume(o *turn) (more bool) {
	o.moved = false
	t.turn = o
	defer func() { t.turn = nil }()
	_, more = o.resume()
	return more
}

// wait lets the others have their turn.
func (o *turn) wait(ctx context.Context) {
	o.ctx = ctx
	o.leave(struct{}{})
}

// moves notes that what o waited for has come.
func (o *turn) moves() {
	if o != nil {
		o.moved = true
	}
}

// spin is how long a wait asks again at once before it sleeps for SIGCHLD: a batch of
// injected calls takes some 20 µs, waking a goroutine longer.
const spin = 500 * time.Microsecond

// yield lets another thread have the processor, if one wants it. runtime.Gosched
// would hand the tracer's locked thread from one thread to the next and back; it is
// needed where Go runs on one processor only, which others wait for.
//
// Where others compute, sched_yield(2) returns when all of them have had their time, some
// milliseconds. A thread that sleeps gets the processor back as soon as it wakes.
func (t *Tracer) yield() {
	const (
		others = 200 * time.Microsecond // it took as long: somebody computes
		while  = 50 * time.Millisecond  // how long that is taken for granted
	)
	begin := time.Now()
	switch {
	case alone:
		runtime.Gosched()
	case begin.Sub(t.crowded) < while:
		shortly := unix.Timespec{Nsec: 1} // and the slack of timers, 50 µs
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&shortly)), 0, 0)
	default:
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if end := time.Now(); end.Sub(begin) > others {
			t.crowded = end
		}
	}
}

var alone = runtime.GOMAXPROCS(0) == 1

// idling is how a wait passes the time.
type idling struct {
	t     *Tracer
	begin time.Time
	heard func()
}

func (t *Tracer) newIdling() *idling { return &idling{t: t, begin: time.Now()} }

// spun says whether to ask again at once is over.
func (p *idling) spun() bool { return time.Since(p.begin) >= spin }

// pass lets time pass until there may be something new: a child, or the end of the time
// of one of the waits.
func (p *idling) pass(waits ...context.Context) {
	switch {
	case !p.spun():
		p.t.yield()
		return
	case p.heard == nil:
		p.heard = awaitSignals()
		return
	}
	p.t.bury()
	over := make(chan struct{}, len(waits))
	for _, ctx := range waits {
		defer context.AfterFunc(ctx, func() { over <- struct{}{} })()
	}
	select {
	case <-p.t.child:
	case <-over:
	}
}

// end is called when the wait is over.
func (p *idling) end() {
	if p.heard != nil {
		p.heard()
	}
}
