package linux

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// area is memory of the test, of pages made one by one.
type area struct {
	t    *testing.T
	mem  []byte
	page int
	sink byte // what read reads, lest the compiler leave it out
}

// newArea maps private anonymous memory without huge pages, which would
// populate neighbours.
func newArea(t *testing.T, pages int) *area {
	t.Helper()
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	// EINVAL: the kernel has no huge pages.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	return &area{t: t, mem: mem, page: page}
}

func (a *area) start() uint64         { return uint64(uintptr(unsafe.Pointer(&a.mem[0]))) }
func (a *area) end() uint64           { return a.start() + uint64(len(a.mem)) }
func (a *area) addr(page int) uint64  { return a.start() + uint64(page*a.page) }
func (a *area) bytes(page int) []byte { return a.mem[page*a.page : (page+1)*a.page] }
func (a *area) write(page int)        { a.bytes(page)[7] = 1 }
func (a *area) read(page int)         { a.sink += a.bytes(page)[7] }

// remap maps a page of the area anew.
func (a *area) remap(page, prot, flags, fd int) {
	a.t.Helper()
	_, err := unix.MmapPtr(fd, 0, unsafe.Pointer(&a.bytes(page)[0]), uintptr(a.page), prot, flags|unix.MAP_FIXED)
	if err != nil {
		a.t.Fatal(err)
	}
}

