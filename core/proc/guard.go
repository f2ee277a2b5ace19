package proc

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Advice of madvise(2).
const madvGuardInstall = 102

// guardsMarked says whether a VmFlag tells which mappings have guard regions.
// It is tried once, on a page of the agent's own. A kernel without guard
// regions marks all there are.
func (t *Tracer) guardsMarked() (bool, error) {
	t.guards.Do(func() { t.marked, t.noMark = guardsMarked() })
	return t.marked, t.noMark
}

func guardsMarked() (bool, error) {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false, fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, madvGuardInstall); err != nil { // EINVAL before Linux 6.13
		return true, nil
	}
	vmas, err := procfs.ReadSmaps(os.Getpid())
	if err != nil {
		return false, err
	}
	at := uint64(uintptr(unsafe.Pointer(&b[0])))
	i := slices.IndexFunc(vmas, func(v procfs.VMA) bool { return v.Start <= at && at < v.End })
	return i >= 0 && hasGuards(vmas[i]), nil
}
