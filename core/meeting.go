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
	alone      bool
}

func (m *meetingPoint) join(member *coord.Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.member = member
}

// begin sets the generation. Alone, as in a check, barriers open at once.
func (m *meetingPoint) begin(generation uint64, alone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation, m.alone = generation, alone
}

func (m *meetingPoint) get() (*coord.Member, uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.member, m.generation, m.alone
}

// Barrier waits until every agent has come to name.
func (m *meetingPoint) Barrier(ctx context.Context, name string) error {
	member, generation, alone := m.get()
	switch {
	case alone:
		return nil
	case member == nil:
		return errNoCoordinator
	}
	return member.Barrier(ctx, generation, name)
}

// Publish makes val known under key from the next barrier on.
func (m *meetingPoint) Publish(ctx context.Context, key string, val []byte) error {
	member, _, _ := m.get()
	if member == nil {
		return errNoCoordinator
	}
	return member.Publish(ctx, key, val)
}

// Lookup returns what was published under key.
func (m *meetingPoint) Lookup(ctx context.Context, key string) ([]byte, error) {
	member, _, _ := m.get()
	if member == nil {
		return nil, errNoCoordinator
	}
	return member.Lookup(ctx, key)
}
