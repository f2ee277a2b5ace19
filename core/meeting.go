package core

import (
	"context"
	"sync"

	"github.com/hiatus-project/hiatus/core/coord"
)

// meetingPoint is the rendezvous of plugins: the coordinator's, within the
// generation in progress.
type meetingPoint struct {
	mu         sync.Mutex
	member     *coord.Member
	generation uint64
}

func (m *meetingPoint) join(member *coord.Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.member = member
}

// begin sets the generation, 0 for a check.
func (m *meetingPoint) begin(generation uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation = generation
}

func (m *meetingPoint) get() (*coord.Member, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.member, m.generation
}

// Barrier waits until every agent has come to name.
func (m *meetingPoint) Barrier(ctx context.Context, name string) error {
	member, generation := m.get()
	if member == nil {
		return errNoCoordinator
	}
	return member.Barrier(ctx, generation, name)
}

// Publish makes val known under key from the next barrier on.
func (m *meetingPoint) Publish(ctx context.Context, key string, val []byte) error {
	member, _ := m.get()
	if member == nil {
		return errNoCoordinator
	}
	return member.Publish(ctx, key, val)
}

// Lookup returns what was published under key.
func (m *meetingPoint) Lookup(ctx context.Context, key string) ([]byte, error) {
	member, _ := m.get()
	if member == nil {
		return nil, errNoCoordinator
	}
	return member.Lookup(ctx, key)
}
