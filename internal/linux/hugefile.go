package linux

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// HugeFile writes to a file of hugetlbfs, which has no write(2), through a
// mapping. Zeros are left out: they would take pages, of which there are few.
// It may be used by several goroutines.
type HugeFile struct {
	FD   int
	Size int64 // bytes

	once sync.Once
	mem  []byte
	err  error
}

// WriteAt maps the file when there is something to write.
func (h *HugeFile) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > h.Size || int64(len(b)) > h.Size-off {
		return 0, io.ErrShortWrite
	}
	if bytes.Count(b, []byte{0}) == len(b) {
		return len(b), nil
	}
	h.once.Do(func() {
		h.mem, h.err = unix.Mmap(h.FD, 0, int(h.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	})
	if h.err != nil {
		return 0, fmt.Errorf("mmap of huge pages, of which there must be enough free ones (/proc/sys/vm/nr_hugepages): %w", h.err)
	}
	return copy(h.mem[off:], b), nil
}

// Close removes the mapping; the descriptor stays open.
func (h *HugeFile) Close() {
	if h.mem != nil {
		_ = unix.Munmap(h.mem)
		h.mem = nil
	}
}
