package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageRange is the pages in [Start, End).
type PageRange struct{ Start, End uint64 }

// PageFilter selects pages among those that are present in a page table or
// swapped out, but for GuardPages.
type PageFilter uint8

const (
	// AllPages takes every page.
	AllPages PageFilter = iota
	// NonzeroPages leaves out the kernel's zero page, which is what memory
	// shows that was read before it was written.
	NonzeroPages
	// AnonPages takes anonymous pages: in a private mapping of a file, those
	// that were written to. The zero page is one: where KSM uses it, it stands for
	// pages of zeros that were written to (/sys/kernel/mm/ksm/use_zero_pages).
	AnonPages
	// GuardPages takes the guard regions of madvise(2), MADV_GUARD_INSTALL,
	// and nothing else. Kernels up to 6.14 do not tell them from swap.
	GuardPages
	// UnwrittenPages takes pages of watched memory (WatchRange) that were not
	// written to since the last Rearm. Other memory is an error, EPERM.
	UnwrittenPages
	// WrittenPages takes the others of watched memory.
	WrittenPages
	// swappedPages takes what is not present: in swap, or marked as a guard region.
	swappedPages
)

// ScanPages calls visit for the ranges of pages in [start, end) that the
// filter selects, in ascending order; adjacent pages are one range, whatever
// mappings they are in. pagemap is an open /proc/PID/pagemap; start and end are
// multiples of the page size. An error of visit ends the scan and is returned.
//
// It tells what the page table holds, which is all there is of private
// anonymous memory. Of files and shared memory, pages that this process did
// not touch, or that were reclaimed or swapped, are not in its page table
// though they have content: do not use it to find that.
//
// It uses the ioctl PAGEMAP_SCAN(2const) of Linux 6.7 and reads the entries of
// the file where that is missing. The entries do not tell a zero page from an
// anonymous page (only a privileged reader sees the frame numbers), so there
// zero pages are selected by all filters, and are to be found by content. And
// they cost 8 bytes for each page of the range, mapped or not: ask for mapped
// ranges.
func ScanPages(pagemap *os.File, start, end uint64, what PageFilter, visit func(PageRange) error) error {
	page := uint64(os.Getpagesize())
	if start%page != 0 || end%page != 0 {
		return fmt.Errorf("%s: range %#x-%#x is not of whole pages", pagemap.Name(), start, end)
	}
	err := scanTable(pagemap, start, end, what, visit)
	if errors.Is(err, errNoPagemapScan) && what == GuardPages {
		err = scanMarkers(pagemap, start, end, visit)
	}
	if errors.Is(err, errNoPagemapScan) && what != UnwrittenPages && what != WrittenPages {
		return scanEntries(pagemap, start, end, what, visit)
	}
	return err
}

// scanMarkers finds guard regions where PAGEMAP_SCAN does not know them, and takes them for
// swapped (Linux 6.13 to 6.15): the entries of what it finds tell, since 6.15. Those of all
// addresses between two mappings would have gigabytes.
func scanMarkers(pagemap *os.File, start, end uint64, visit func(PageRange) error) error {
	return scanTable(pagemap, start, end, swappedPages, func(r PageRange) error {
		return scanEntries(pagemap, r.Start, r.End, GuardPages, visit)
	})
}

