package wasm

import (
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// maxSpare is the most memory that is kept for the next instance.
const maxSpare = 16 << 20

// allocator gives the instances of a module their memory: a reservation of
// the limit, of which the kernel gives what is touched, so that growing copies
// nothing. The memory of the last instance is cleared behind its end and serves
// the next: page faults for megabytes would be most of the time that an
// instance takes to make.
type allocator struct {
	mu    sync.Mutex
	spare []byte // cleared
}

// mapped is the memory of an instance.
type mapped struct {
	from *allocator
	buf  []byte
	size uint64
}

// Allocate implements experimental.MemoryAllocator.
func (a *allocator) Allocate(_, most uint64) experimental.LinearMemory {
	most = max(most, pageSize)
	a.mu.Lock()
	buf := a.spare
	a.spare = nil
	a.mu.Unlock()
	if uint64(len(buf)) == most {
		return &mapped{from: a, buf: buf}
	}
	unmap(buf)
	buf, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		// The engine has no error for this; instance.make catches the panic.
		panic(fmt.Errorf("reserve %d bytes of memory: %w", most, err))
	}
	return &mapped{from: a, buf: buf}
}

// Reallocate implements experimental.LinearMemory.
func (m *mapped) Reallocate(size uint64) []byte {
	if size > uint64(len(m.buf)) {
		return nil
	}
	m.size = size
	return m.buf[:size]
}

// Free implements experimental.LinearMemory.
func (m *mapped) Free() {
	buf := m.buf
	m.buf = nil
	if m.size > maxSpare {
		unmap(buf)
		return
	}
	go func() { // nobody has to wait for this
		clear(buf[:m.size])
		m.from.mu.Lock()
		defer m.from.mu.Unlock()
		unmap(m.from.spare)
		m.from.spare = buf
	}()
}

// close frees what is kept.
func (a *allocator) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	unmap(a.spare)
	a.spare = nil
}

func unmap(buf []byte) {
	if buf != nil {
		_ = unix.Munmap(buf) // fails for what is no mapping only
	}
}
