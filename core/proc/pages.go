package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// pageRun is a run of pages to save: Len bytes at Addr in a process, which
// are at Key in the space of the image.
type pageRun struct {
	p     *Process
	addr  uint64
	len   uint64
	space uint32
	key   uint64
	from  io.ReaderAt // has the bytes, in place of p
	held  []byte      // the bytes themselves, where they were read in the pause
	holes bool        // pages that are not there are holes (beyond the end of a file)
	dense bool        // pages of zeros count: a file shows where they are left out
}

// chunkSize is what a writer reads and writes at a time.
const chunkSize = 1 << 20

// read reads the pages into b, which is as long as they are.
func (r *pageRun) read(b []byte) error {
	if r.from != nil {
		return readContent(r.from, b, r.addr)
	}
	err := r.p.readMem(r.addr, b)
	if r.holes && isHole(err) {
		err = r.readPages(b)
	}
	return err
}

// isHole says whether memory cannot be read because it is not there, as behind the end of a
// file (fs/proc/base.c, mem_rw; ptrace(2)). A process that has ended reads as the end of a file.
func isHole(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EFAULT) }

func (r *pageRun) write(s *image.PageWriter, buf []byte) error {
	b := r.held
	if b == nil {
		b = buf[:r.len]
		if err := r.read(b); err != nil {
			return err
		}
	}
	if r.dense {
		return s.WriteDense(r.space, r.key, b)
	}
	return s.Write(r.space, r.key, b)
}

// readPages reads page by page, and takes holes as zeros: on the
// tracer's thread, which is asked anyway for each page that cannot (see force).
func (r *pageRun) readPages(b []byte) error {
	page := os.Getpagesize()
	return r.p.tr.Do(func() error {
		for off := 0; off < len(b); off += page {
			switch err := r.p.readMem(r.addr+uint64(off), b[off:off+page]); {
			case isHole(err):
				clear(b[off : off+page])
			case err != nil:
				return err
			}
		}
		return nil
	})
}

// pageRuns appends the pages of the mappings that pick takes to runs, in runs of at
// most chunkSize. source is the process to read them from; shared memory is read
// from the tree's own.
func (m *Memory) pageRuns(ctx context.Context, runs []pageRun, pick func(*Process, *MapState) bool, source func(*Process) *Process) ([]pageRun, error) {
	st := m.st
	seen, asked := make([]intervals, len(st.Objects)), make([]intervals, len(st.Objects))
	var hidden []hiddenPages
	for i := range st.Processes {
		ps, p := &st.Processes[i], m.t.procs[i]
		if ps.Zombie {
			continue
		}
		var maps, shared []*MapState
		for j := range ps.Maps {
			s := &ps.Maps[j]
			if s.content == contentNone || !pick(p, s) {
				continue
			}
			maps = append(maps, s)
			if s.content != contentAll || st.Objects[s.Ref].File != 0 {
				continue
			}
			if asked[s.Ref].has(s.Offset, s.Offset+s.End-s.Start) { // another process has told what there is of it
				continue
			}
			shared = append(shared, s)
			if len(s.Guards) == 0 {
				asked[s.Ref].add(s.Offset, s.Offset+s.End-s.Start)
			}
		}
		resident, err := p.resident(ctx, shared)
		if err == nil && len(maps) > 0 {
			runs, err = m.runsOfProcess(runs, source(p), ps, maps, resident, seen)
		}
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.pid, err)
		}
		hidden = append(hidden, hiddenBehindGuards(p, shared, resident)...)
	}
	return m.hiddenRuns(ctx, runs, hidden, seen)
}

