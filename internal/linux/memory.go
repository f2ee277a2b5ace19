package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MapReady is MapReserve and MakeReady. The caller unmaps it.
func MapReady(size uint64) ([]byte, error) {
	b, err := MapReserve(size)
	if err == nil {
		MakeReady(b)
	}
	return b, err
}

// MakeReady has memory made at once: a fault for each page of fresh memory takes longer than
// filling it. Kernels before 5.14 cannot populate so: then it is done by faults, one by one.
func MakeReady(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }

// hugePage is the size of a transparent huge page on amd64 and arm64 (with pages of 4 KiB).
const hugePage = 2 << 20

// MapReserve maps at least size bytes of memory outside of Go's heap, in huge pages where there
// are: whole ones, as the kernel aligns no others (mm/mmap.c, __get_unmapped_area).
// The caller unmaps it.
func MapReserve(size uint64) ([]byte, error) {
	if size > hugePage/2 {
		size = (size + hugePage - 1) &^ (hugePage - 1)
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	return b, nil
}
