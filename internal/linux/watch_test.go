package linux

import (
	"errors"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newWatch makes a userfaultfd of this process that watches.
func newWatch(t *testing.T) int {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, UserfaultFlags, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if err := WatchStart(int(fd)); errors.Is(err, ErrNoWatch) {
		unix.Close(int(fd))
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	return int(fd)
}

// TestDisarm has the kernel forget that memory is watched, and not what is
// written in its page table: two mappings become one when the second moves.
func TestDisarm(t *testing.T) {
	a, away, pm, fd := newArea(t, 8), newArea(t, 4), openPagemap(t), newWatch(t)
	defer unix.Close(fd)
	for n := range 8 {
		a.write(n)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to *byte) {
		t.Helper()
		_, err := unix.MremapPtr(unsafe.Pointer(from), uintptr(4*a.page), unsafe.Pointer(to), uintptr(4*a.page), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
		check(err)
	}
	move(&a.mem[4*a.page], &away.mem[0])
	for _, r := range []PageRange{{a.start(), a.addr(4)}, {away.start(), away.end()}} {
		check(WatchRange(fd, r.Start, r.End))
		check(Rearm(pm, r.Start, r.End))
	}
	move(&away.mem[0], &a.mem[4*a.page])
	a.write(0)
	a.write(4)
	check(WatchRange(fd, a.start(), a.end()))
	check(Disarm(pm, fd, a.start(), a.end()))
	if got := a.pages(ScanPages, pm, UnwrittenPages); got != nil {
		t.Errorf("unwritten are %v", got)
	}
	check(Rearm(pm, a.start(), a.end()))
	a.write(0)
	a.write(4)
	if got, want := a.pages(ScanPages, pm, UnwrittenPages), []int{1, 2, 3, 5, 6, 7}; !slices.Equal(got, want) {
		t.Errorf("unwritten are %v, want %v", got, want)
	}
}

func TestWatch(t *testing.T) {
	a, pm, fd := newArea(t, 8), openPagemap(t), newWatch(t)
	for n := range 5 {
		a.write(n)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, pages ...int) {
		t.Helper()
		if got := a.pages(ScanPages, pm, UnwrittenPages); !slices.Equal(got, pages) {
			t.Errorf("%s: unwritten are %v, want %v", when, got, pages)
		}
	}
	none := func(PageRange) error { return nil }
	if err := ScanPages(pm, a.start(), a.end(), UnwrittenPages, none); !errors.Is(err, unix.EPERM) {
		t.Errorf("scan of memory that is not watched: %v", err)
	}
	if err := Rearm(pm, a.start(), a.end()); !errors.Is(err, unix.EPERM) {
		t.Errorf("protection of memory that is not watched: %v", err)
	}
	check(WatchRange(fd, a.start(), a.end()))
	want("before the first time")
	check(Rearm(pm, a.start(), a.end()))
	want("at once", 0, 1, 2, 3, 4)
	check(WatchRange(fd, a.start(), a.end()))
	want("watched again", 0, 1, 2, 3, 4)
	a.write(1)
	a.write(6)
	a.read(0)
	a.read(7)
	check(unix.Madvise(a.bytes(2), unix.MADV_DONTNEED))
	zero, err := os.Open("/dev/zero")
	check(err)
	defer zero.Close()
	_, err = zero.Read(a.bytes(3))
	check(err)
	want("written by the program and the kernel, given back", 0, 4)
	check(Rearm(pm, a.start(), a.end()))
	want("once more", 0, 1, 3, 4, 6, 7)
	other := newWatch(t)
	defer unix.Close(other)
	if err := WatchRange(other, a.start(), a.end()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("watched by another: %v", err)
	}
	check(unix.Close(fd))
	if err := ScanPages(pm, a.start(), a.end(), UnwrittenPages, none); !errors.Is(err, unix.EPERM) {
		t.Errorf("scan after the end: %v", err)
	}
	a.write(0)
}