func (m *Memory) runsOfProcess(runs []pageRun, p *Process, ps *ProcessState, maps []*MapState, resident map[*MapState]residence, seen []intervals) ([]pageRun, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.liveTID()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var group []*MapState // private memory in a row
	flush := func() (err error) {
		runs, err = privateRuns(runs, p, ps, group, f)
		group = group[:0]
		return err
	}
	for j := range ps.Maps {
		s := &ps.Maps[j]
		picked := len(maps) > 0 && maps[0] == s
		if picked {
			maps = maps[1:]
		}
		private := picked && s.content == contentPrivate
		if len(group) > 0 && (!private || (s.Kind == MapAnon) != (group[0].Kind == MapAnon)) {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		switch {
		case private:
			group = append(group, s)
		case picked:
			runs = wholeRuns(runs, m.st, p, ps, s, resident[s], seen)
		}
	}
	err = flush()
	if err == nil {
		err = p.hasMemory() // of one that has ended the scan finds nothing
	}
	return runs, err
}

// hasMemory returns an error where a process has none any more, as it has ended.
func (p *Process) hasMemory() error {
	if err := p.readMem(p.inj.base, make([]byte, 1)); err != nil {
		return fmt.Errorf("it has ended: %w", err)
	}
	return nil
}

// privateRuns appends the pages of mappings of private memory, all anonymous or
// all of files.
func privateRuns(runs []pageRun, p *Process, ps *ProcessState, maps []*MapState, pagemap *os.File) ([]pageRun, error) {
	if len(maps) == 0 {
		return runs, nil
	}
	filter, dense := linux.NonzeroPages, false
	if maps[0].Kind != MapAnon {
		filter, dense = linux.AnonPages, true
	}
	ranges := make([]linux.PageRange, len(maps))
	for i, m := range maps {
		ranges[i] = linux.PageRange{Start: m.Start, End: m.End}
	}
	err := linux.ScanRanges(pagemap, ranges, filter, func(i int, r linux.PageRange) error {
		for r := range without(r, maps[i].unread()) {
			runs = appendRuns(runs, pageRun{p: p, addr: r.Start, len: r.End - r.Start, space: ps.Space, key: r.Start, dense: dense})
		}
		return nil
	})
	return runs, err
}

// unread is what of a mapping is not to be read: what the parent of the image has, or guard
// regions, which have nothing, and which kernels before 6.16 do not tell from swap. Memory
// with guard regions is not tracked.
func (m *MapState) unread() []linux.PageRange {
	if len(m.kept) > 0 {
		return m.kept
	}
	return m.guards()
}

// wholeRuns appends the pages of other mappings.
func wholeRuns(runs []pageRun, st *State, p *Process, ps *ProcessState, m *MapState, resident residence, seen []intervals) []pageRun {
	if m.content == contentRead {
		return appendRuns(runs, pageRun{p: p, addr: m.Start, len: m.End - m.Start, space: ps.Space, key: m.Start, holes: true})
	}
	o := &st.Objects[m.Ref]
	if o.File != 0 {
		return runs
	}
	guards := m.guards()
	for _, r := range resident.pages {
		for r := range without(r, guards) {
			for _, fresh := range seen[m.Ref].add(m.Offset+r.Start-m.Start, m.Offset+r.End-m.Start) {
				runs = appendRuns(runs, pageRun{p: p, addr: m.Start + fresh.Start - m.Offset, len: fresh.End - fresh.Start, space: o.Space, key: fresh.Start, holes: resident.guessed})
			}
		}
	}
	return runs
}

// appendRuns adds r in pieces of at most chunkSize.
func appendRuns(runs []pageRun, r pageRun) []pageRun {
	for left := r.len; left > 0; left -= r.len {
		r.len = min(left, chunkSize)
		runs = append(runs, r)
		r.addr, r.key = r.addr+r.len, r.key+r.len
	}
	return runs
}

// intervals is a set of addresses.
type intervals []linux.PageRange

// add puts [start, end) into the set, which is sorted and without neighbours
// that touch, and returns what was not in it.
func (s *intervals) add(start, end uint64) (fresh []linux.PageRange) {
	// The first that ends at start or later, and the first behind end.
	first, _ := slices.BinarySearchFunc(*s, start, func(r linux.PageRange, a uint64) int { return cmp.Compare(r.End, a) })
	last := first
	at, merged := start, linux.PageRange{Start: start, End: end}
	for ; last < len(*s) && (*s)[last].Start <= end; last++ {
		r := (*s)[last]
		if r.Start > at {
			fresh = append(fresh, linux.PageRange{Start: at, End: r.Start})
		}
		at = max(at, r.End)
		merged.Start, merged.End = min(merged.Start, r.Start), max(merged.End, r.End)
	}
	if at < end {
		fresh = append(fresh, linux.PageRange{Start: at, End: end})
	}
	*s = slices.Replace(*s, first, last, merged)
	return fresh
}

// has says whether all of [start, end) is in the set.
func (s intervals) has(start, end uint64) bool {
	i, _ := slices.BinarySearchFunc(s, start, func(r linux.PageRange, a uint64) int { return cmp.Compare(r.End, a+1) })
	return i < len(s) && s[i].Start <= start && end <= s[i].End
}
