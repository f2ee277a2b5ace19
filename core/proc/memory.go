package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// MapClaim asks the plugins for a mapping; owner "" where none claims it.
type MapClaim func(ctx context.Context, p plugin.Process, m plugin.Mapping) (owner string, policy plugin.MapPolicy, err error)

// mapSaver decides how each mapping comes back.
type mapSaver struct {
	t       *Tree
	st      *State
	claim   MapClaim
	refs    map[string]int    // by path and whether it is written to
	objects map[[2]uint64]int // by device and inode
}

func newMapSaver(t *Tree, st *State, claim MapClaim) *mapSaver {
	return &mapSaver{t: t, st: st, claim: claim, refs: map[string]int{}, objects: map[[2]uint64]int{}}
}

// maps describes all mappings of p. All refusals are joined.
func (s *mapSaver) maps(ctx context.Context, p *Process) ([]MapState, error) {
	vmas, err := procfs.ReadSmaps(p.liveTID())
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", p.pid, err)
	}
	var out []MapState
	var errs []error
	for i := range vmas {
		v := &vmas[i]
		if p.isOurs(v) || v.Path == "[vsyscall]" {
			continue
		}
		m, err := s.describe(ctx, p, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if m.Kind != "" {
			out = append(out, m)
		}
	}
	return out, errors.Join(errs...)
}

func (p *Process) isOurs(v *procfs.VMA) bool {
	return p.inj.base != 0 && v.Start >= p.inj.base && v.End <= p.inj.base+blobSize
}

// refusedFlags are VmFlags of memory that cannot come back.
var refusedFlags = map[string]string{
	"ht": "huge pages of hugetlbfs are not kept yet",
	"io": "it is memory of a device",
	"pf": "it is memory of a device",
	"um": "it is watched by a userfaultfd",
	"uw": "it is watched by a userfaultfd",
	"ss": "it is a shadow stack",
	"dp": "it is droppable memory (MAP_DROPPABLE)",
	"sf": "it is mapped with MAP_SYNC",
	"sl": "it is sealed (mseal(2))",
}

// keptFlags are VmFlags that are set again.
var keptFlags = []string{"gd", "nr", "lo", "dd", "dc", "wf", "hg", "nh", "mg", "rr", "sr", "mw"}

func (s *mapSaver) describe(ctx context.Context, p *Process, v *procfs.VMA) (MapState, error) {
	m := MapState{Start: v.Start, End: v.End, Prot: v.Prot(), Shared: v.Shared, Offset: v.Offset, Path: v.Path,
		Dev: v.Dev(), Ino: v.Ino}
	for _, f := range keptFlags {
		if v.Has(f) {
			m.Flags = append(m.Flags, f)
		}
	}
	if isVdso(v.Path) {
		m.Kind = MapVdso
		if v.Path == "[vdso]" && s.st.Vdso == nil {
			sum, err := p.vdsoSum(*v)
			if err != nil {
				return m, err
			}
			s.st.Vdso = sum
		}
		return m, nil
	}
	pm := plugin.Mapping{Start: v.Start, End: v.End, Prot: v.Prot(), Shared: v.Shared, Offset: v.Offset,
		Dev: v.Dev(), Ino: v.Ino, Path: v.Link(), Flags: v.Flags}
	owner, policy, err := s.claim(ctx, p, pm)
	if err != nil {
		return m, err
	}
	if owner != "" {
		return s.claimed(m, v, owner, policy)
	}
	return s.unclaimed(p, m, v)
}

func isVdso(path string) bool {
	return path == "[vdso]" || strings.HasPrefix(path, "[vvar")
}

func (s *mapSaver) claimed(m MapState, v *procfs.VMA, owner string, policy plugin.MapPolicy) (MapState, error) {
	m.Owner = owner
	switch policy {
	case plugin.MapSave:
		m.Kind, m.Shared, m.content = MapAnon, false, contentRead
	case plugin.MapShare:
		s.object(&m, v)
	case plugin.MapReopen:
		m.Kind = MapPlugin
		if !v.Shared {
			m.content = contentPrivate
		}
	case plugin.MapSkip:
		m.Kind = ""
	default:
		return m, fmt.Errorf("plugin %s: claims %s with unknown policy %d", owner, v.Path, policy)
	}
	return m, nil
}