// pages returns the numbers of the pages that scan visits.
func (a *area) pages(scan scanner, pm *os.File, what PageFilter) []int {
	a.t.Helper()
	var list []int
	end := uint64(0)
	err := scan(pm, a.start(), a.end(), what, func(r PageRange) error {
		if r.Start >= r.End || r.Start <= end && end != 0 {
			a.t.Errorf("range %#x-%#x behind one that ends at %#x", r.Start, r.End, end)
		}
		for p := r.Start; p < r.End; p += uint64(a.page) {
			list = append(list, int(p-a.start())/a.page)
		}
		end = r.End
		return nil
	})
	if errors.Is(err, errNoPagemapScan) {
		a.t.Skip("needs Linux 6.7")
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

type scanner func(*os.File, uint64, uint64, PageFilter, func(PageRange) error) error

func openPagemap(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The kinds of pages in the area of TestScanPages.
const (
	privateDirty = iota
	zeroPage
	untouched
	fileClean
	fileCopied
	protNone
	protNoneUntouched
	sharedDirty
	kinds
)

func newMixedArea(t *testing.T) *area {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	a := newArea(t, kinds)
	if err := file.Truncate(int64(a.page)); err != nil {
		t.Fatal(err)
	}

	const rw = unix.PROT_READ | unix.PROT_WRITE
	fd := int(file.Fd())
	a.write(privateDirty)
	a.read(zeroPage)
	a.remap(fileClean, rw, unix.MAP_PRIVATE, fd)
	a.read(fileClean)
	a.remap(fileCopied, rw, unix.MAP_PRIVATE, fd)
	a.write(fileCopied)
	a.write(protNone)
	for _, p := range []int{protNone, protNoneUntouched} {
		if err := unix.Mprotect(a.bytes(p), unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	a.remap(sharedDirty, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1)
	a.write(sharedDirty)
	return a
}

// exclusive says whether no other process maps the page, which then is not the
// kernel's zero page: some kernels for virtual machines have none.
func (a *area) exclusive(pm *os.File, page int) bool {
	a.t.Helper()
	const entryExclusive = 1 << 56
	var entry [8]byte
	if _, err := pm.ReadAt(entry[:], int64(a.addr(page)/uint64(a.page)*8)); err != nil {
		a.t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(entry[:])&entryExclusive != 0
}

func TestScanPages(t *testing.T) {
	pm := openPagemap(t)
	a := newMixedArea(t)

	all := []int{privateDirty, zeroPage, fileClean, fileCopied, protNone, sharedDirty}
	nonzero := []int{privateDirty, fileClean, fileCopied, protNone, sharedDirty}
	anon := []int{privateDirty, zeroPage, fileCopied, protNone}
	if a.exclusive(pm, zeroPage) {
		nonzero = all
	}

	tests := []struct {
		name string
		scan scanner
		what PageFilter
		want []int
	}{
		{"table/all", scanTable, AllPages, all},
		{"table/nonzero", scanTable, NonzeroPages, nonzero},
		{"table/anon", scanTable, AnonPages, anon},
		{"entries/all", scanEntries, AllPages, all},
		{"entries/nonzero", scanEntries, NonzeroPages, all},
		{"entries/anon", scanEntries, AnonPages, anon},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a.t = t
			if got := a.pages(tt.scan, pm, tt.what); !slices.Equal(got, tt.want) {
				t.Errorf("got pages %v, want %v", got, tt.want)
			}
		})
	}
}

// TestScanPagesMany has more ranges than fit into one answer of the kernel,
// and more entries than one read.
func TestScanPagesMany(t *testing.T) {
	pm := openPagemap(t)
	const pages = 10000
	a := newArea(t, pages)
	var want []int
	for p := range pages {
		if p%3 != 1 || p > pages-100 {
			a.write(p)
			want = append(want, p)
		}
	}
	for name, scan := range map[string]scanner{"table": scanTable, "entries": scanEntries, "either": ScanPages} {
		t.Run(name, func(t *testing.T) {
			a.t = t
			if got := a.pages(scan, pm, NonzeroPages); !slices.Equal(got, want) {
				t.Errorf("got %d pages, want %d", len(got), len(want))
			}
		})
	}
}

func TestScanPagesErrors(t *testing.T) {
	pm := openPagemap(t)
	a := newArea(t, 4)
	a.write(0)
	a.write(2)
	never := func(PageRange) error { t.Error("visited"); return nil }

	t.Run("visit", func(t *testing.T) {
		stop := errors.New("enough")
		n := 0
		err := ScanPages(pm, a.start(), a.end(), AllPages, func(r PageRange) error {
			n++
			if want := (PageRange{a.addr(0), a.addr(1)}); r != want {
				t.Errorf("visited %#x, want %#x", r, want)
			}
			return stop
		})
		if err != stop || n != 1 {
			t.Errorf("got %v after %d visits, want %v after 1", err, n, stop)
		}
	})
	t.Run("unaligned", func(t *testing.T) {
		if err := ScanPages(pm, a.start()+1, a.end(), AllPages, never); err == nil {
			t.Error("no error")
		}
	})
	t.Run("empty", func(t *testing.T) {
		if err := ScanPages(pm, a.start(), a.start(), AllPages, never); err != nil {
			t.Error(err)
		}
	})
	t.Run("no pagemap", func(t *testing.T) {
		f, err := os.Open("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := scanTable(f, a.start(), a.end(), AllPages, never); !errors.Is(err, errNoPagemapScan) {
			t.Errorf("got %v, want %v", err, errNoPagemapScan)
		}
	})
	t.Run("entries above all addresses", func(t *testing.T) {
		page := uint64(os.Getpagesize())
		top := uint64(1)<<63 - page
		if err := scanEntries(pm, top-page, top, AllPages, never); err == nil {
			t.Error("no error")
		}
	})
}

func BenchmarkScanPages(b *testing.B) {
	pm, err := os.Open("/proc/self/pagemap")
	if err != nil {
		b.Fatal(err)
	}
	defer pm.Close()
	const size = 64 << 20
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := 0; i < size; i += os.Getpagesize() {
		mem[i] = 1
	}
	start := uint64(uintptr(unsafe.Pointer(&mem[0])))
	for name, scan := range map[string]scanner{"table": scanTable, "entries": scanEntries} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := scan(pm, start, start+size, NonzeroPages, func(PageRange) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestScanGuards finds guard regions by each way that kernels have.
func TestScanGuards(t *testing.T) {
	const madvGuardInstall = 102
	pm := openPagemap(t)
	a := newArea(t, 8)
	for _, p := range []int{0, 2, 3} {
		a.write(p)
	}
	for _, p := range []int{3, 5} {
		if err := unix.Madvise(a.bytes(p), madvGuardInstall); err != nil {
			t.Skip("needs Linux 6.13")
		}
	}
	if got := a.pages(scanEntries, pm, GuardPages); len(got) == 0 {
		t.Skip("needs Linux 6.15")
	}
	markers := func(f *os.File, start, end uint64, _ PageFilter, visit func(PageRange) error) error {
		return scanMarkers(f, start, end, visit)
	}
	for name, scan := range map[string]scanner{"markers": markers, "entries": scanEntries, "either": ScanPages} {
		t.Run(name, func(t *testing.T) {
			a.t = t
			if got := a.pages(scan, pm, GuardPages); !slices.Equal(got, []int{3, 5}) {
				t.Errorf("got pages %v, want 3 and 5", got)
			}
		})
	}
}
