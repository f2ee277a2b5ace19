package coord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

var (
	errOver  = errors.New("the checkpoint is over")
	errApart = errors.New("agents do not meet")
)

// session is one checkpoint, check or restart of the agents that take part:
// their barriers and what they publish.
type session struct {
	generation uint64 // of a checkpoint; 0 in a check
	checkpoint bool   // or check, else a restart
	need       int    // agents that a barrier waits for

	ctx    context.Context // done when given up; the cause is the reason
	giveUp context.CancelCauseFunc

	mu       sync.Mutex
	agents   map[*member]struct{}
	waiting  map[*member]*barrier
	finished map[*member]struct{} // have no more barriers to come to
	barriers map[string]*barrier  // those that somebody waits at
	staged   map[string][]byte    // visible from the next release on
	visible  map[string][]byte

	progress map[*member]Progress
	report   func(Progress) // called under mu; nil: nobody asks
}

// barrier is one use of a name.
type barrier struct {
	name     string
	arrived  int
	released chan struct{}
}

// newSession makes a session that is given up when ctx is done. With agents
// they alone take part; without, the first need that use it.
func newSession(ctx context.Context, generation uint64, need int, agents ...*member) *session {
	x := &session{
		generation: generation, checkpoint: len(agents) > 0, need: need,
		agents:   make(map[*member]struct{}),
		waiting:  make(map[*member]*barrier),
		finished: make(map[*member]struct{}),
		barriers: make(map[string]*barrier),
		staged:   make(map[string][]byte),
		visible:  make(map[string][]byte),
		progress: make(map[*member]Progress),
	}
	for _, m := range agents {
		x.agents[m] = struct{}{}
	}
	x.ctx, x.giveUp = context.WithCancelCause(ctx)
	return x
}

// err is the reason for which the session was given up, wrapped, or nil.
func (x *session) err() error {
	if cause := context.Cause(x.ctx); cause != nil {
		return givenUp(cause)
	}
	return nil
}

// enter lets m take part, or says why not.
func (x *session) enter(m *member) error {
	if err := x.err(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.agents[m]; ok {
		return nil
	}
	if x.checkpoint || len(x.agents) >= x.need {
		return givenUp(fmt.Errorf("agent %s takes no part: %d others do", m.hello.ID, len(x.agents)))
	}
	x.agents[m] = struct{}{}
	return nil
}

// has says whether m takes part.
func (x *session) has(m *member) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.agents[m]
	return ok
}

// inUse says whether an agent waits at a barrier.
func (x *session) inUse() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.waiting) > 0
}

// wait holds m at the barrier until all have come.
func (x *session) wait(ctx context.Context, m *member, name string) error {
	b, err := x.arrive(m, name)
	if err != nil {
		return err
	}
	select {
	case <-b.released:
		return nil
	case <-x.ctx.Done():
		select {
		case <-b.released: // before that
			return nil
		default:
			return x.err()
		}
	case <-ctx.Done():
		x.leave(m, b)
		return context.Cause(ctx)
	}
}

// arrive notes that m has come, and releases the barrier if it was the last.
func (x *session) arrive(m *member, name string) (*barrier, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if at, ok := x.waiting[m]; ok {
		return nil, fmt.Errorf("agent %s comes to barrier %q while it waits at %q", m.hello.ID, name, at.name)
	}
	b := x.barriers[name]
	if b == nil {
		b = &barrier{name: name, released: make(chan struct{})}
		x.barriers[name] = b
	}
	b.arrived++
	x.waiting[m] = b
	if b.arrived == x.need {
		x.release(b)
	} else {
		x.giveUpIfStuck()
	}
	return b, nil
}

// release lets all at b go on and makes what was staged visible. The caller
// holds mu.
func (x *session) release(b *barrier) {
	delete(x.barriers, b.name)
	maps.DeleteFunc(x.waiting, func(_ *member, at *barrier) bool { return at == b })
	maps.Copy(x.visible, x.staged)
	clear(x.staged)
	close(b.released)
}

// leave takes back an arrival, unless the barrier has been released.
func (x *session) leave(m *member, b *barrier) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiting[m] != b {
		return
	}
	delete(x.waiting, m)
	b.arrived--
	if b.arrived == 0 {
		delete(x.barriers, b.name)
	}
}

// finish notes that m comes to no more barriers.
func (x *session) finish(m *member) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finished[m] = struct{}{}
	x.giveUpIfStuck()
}

// giveUpIfStuck ends a session in which nobody is left who could release a
// barrier: agents that differ would else wait until the deadline. The caller
// holds mu.
func (x *session) giveUpIfStuck() {
	if len(x.waiting) == 0 || len(x.waiting)+len(x.finished) < x.need {
		return
	}
	x.giveUp(fmt.Errorf("%w: %s", errApart, x.whereabouts()))
}

// place says where the agents are, for an error.
func (x *session) place() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.whereabouts()
}

// whereabouts is place for a caller that holds mu.
func (x *session) whereabouts() string {
	var list []string
	for m := range x.agents {
		at := "works"
		if b, ok := x.waiting[m]; ok {
			at = fmt.Sprintf("waits at barrier %q", b.name)
		} else if _, ok := x.finished[m]; ok {
			at = "has finished"
		}
		list = append(list, "agent "+m.hello.ID+" "+at)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// publish stages a value.
func (x *session) publish(key string, val []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.staged[key] = val
}

// lookup returns a visible value.
func (x *session) lookup(key string) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	val, ok := x.visible[key]
	if !ok {
		return nil, fmt.Errorf("key %q: %w", key, ErrNotFound)
	}
	return val, nil
}

// advance notes how far m is and reports the sum.
func (x *session) advance(m *member, p Progress) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.agents[m]; !ok || x.report == nil {
		return
	}
	x.progress[m] = p
	var sum Progress
	for _, p := range x.progress {
		sum.Done += p.Done
		sum.Total += p.Total
	}
	x.report(sum)
}

// end makes sure that nothing is reported any more and that whoever still
// waits goes.
func (x *session) end() {
	x.mu.Lock()
	x.report = nil
	x.mu.Unlock()
	x.giveUp(errOver)
}

// sortMembers orders agents by id, so that errors and manifests are stable.
func sortMembers(list []*member) {
	slices.SortFunc(list, func(a, b *member) int { return cmp.Compare(a.hello.ID, b.hello.ID) })
}
