package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchAsync is UFFD_FEATURE_WP_ASYNC, Linux 6.7.
const watchAsync = 1 << 15

// ErrNoWatch says that the kernel cannot watch memory: before Linux 6.7.
var ErrNoWatch = errors.New("the kernel has no UFFD_FEATURE_WP_ASYNC")

// WatchStart has a userfaultfd, which may be of another process, resolve write
// faults by itself: all that remains of them is that a page counts as written.
func WatchStart(fd int) error {
	err := userfaultHello(fd, watchAsync)
	if errors.Is(err, unix.EINVAL) {
		return ErrNoWatch
	}
	return err
}

// WatchRange watches the mappings in [start, end), whole ones; those that are
// watched by fd already stay so. EBUSY says that another userfaultfd has one,
// ENOMEM that the memory of fd is gone.
func WatchRange(fd int, start, end uint64) error {
	return userfaultRegister(fd, start, end, modeWP)
}

// Disarm has all pages of watched memory in [start, end) count as written.
// Memory that is watched anew may have pages that do not: what mremap(2) has
// moved or joined with a neighbour, or a userfaultfd watched that has ended, is
// watched no more, but the page table may go on to say that it is protected,
// while the program writes.
func Disarm(pagemap *os.File, fd int, start, end uint64) error {
	return ScanPages(pagemap, start, end, UnwrittenPages, func(r PageRange) error {
		arg := &struct{ start, len, mode uint64 }{r.Start, r.End - r.Start, 0}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioWP, uintptr(unsafe.Pointer(arg))); errno != 0 {
			return fmt.Errorf("UFFDIO_WRITEPROTECT %#x-%#x: %w", r.Start, r.End, errno)
		}
		return nil
	})
}

// Rearm has the pages of watched memory in [start, end) that have been written
// count as not written. pagemap is /proc/PID/pagemap.
func Rearm(pagemap *os.File, start, end uint64) error {
	// With no room for an answer the kernel would mark absent pages too, which
	// then look as if they were swapped out.
	regions := make([]pageRegion, regionsFor(start, end))
	arg := &pmScanArg{
		size:     uint64(unsafe.Sizeof(pmScanArg{})),
		flags:    scanProtects | scanChecks,
		end:      end,
		vec:      &regions[0],
		vecLen:   uint64(len(regions)),
		mask:     pageIsWritten,
		anyOf:    pageIsPresent | pageIsSwapped,
		returned: pageIsWritten,
	}
	for start < end {
		arg.start = start
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(arg)))
		runtime.KeepAlive(pagemap)
		if errno != 0 {
			return fmt.Errorf("%s: PAGEMAP_SCAN to protect %#x-%#x: %w", pagemap.Name(), start, end, errno)
		}
		if arg.walkEnd <= start {
			return fmt.Errorf("%s: PAGEMAP_SCAN to protect %#x-%#x: no progress", pagemap.Name(), start, end)
		}
		start = arg.walkEnd
	}
	return nil
}
