package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/parallel"
)

// filling is what a Restorer knows of memory.
type filling struct {
	debug       func(format string, args ...any)
	noUserfault error    // why there is none
	lazy        bool     // wanted
	late        *Arrival // nil: all memory comes before the program runs
	lateMaps    map[mapKey]bool
	thp         string        // how the host uses transparent huge pages; "": not read yet
	rest        []image.Piece // whose places Fill has not made
}

// Fill gives every process its private anonymous memory, and compares the whole
// image with its sums on the way: so each byte is read once. Nothing but blank
// processes exists then, which have run no code of the program's and had no
// effect outside of themselves; of a damaged image they are all that ends.
func (r *Restorer) Fill(ctx context.Context, progress func(done, total int64)) error {
	pieces := r.img.Pieces()
	content := liveRanges(pieces)
	if r.lazy {
		if why := r.lateProblem(); why != "" {
			r.warn("--lazy: all memory comes before the program runs: %s", why)
		} else {
			r.lateMaps = r.chooseLate(content)
		}
	}
	fillers := map[uint32]*filler{}
	defer func() {
		for _, f := range fillers {
			f.close()
		}
	}()
	for i := range r.st.Processes {
		ps := &r.st.Processes[i]
		if ps.Zombie {
			continue
		}
		f := &filler{p: r.byPID[ps.PID], uffd: -1}
		fillers[ps.Space] = f
		if err := r.tr.Do(func() error { return r.mapAnonymous(ctx, f, ps, content[ps.Space]) }); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
	}
	for _, x := range pieces {
		if fillers[x.Space] == nil && (int(x.Space) < len(r.st.Processes) || x.Space >= r.st.endOfSpaces()) {
			return fmt.Errorf("memory: the image has an extent of an unknown space %d", x.Space)
		}
	}
	// What lies side by side in the files is read side by side.
	slices.SortFunc(pieces, func(a, b image.Piece) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Stripe, b.Stripe))
	})
	if r.late = r.prepareLate(fillers); r.late != nil {
		pieces = slices.DeleteFunc(pieces, r.late.take)
		r.late.sort()
	}
	var mu sync.Mutex
	err := r.eachPiece(ctx, pieces, progress, func(x *image.Piece, b []byte) error {
		all := false
		if f := fillers[x.Space]; f != nil {
			all = true
			for _, l := range x.Live {
				whole, err := f.place(b[l.Start-x.Addr:l.End-x.Addr], l.Start)
				if err != nil {
					return err
				}
				all = all && whole
			}
		}
		if !all {
			mu.Lock()
			r.rest = append(r.rest, *x)
			mu.Unlock()
		}
		return nil
	})
	if err != nil || r.late == nil {
		return err
	}
	return r.holdLate(ctx, fillers)
}

// liveRanges lists what the image has of each space, ascending.
func liveRanges(pieces []image.Piece) map[uint32][]image.Range {
	content := map[uint32][]image.Range{}
	for _, x := range pieces {
		content[x.Space] = append(content[x.Space], x.Live...)
	}
	for _, list := range content { // of a chain they come generation by generation
		slices.SortFunc(list, func(a, b image.Range) int { return cmp.Compare(a.Start, b.Start) })
	}
	return content
}

// eachPiece reads pieces, compares them with their sums and gives them to
// use, in as many goroutines as there are processors.
func (r *Restorer) eachPiece(ctx context.Context, pieces []image.Piece, progress func(done, total int64), use func(*image.Piece, []byte) error) error {
	all := int64(0)
	for _, x := range pieces {
		all += int64(x.Len)
	}
	workers := min(runtime.GOMAXPROCS(0), int(all/chunkSize)+1)
	room, err := newBuffers(workers, int(min(chunkSize, all)))
	if err != nil {
		return err
	}
	defer room.free()
	done := tally{total: all, report: progress}
	return parallel.Each(ctx, pieces, workers, func(worker int, x *image.Piece) error {
		b := room.of(worker)[:x.Len]
		if err := r.img.ReadPiece(*x, b); err != nil {
			return err
		}
		if err := use(x, b); err != nil {
			return err
		}
		done.add(int64(x.Len))
		return nil
	})
}

// mapAnonymous makes the private anonymous mappings of a process, and opens
// the ways to fill them with content.
func (r *Restorer) mapAnonymous(ctx context.Context, f *filler, ps *ProcessState, content []image.Range) error {
	if err := r.placeVdso(ctx, f.p, ps); err != nil {
		return err
	}
	maps := ps.anonymous()
	m := &memoryRestorer{Restorer: r}
	if err := m.mapAll(ctx, f.p, ps, maps); err != nil {
		return err
	}
	size, some := uint64(0), false
	for _, ms := range maps {
		n := within(content, ms.Start, ms.End)
		if n == 0 {
			continue
		}
		size += n
		late := r.lateMaps[mapKey{ps.PID, ms.Start}]
		some = some || late
		f.areas = append(f.areas, fillArea{start: ms.Start, end: ms.End, late: late, direct: !late && (ms.Huge != 0 || r.hugePages(&ms))})
	}
	if size < smallFill && !some {
		return nil
	}
	return r.openUserfault(ctx, f)
}