// unclaimed applies the engine's own rules.
func (s *mapSaver) unclaimed(p *Process, m MapState, v *procfs.VMA) (MapState, error) {
	for _, f := range v.Flags {
		if why := refusedFlags[f]; why != "" {
			return m, refuse(p, describeVMA(v), "%s", why)
		}
	}
	switch {
	case !v.Shared && (v.Ino == 0 || v.Path == "/dev/zero"):
		m.Kind, m.Offset, m.content = MapAnon, 0, contentPrivate
	case strings.HasPrefix(v.Path, "/SYSV") || strings.HasPrefix(v.Path, "/[aio]"):
		return m, refuse(p, describeVMA(v), "no plugin keeps this kind of memory")
	case v.Shared && (v.Deleted || v.Ino == 0):
		s.object(&m, v)
	case v.Deleted:
		m.Kind, m.Offset, m.content = MapAnon, 0, contentRead
	case strings.HasPrefix(v.Path, "/"):
		return s.file(p, m, v)
	default:
		return m, refuse(p, describeVMA(v), "unknown kind of memory")
	}
	return m, nil
}

func describeVMA(v *procfs.VMA) string {
	return fmt.Sprintf("mapping %x-%x %s", v.Start, v.End, v.Link())
}

// object enters the mapping in the list of shared memory.
func (s *mapSaver) object(m *MapState, v *procfs.VMA) {
	key := [2]uint64{v.Dev(), v.Ino}
	i, ok := s.objects[key]
	if !ok {
		i = len(s.st.Objects)
		s.objects[key] = i
		s.st.Objects = append(s.st.Objects, ObjectState{Name: v.Path})
	}
	o := &s.st.Objects[i]
	o.Size = max(o.Size, v.Offset+v.Len())
	m.Kind, m.Ref, m.content = MapObject, i, contentAll
}

// smallFile is the largest size of a file mapped shared and writable whose
// content is kept, so that it can be made again if it is gone: others remove
// the statistics files of Java machines that have ended, for example.
const smallFile = 64 << 10

// file enters the mapping's file in the list of files that must be there.
func (s *mapSaver) file(p *Process, m MapState, v *procfs.VMA) (MapState, error) {
	var st unix.Stat_t
	path := filepath.Join("/proc", fmt.Sprint(p.liveTID()), "root", v.Path)
	if err := unix.Stat(path, &st); err != nil {
		return m, refuse(p, describeVMA(v), "its file cannot be found any more: %v", err)
	}
	if st.Dev == v.Dev() && st.Ino != v.Ino {
		return m, refuse(p, describeVMA(v), "another file has taken its name")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return m, refuse(p, describeVMA(v), "it is memory of a device")
	}
	f := MappedFile{Path: v.Path, Size: st.Size, Mtime: timeOf(st.Mtim)}
	if v.Shared && v.Has("mw") {
		f = MappedFile{Path: v.Path, Size: st.Size, Write: true}
	}
	key := fmt.Sprint(f.Write, f.Path)
	i, ok := s.refs[key]
	if !ok {
		if f.Write && v.Offset == 0 && f.Size <= min(int64(v.Len()), smallFile) {
			f.Content = make([]byte, f.Size)
			if err := p.readMem(v.Start, f.Content); err != nil {
				return m, err
			}
		}
		i = len(s.st.Refs)
		s.refs[key] = i
		s.st.Refs = append(s.st.Refs, f)
	}
	m.Kind, m.Ref = MapFile, i
	if !v.Shared {
		m.content = contentPrivate
	}
	return m, nil
}

// finish numbers the spaces of the shared memory.
func (s *mapSaver) finish() {
	for i := range s.st.Objects {
		s.st.Objects[i].Space = uint32(len(s.st.Processes) + i)
	}
}

// pageRun is a run of pages to save: Len bytes at Addr in a process, which
// are at Key in the space of the image.
type pageRun struct {
	p     *Process
	addr  uint64
	len   uint64
	space uint32
	key   uint64
	holes bool // pages that cannot be read are holes (beyond the end of a file)
	dense bool // pages of zeros count: a file shows where they are left out
}

