package image

import (
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
)

// room has the buffers of a PageWriter. They are outside of the heap: images are made
// minutes apart, between which Go gives a heap's free memory back to the kernel, and
// the faults of a buffer's first use take longer than all that is done with it.
type room struct{ parts [][]byte }

// buffer returns an empty one.
func (r *room) buffer(size int) []byte {
	b, err := linux.MapReady(uint64(size))
	if err != nil { // too many mappings
		return make([]byte, 0, size)
	}
	r.parts = append(r.parts, b)
	return b[:0:size]
}

func (r *room) free() {
	for _, b := range r.parts {
		_ = unix.Munmap(b)
	}
	r.parts = nil
}
