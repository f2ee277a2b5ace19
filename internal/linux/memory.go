package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MapReady maps memory outside of Go's heap and has it made at once: a fault for each page
// of fresh memory takes longer than filling it. Kernels before 5.14 cannot populate so:
// then it is done by faults, one by one. The caller unmaps it.
func MapReady(size uint64) ([]byte, error) {
	b, err := MapReserve(size)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	}
	return b, err
}

// MapReserve maps memory outside of Go's heap, in huge pages where there are. The caller
// unmaps it.
func MapReserve(size uint64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	return b, nil
}