// WriteMemory writes all memory that the image must hold, with as many
// writers as w has stripes.
func (t *Tree) WriteMemory(ctx context.Context, st *State, w *image.Writer, stripes int, progress func(done, total int64)) error {
	runs, err := t.pageRuns(ctx, st)
	if err != nil {
		return err
	}
	var total, done int64
	for _, r := range runs {
		total += int64(r.len)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan pageRun)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range stripes {
		wg.Go(func() {
			buf := make([]byte, chunkSize)
			for r := range next {
				if err := r.write(w.Stripe(i), buf); err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				done += int64(r.len)
				progress(done, total)
				mu.Unlock()
			}
		})
	}
feed:
	for _, r := range runs {
		select {
		case next <- r:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// chunkSize is what a writer reads and writes at a time.
const chunkSize = 1 << 20

func (r *pageRun) write(s *image.StripeWriter, buf []byte) error {
	b := buf[:r.len]
	err := r.p.readMem(r.addr, b)
	if err != nil && r.holes {
		err = r.readPages(b)
	}
	if err != nil {
		return err
	}
	if r.dense {
		return s.WriteDense(r.space, r.key, b)
	}
	return s.Write(r.space, r.key, b)
}

// readPages reads page by page, and takes what cannot be read as zeros.
func (r *pageRun) readPages(b []byte) error {
	page := os.Getpagesize()
	for off := 0; off < len(b); off += page {
		if err := r.p.readMem(r.addr+uint64(off), b[off:off+page]); err != nil {
			clear(b[off : off+page])
		}
	}
	return nil
}

// pageRuns lists the pages to save, in runs of at most chunkSize.
func (t *Tree) pageRuns(ctx context.Context, st *State) ([]pageRun, error) {
	var runs []pageRun
	seen := make([]intervals, len(st.Objects))
	procs := t.procs
	for i := range st.Processes {
		ps, p := &st.Processes[i], procs[i]
		if ps.Zombie {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.liveTID()))
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", p.pid, err)
		}
		for j := range ps.Maps {
			r, err := t.runsOf(ctx, st, p, ps, &ps.Maps[j], f, seen)
			if err != nil {
				f.Close()
				return nil, fmt.Errorf("pid %d: %w", p.pid, err)
			}
			runs = append(runs, r...)
		}
		f.Close()
	}
	return runs, nil
}

func (t *Tree) runsOf(ctx context.Context, st *State, p *Process, ps *ProcessState, m *MapState, pagemap *os.File, seen []intervals) (runs []pageRun, err error) {
	add := func(start, end uint64, space uint32, key uint64, holes bool) {
		for start < end {
			n := min(end-start, chunkSize)
			runs = append(runs, pageRun{p: p, addr: start, len: n, space: space, key: key, holes: holes,
				dense: m.content == contentPrivate && m.Kind != MapAnon})
			start, key = start+n, key+n
		}
	}
	switch m.content {
	case contentPrivate:
		filter := linux.NonzeroPages
		if m.Kind != MapAnon {
			filter = linux.AnonPages
		}
		err = linux.ScanPages(pagemap, m.Start, m.End, filter, func(r linux.PageRange) error {
			add(r.Start, r.End, ps.Space, r.Start, false)
			return nil
		})
	case contentRead:
		add(m.Start, m.End, ps.Space, m.Start, true)
	case contentAll:
		if st.Objects[m.Ref].File != 0 {
			return nil, nil
		}
		var resident []linux.PageRange
		if resident, err = p.resident(ctx, m); err != nil {
			return nil, err
		}
		for _, r := range resident {
			for _, fresh := range seen[m.Ref].add(m.Offset+r.Start-m.Start, m.Offset+r.End-m.Start) {
				add(m.Start+fresh.Start-m.Offset, m.Start+fresh.End-m.Offset, st.Objects[m.Ref].Space, fresh.Start, true)
			}
		}
	}
	return runs, err
}

// resident lists the pages of shared memory that exist. Page tables do not
// tell: another process may have made them, so that mincore(2) is asked. What
// is swapped out it does not show either: with swap in use all is read.
func (p *Process) resident(ctx context.Context, m *MapState) ([]linux.PageRange, error) {
	if swapInUse() {
		return []linux.PageRange{{Start: m.Start, End: m.End}}, nil
	}
	page := uint64(os.Getpagesize())
	var out []linux.PageRange
	vec := make([]byte, blobScratch)
	for at := m.Start; at < m.End; {
		n := min((m.End-at)/page, blobScratch)
		err := p.tr.Do(func() error {
			return p.run(ctx, p.threads[0], []call{sys(unix.SYS_MINCORE, at, n*page, p.inj.scratch()).as("mincore %#x", at)})
		})
		if err == nil {
			err = p.readMem(p.inj.scratch(), vec[:n])
		}
		if err != nil {
			return nil, err
		}
		for i, v := range vec[:n] {
			if v&1 == 0 {
				continue
			}
			a := at + uint64(i)*page
			if k := len(out); k > 0 && out[k-1].End == a {
				out[k-1].End += page
			} else {
				out = append(out, linux.PageRange{Start: a, End: a + page})
			}
		}
		at += n * page
	}
	return out, nil
}

func swapInUse() bool {
	var si unix.Sysinfo_t
	return unix.Sysinfo(&si) != nil || si.Freeswap != si.Totalswap
}

// intervals is a set of addresses.
type intervals []linux.PageRange

// add puts [start, end) into the set and returns what was not in it.
func (s *intervals) add(start, end uint64) (fresh []linux.PageRange) {
	at := start
	for _, r := range *s {
		if r.End <= at || r.Start >= end {
			continue
		}
		if r.Start > at {
			fresh = append(fresh, linux.PageRange{Start: at, End: r.Start})
		}
		at = max(at, r.End)
	}
	if at < end {
		fresh = append(fresh, linux.PageRange{Start: at, End: end})
	}
	*s = append(*s, fresh...)
	slices.SortFunc(*s, func(a, b linux.PageRange) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	return fresh
}
