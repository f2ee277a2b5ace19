package proc

import (
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
)

// buffers are of workers beside each other, of the same size each.
type buffers struct {
	mem  []byte
	size int
}

// newBuffers makes n buffers outside of the heap. The caller frees them.
func newBuffers(n, size int) (buffers, error) {
	if n*size == 0 {
		return buffers{}, nil
	}
	mem, err := linux.MapReady(uint64(n * size))
	return buffers{mem, size}, err
}

// of returns the buffer of a worker.
func (b buffers) of(worker int) []byte {
	return b.mem[worker*b.size:][:b.size:b.size]
}

func (b buffers) free() {
	if b.mem != nil {
		_ = unix.Munmap(b.mem)
	}
}
