package proc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// buffers are of workers beside each other, of the same size each.
type buffers struct {
	mem  []byte
	size int
}

// newBuffers makes n buffers outside of the heap, in huge pages where there are: a
// fault for each page of fresh memory takes longer than filling it. The caller frees
// them.
func newBuffers(n, size int) (buffers, error) {
	if n*size == 0 {
		return buffers{}, nil
	}
	mem, err := mapReady(uint64(n * size))
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

// mapReady maps memory and has it made at once. Kernels before 5.14 cannot populate
// so: then it is done by faults, one by one.
func mapReady(size uint64) ([]byte, error) {
	b, err := mapReserve(size)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
		_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	}
	return b, err
}

func mapReserve(size uint64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	return b, nil
}
