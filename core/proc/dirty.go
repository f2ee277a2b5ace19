package proc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/parallel"
)

// Dirty tracks which private anonymous memory changes from one generation to
// the next: with a userfaultfd(2) for each process, held by the agent, that
// protects pages from writing. The kernel resolves the faults by itself
// (UFFD_FEATURE_WP_ASYNC), nobody waits for the agent, and what the agent's end
// leaves behind is memory without protection.
//
// Everything else counts as changed: what was mapped, moved (mremap(2)) or
// given back since, children of fork(2), programs after execve(2), mappings of
// files. So does shared memory, which others may write to in ways that no page
// table of the tree shows: write(2) to a memfd, a process that has come and gone.
type Dirty struct {
	procs map[int]*watch // by host pid
}

// watch is the tracking of one process.
type watch struct {
	uffd       int
	generation uint64            // the last that it was armed at
	space      uint32            // of the process in that generation's image
	ranges     []linux.PageRange // that it was armed for
	kept       []linux.PageRange // room for what has not changed
}

// NewDirty returns a Dirty that tracks nothing yet.
func NewDirty() *Dirty { return &Dirty{procs: map[int]*watch{}} }

// Close ends all tracking.
func (d *Dirty) Close() {
	for host := range d.procs {
		d.drop(host)
	}
}

func (d *Dirty) drop(host int) {
	if w := d.procs[host]; w != nil {
		unix.Close(w.uffd)
		delete(d.procs, host)
	}
}

// written estimates how much of a process has changed since its last
// generation, and in how many pieces, while it runs.
func (d *Dirty) written(host int) (sum uint64, pieces int) {
	w := d.procs[host]
	if w == nil {
		return 0, 0
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", host))
	if err != nil {
		return 0, 0
	}
	defer pagemap.Close()
	for _, r := range w.ranges {
		// EPERM: it is not what it was, and counts when it is looked at.
		_ = linux.ScanPages(pagemap, r.Start, r.End, linux.WrittenPages, func(r linux.PageRange) error {
			sum += r.End - r.Start
			pieces++
			return nil
		})
	}
	w.kept = ready[linux.PageRange](pieces + len(w.ranges))
	return sum, pieces
}

// Track has Inspect and Mark know what of the tree's memory d watches.
func (t *Tree) Track(d *Dirty) { t.dirty = d }

// tracks says whether anything of the tree is watched.
func (t *Tree) tracks() bool { return t.dirty != nil && len(t.dirty.procs) > 0 }

// readMaps reads the mappings of p, and takes the mark of our own userfaultfd
// off: watched has where those begin that have it. One that is not ours stays.
// Where memory moved from one process to another, as that of clone(2) with
// CLONE_VM whose parent called execve(2), all tracking ends.
func (t *Tree) readMaps(p *Process) (vmas []procfs.VMA, watched map[uint64]bool, err error) {
	for {
		vmas, err = t.mappings(p)
		if err == nil && p.surveyed != nil && slices.ContainsFunc(vmas, func(v procfs.VMA) bool { return v.Has("uw") && !p.stillWatched(&v) }) {
			p.surveyed = nil
			vmas, err = procfs.ReadSmaps(p.liveTID())
		}
		unwatched := map[*string][]string{} // VmFlags, which mappings share
		if err != nil || !t.tracks() {
			return vmas, nil, err
		}
		w, foreign := t.dirty.procs[p.host], false
		watched = map[uint64]bool{}
		for i := range vmas {
			v := &vmas[i]
			if !v.Has("uw") {
				continue
			}
			// Its own mappings a userfaultfd registers again, and no others'.
			if w == nil || linux.WatchRange(w.uffd, v.Start, v.End) != nil {
				foreign = true
				continue
			}
			watched[v.Start] = true
			v.Flags = withoutWatch(unwatched, v.Flags)
		}
		if !foreign {
			return vmas, watched, nil
		}
		t.dirty.Close()
	}
}

func withoutWatch(known map[*string][]string, flags []string) []string {
	out, ok := known[&flags[0]]
	if !ok {
		out = slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f == "uw" })
		known[&flags[0]] = out
	}
	return out
}

// stillWatched says whether a mapping is watched by a userfaultfd as ours, of which a survey said
// so: another mapping may have taken its place, and it may be the program's.
func (p *Process) stillWatched(v *procfs.VMA) bool {
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.liveTID()))
	if err != nil {
		return false
	}
	defer pagemap.Close()
	page := uint64(os.Getpagesize())
	return linux.ScanPages(pagemap, v.Start, v.Start+page, linux.UnwrittenPages, func(linux.PageRange) error { return nil }) == nil
}

// Mark finds out what has not changed since generation base, whose image the
// new one then builds on; with 0 all counts as changed. From now on, the moment
// of generation, changes are tracked anew. st is the tree's state. Processes
// that cannot be tracked are saved whole; the error, of the first, says why.
func (t *Tree) Mark(ctx context.Context, st *State, base, generation uint64) error {
	var first error
	seen := map[int]bool{}
	for i := range st.Processes {
		ps, p := &st.Processes[i], t.procs[i]
		if ps.Zombie {
			continue
		}
		seen[p.host] = true
		if err := t.mark(ctx, p, ps, base, generation); err != nil {
			t.dirty.drop(p.host)
			for j := range ps.Maps {
				ps.Maps[j].kept = nil
			}
			if ctx.Err() != nil {
				return err
			}
			if first == nil {
				first = fmt.Errorf("pid %d: %w", p.pid, err)
			}
		}
	}
	for host := range t.dirty.procs {
		if !seen[host] {
			t.dirty.drop(host)
		}
	}
	return first
}