// ScanRanges is ScanPages for many ranges, ascending and disjoint, in one walk
// from the first to the last: visit gets the number of the range too. A scan
// of its own for each mapping costs ten times as much. UnwrittenPages, which
// must not meet other memory, cannot be asked for.
func ScanRanges(pagemap *os.File, ranges []PageRange, what PageFilter, visit func(i int, r PageRange) error) error {
	if len(ranges) == 0 {
		return nil
	}
	at := 0
	err := scanTable(pagemap, ranges[0].Start, ranges[len(ranges)-1].End, what, func(r PageRange) error {
		for ; at < len(ranges) && ranges[at].End <= r.Start; at++ {
		}
		for i := at; i < len(ranges) && ranges[i].Start < r.End; i++ {
			if err := visit(i, PageRange{max(r.Start, ranges[i].Start), min(r.End, ranges[i].End)}); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, errNoPagemapScan) {
		return err
	}
	for i, r := range ranges { // here the pages between them would cost as much as those in them
		if err := scanEntries(pagemap, r.Start, r.End, what, func(r PageRange) error { return visit(i, r) }); err != nil {
			return err
		}
	}
	return nil
}

var errNoPagemapScan = errors.New("the kernel has no PAGEMAP_SCAN")

// PAGEMAP_SCAN, from the kernel's include/uapi/linux/fs.h.
const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsWritten = 1 << 1
	pageIsFile    = 1 << 2 // or of shared memory
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPFNZero = 1 << 5
	pageIsGuard   = 1 << 8 // Linux 6.16

	scanProtects = 1 << 0 // PM_SCAN_WP_MATCHING
	scanChecks   = 1 << 1 // PM_SCAN_CHECK_WPASYNC: EPERM where memory is not watched
)

// pmScanArg is struct pm_scan_arg. vec is typed, so that the garbage collector
// knows it: a pointer is 64 bits wide on all machines that we run on.
type pmScanArg struct {
	size, flags           uint64
	start, end, walkEnd   uint64
	vec                   *pageRegion
	vecLen, maxPages      uint64
	inverted, mask, anyOf uint64 // categories to invert; then those that must all, or of which one must, be set
	returned              uint64 // categories to tell
}

// pageRegion is struct page_region; its third field has the categories asked for.
type pageRegion struct{ start, end, _ uint64 }

// scanTable scans with PAGEMAP_SCAN.
func scanTable(pagemap *os.File, start, end uint64, what PageFilter, visit func(PageRange) error) error {
	m := merger{visit: visit}
	regions := make([]pageRegion, regionsFor(start, end))
	arg := &pmScanArg{
		size:     uint64(unsafe.Sizeof(pmScanArg{})),
		end:      end,
		vec:      &regions[0],
		vecLen:   uint64(len(regions)),
		mask:     unwanted(what),
		inverted: unwanted(what),
		anyOf:    pageIsPresent | pageIsSwapped,
		returned: pageIsPresent | pageIsSwapped,
	}
	switch what {
	case GuardPages:
		arg.mask, arg.anyOf = pageIsGuard, pageIsGuard
	case swappedPages:
		arg.mask, arg.anyOf = pageIsSwapped, pageIsSwapped
	}
	if what == UnwrittenPages || what == WrittenPages {
		arg.flags = scanChecks
	}
	if what == WrittenPages {
		arg.mask |= pageIsWritten
	}
	for start < end {
		arg.start = start
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), pagemapScan, uintptr(unsafe.Pointer(arg)))
		runtime.KeepAlive(pagemap)
		if errno == unix.EINVAL && arg.inverted&pageIsGuard != 0 { // before Linux 6.16
			arg.mask, arg.inverted = arg.mask&^pageIsGuard, arg.inverted&^pageIsGuard
			continue
		}
		if errno == unix.ENOTTY || errno == unix.EINVAL && what == GuardPages {
			return errNoPagemapScan
		}
		if errno != 0 {
			return fmt.Errorf("%s: PAGEMAP_SCAN %#x-%#x: %w", pagemap.Name(), start, end, errno)
		}
		for _, r := range regions[:n] {
			if err := m.add(PageRange{r.start, r.end}); err != nil {
				return err
			}
		}
		if arg.walkEnd <= start {
			return fmt.Errorf("%s: PAGEMAP_SCAN %#x-%#x: no progress", pagemap.Name(), start, end)
		}
		start = arg.walkEnd
	}
	return m.flush()
}

// regionsFor is how many regions there is room for: no more than pages.
func regionsFor(start, end uint64) int {
	return int(min((end-start)/uint64(os.Getpagesize())+1, 512))
}

// unwanted returns the categories that a page must not have.
func unwanted(what PageFilter) uint64 {
	switch what {
	case NonzeroPages:
		return pageIsGuard | pageIsPFNZero
	case AnonPages:
		return pageIsGuard | pageIsFile
	case GuardPages, swappedPages:
		return 0
	case UnwrittenPages:
		return pageIsGuard | pageIsWritten
	}
	return pageIsGuard
}

// Bits of an entry of /proc/PID/pagemap, proc_pid_pagemap(5).
const (
	entryPresent = 1 << 63
	entrySwapped = 1 << 62
	entryFile    = 1 << 61 // or of shared memory
	entryGuard   = 1 << 58 // Linux 6.15
)

// scanEntries scans by reading the entries: 8 bytes for each page.
func scanEntries(pagemap *os.File, start, end uint64, what PageFilter, visit func(PageRange) error) error {
	page := uint64(os.Getpagesize())
	m := merger{visit: visit}
	buf := make([]byte, 64<<10)
	for start < end {
		want := min(uint64(len(buf)), (end-start)/page*8)
		n, err := pagemap.ReadAt(buf[:want], int64(start/page*8))
		if n < 8 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // the process has ended, or this is above its addresses
			}
			return fmt.Errorf("%s: at %#x: %w", pagemap.Name(), start, err)
		}
		for b := buf[:n/8*8]; len(b) > 0; b = b[8:] {
			if entrySelected(binary.NativeEndian.Uint64(b), what) {
				if err := m.add(PageRange{start, start + page}); err != nil {
					return err
				}
			}
			start += page
		}
	}
	return m.flush()
}

func entrySelected(entry uint64, what PageFilter) bool {
	if guard := entry&entryGuard != 0; guard || what == GuardPages {
		return guard && what == GuardPages
	}
	return entry&(entryPresent|entrySwapped) != 0 && (what != AnonPages || entry&entryFile == 0)
}

// merger joins adjacent ranges before it passes them on.
type merger struct {
	visit   func(PageRange) error
	pending PageRange // empty where nothing waits
}

func (m *merger) add(r PageRange) error {
	if r.Start == m.pending.End && m.pending.End > m.pending.Start {
		m.pending.End = r.End
		return nil
	}
	err := m.flush()
	m.pending = r
	return err
}

func (m *merger) flush() error {
	if m.pending.End == m.pending.Start {
		return nil
	}
	return m.visit(m.pending)
}