// smallFill is how much memory is filled faster than a userfaultfd is made.
const smallFill = 256 << 10

// anonymous lists the mappings that nothing but the image makes.
func (ps *ProcessState) anonymous() []MapState {
	return slices.DeleteFunc(slices.Clone(ps.Maps), func(m MapState) bool { return m.Kind != MapAnon })
}

// within returns how many bytes of ascending ranges lie between start and end.
func within(ranges []image.Range, start, end uint64) (n uint64) {
	i, _ := slices.BinarySearchFunc(ranges, start, func(r image.Range, at uint64) int { return cmp.Compare(r.End, at+1) })
	for ; i < len(ranges) && ranges[i].Start < end; i++ {
		n += min(end, ranges[i].End) - max(start, ranges[i].Start)
	}
	return n
}

// hugePages says whether a mapping gets transparent huge pages when it is
// written to, which a userfaultfd would keep from it.
func (r *Restorer) hugePages(ms *MapState) bool {
	const hugePage = 2 << 20
	switch {
	case slices.Contains(ms.Flags, "nh") || ms.End-ms.Start < hugePage:
		return false
	case slices.Contains(ms.Flags, "hg"):
		return true
	}
	if r.thp == "" {
		b, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled") // gone: none
		r.thp = string(b) + "\n"
	}
	return strings.HasPrefix(r.thp, "[always]")
}

// openUserfault makes a userfaultfd in the process and takes it: the process
// keeps nothing of it. Where there is none, memory is written as it is
// without: on kernels before 5.11, or where a container forbids it.
func (r *Restorer) openUserfault(ctx context.Context, f *filler) error {
	if r.noUserfault != nil {
		return nil
	}
	p := f.p
	fd, err := p.takeUserfault(ctx, linux.UserfaultStart)
	if _, none := errors.AsType[noUserfaultError](err); none {
		r.noUserfault = err
		r.tell("pid %d: memory is filled without userfaultfd(2): %v", p.pid, err)
		return nil
	}
	if err != nil {
		return err
	}
	f.uffd = fd
	for i := range f.areas {
		a := &f.areas[i]
		if !a.direct {
			if err := linux.UserfaultRegister(f.uffd, a.start, a.end); err != nil {
				r.tell("pid %d: %v", p.pid, err)
				continue
			}
			a.missing = true
		}
	}
	return nil
}

// tell writes to the log of what only its readers want to know.
func (f *filling) tell(format string, args ...any) {
	if f.debug != nil {
		f.debug(format, args...)
	}
}

// filler puts content into the anonymous memory of one process.
type filler struct {
	p     *Process
	uffd  int        // -1: none
	areas []fillArea // ascending
}

// fillArea is one mapping: UFFDIO_COPY copies into one at a time (ENOENT).
type fillArea struct {
	start, end uint64
	direct     bool // pages are huge, or become so
	missing    bool // pages are made by the userfaultfd
	late       bool // when the program runs already
}

func (f *filler) close() {
	if f.uffd >= 0 {
		unix.Close(f.uffd)
		f.uffd = -1
	}
}

// place copies the parts of b, which belongs to addr, that lie in the areas,
// and says whether that is all of it.
func (f *filler) place(b []byte, addr uint64) (whole bool, err error) {
	i, _ := slices.BinarySearchFunc(f.areas, addr, func(a fillArea, at uint64) int { return cmp.Compare(a.end-1, at) })
	end := addr + uint64(len(b))
	placed := 0
	for ; i < len(f.areas) && f.areas[i].start < end; i++ {
		a := &f.areas[i]
		from, to := max(a.start, addr), min(a.end, end)
		if err := f.copy(a, b[from-addr:to-addr], from); err != nil {
			return false, err
		}
		placed += int(to - from)
	}
	return placed == len(b), nil
}

func (f *filler) copy(a *fillArea, b []byte, addr uint64) error {
	if !a.missing {
		return f.p.fillMem(addr, b)
	}
	for len(b) > 0 {
		n, err := linux.UserfaultCopy(f.uffd, addr, b)
		if errors.Is(err, unix.EEXIST) { // only pages that are there may be written
			page := os.Getpagesize()
			if err = f.p.fillMem(addr+uint64(n), b[n:n+page]); err == nil {
				n += page
			}
		}
		if err != nil {
			return fmt.Errorf("pid %d: %w", f.p.pid, err)
		}
		addr, b = addr+uint64(n), b[n:]
	}
	return nil
}