func (t *Tree) mark(ctx context.Context, p *Process, ps *ProcessState, base, generation uint64) error {
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.liveTID()))
	if err != nil {
		return err
	}
	defer pagemap.Close()
	if w := t.dirty.procs[p.host]; w != nil && base != 0 && w.generation == base {
		ps.keptSpace = w.space
		if err := w.keep(ps, pagemap); err != nil {
			return err
		}
	}
	w, err := t.watch(ctx, p, ps)
	if err != nil {
		return err
	}
	if err := w.arm(ctx, ps, pagemap); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.Marking); err != nil {
		return err
	}
	w.generation, w.space = generation, ps.Space
	return nil
}

// arm has all that is tracked count as not written from now on.
func (w *watch) arm(ctx context.Context, ps *ProcessState, pagemap *os.File) error {
	each := func(ranges []linux.PageRange, do func(start, end uint64) error) error {
		return parallel.Each(ctx, ranges, runtime.GOMAXPROCS(0), func(_ int, r *linux.PageRange) error { return do(r.Start, r.End) })
	}
	fresh := rangesOf(ps, func(m *MapState) bool { return m.trackable() && !m.watched })
	if err := each(fresh, func(start, end uint64) error { return linux.Disarm(pagemap, w.uffd, start, end) }); err != nil {
		return err
	}
	w.ranges = rangesOf(ps, (*MapState).trackable)
	return each(w.ranges, func(start, end uint64) error { return linux.Rearm(pagemap, start, end) })
}

// rangesOf lists the memory of a process in mappings of a kind, in parts for
// several goroutines.
func rangesOf(ps *ProcessState, kind func(*MapState) bool) (ranges []linux.PageRange) {
	const part = 64 << 20
	for i := range ps.Maps {
		m := &ps.Maps[i]
		if !kind(m) {
			continue
		}
		for at := m.Start; at < m.End; at += part {
			ranges = append(ranges, linux.PageRange{Start: at, End: min(at+part, m.End)})
		}
	}
	return ranges
}

// trackable says whether changes of the mapping can be tracked: the protection
// of guard regions would hide what they are.
func (m *MapState) trackable() bool {
	return m.Kind == MapAnon && m.content == contentPrivate && m.Huge == 0 && len(m.Guards) == 0
}

// keep notes what of the memory of a process has not changed.
func (w *watch) keep(ps *ProcessState, pagemap *os.File) error {
	all := w.kept
	w.kept = nil
	for i := range ps.Maps {
		m := &ps.Maps[i]
		if !m.watched || !m.trackable() {
			continue
		}
		first := len(all)
		err := linux.ScanPages(pagemap, m.Start, m.End, linux.UnwrittenPages, func(r linux.PageRange) error {
			all = append(all, r)
			return nil
		})
		if err != nil {
			return err
		}
		m.kept = all[first:len(all):len(all)]
	}
	return nil
}

// watch has all memory of p watched that can be.
func (t *Tree) watch(ctx context.Context, p *Process, ps *ProcessState) (*watch, error) {
	w := t.dirty.procs[p.host]
	if w != nil {
		err := w.register(ps)
		if !errors.Is(err, unix.ENOMEM) {
			return w, err
		}
		t.dirty.drop(p.host) // it was of the program before execve(2)
	}
	var uffd int
	err := p.tr.Do(func() (err error) {
		uffd, err = p.takeUserfault(ctx, linux.WatchStart)
		return err
	})
	if err != nil {
		return nil, err
	}
	w = &watch{uffd: uffd}
	t.dirty.procs[p.host] = w
	return w, w.register(ps)
}

func (w *watch) register(ps *ProcessState) error {
	for i := range ps.Maps {
		if m := &ps.Maps[i]; m.trackable() {
			if err := linux.WatchRange(w.uffd, m.Start, m.End); err != nil {
				return err
			}
		}
	}
	return nil
}

// Inherit tells the image which memory its parent has, and says whether that has any.
func (st *State) Inherit(w *image.Writer) bool {
	for i := range st.Processes {
		ps := &st.Processes[i]
		for j := range ps.Maps {
			for _, r := range ps.Maps[j].kept {
				w.Inherit(ps.Space, ps.keptSpace, r.Start, r.End)
			}
		}
	}
	return st.inherits()
}

// inherits says whether the parent of the image has some of the memory.
func (st *State) inherits() bool {
	for i := range st.Processes {
		if slices.ContainsFunc(st.Processes[i].Maps, func(m MapState) bool { return len(m.kept) > 0 }) {
			return true
		}
	}
	return false
}

// without returns the parts of r that are in none of kept, which is ascending.
func without(r linux.PageRange, kept []linux.PageRange) iter.Seq[linux.PageRange] {
	return func(yield func(linux.PageRange) bool) {
		i := sort.Search(len(kept), func(i int) bool { return kept[i].End > r.Start })
		for ; i < len(kept) && kept[i].Start < r.End; i++ {
			if kept[i].Start > r.Start && !yield(linux.PageRange{Start: r.Start, End: kept[i].Start}) {
				return
			}
			r.Start = kept[i].End
		}
		if r.Start < r.End {
			yield(r)
		}
	}
}
