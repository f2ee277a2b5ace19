package proc

import (
	"context"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// residence is the pages of a mapping that exist, or may.
type residence struct {
	pages   []linux.PageRange
	guessed bool // some may not: nothing tells
}

// resident lists the pages of shared memory that exist, mapping by mapping. Page
// tables do not tell: another process may have made them, so that mincore(2) is
// asked, of many mappings at once. What is swapped out it does not show: see swapIn.
// Of hugetlbfs it shows page tables only (mm/mincore.c, mincore_hugetlb), and of a file on a
// disk its page cache: all is read. Else nothing may be, as reading makes pages where
// there are none (mm/shmem.c, shmem_fault).
func (p *Process) resident(ctx context.Context, maps []*MapState) (map[*MapState]residence, error) {
	out := map[*MapState]residence{}
	asked := make([]*MapState, 0, len(maps))
	for _, m := range maps {
		if m.Huge != 0 || m.onDisk {
			out[m] = wholly(m)
		} else {
			asked = append(asked, m)
		}
	}
	if err := p.inCore(ctx, asked, out); err != nil {
		return nil, err
	}
	if len(asked) == 0 || !swapInUse() { // asked behind mincore: what is swapped out later has been seen
		return out, nil
	}
	asked = slices.DeleteFunc(asked, func(m *MapState) bool { return intervals(out[m].pages).has(m.Start, m.End) })
	return out, p.swapIn(ctx, asked, out)
}

func wholly(m *MapState) residence {
	return residence{pages: []linux.PageRange{{Start: m.Start, End: m.End}}, guessed: true}
}

// swapIn adds what is swapped out of the mappings to out. It is read in, and nothing is made:
// madvise(2) brings it into the swap's cache, which mincore(2) shows (mm/shmem.c, shmem_swapin_range),
// and who reads it there takes it out of the swap. So nothing of a mapping is missing when nothing of it
// is in the swap any more. Where that does not come about, all of it is taken for existing.
func (p *Process) swapIn(ctx context.Context, maps []*MapState, out map[*MapState]residence) error {
	const patience, steps = time.Second, 20 // without a page more
	maps, err := p.swapped(ctx, maps, out)
	for _, m := range maps {
		p.touch(out[m].pages)
	}
	for last, idle := time.Now(), 0; err == nil && len(maps) > 0; {
		if idle > steps && time.Since(last) > patience {
			break
		}
		var fresh []linux.PageRange
		if fresh, err = p.swapInStep(ctx, maps, out); err != nil {
			break
		}
		if idle++; len(fresh) > 0 {
			last, idle = time.Now(), 0
		}
		maps, err = p.swapped(ctx, maps, out)
	}
	for _, m := range maps {
		out[m] = wholly(m)
	}
	return err
}

// swapped returns those of the mappings of which something is swapped out. Of shared
// memory smaps counts what is of the object itself (fs/proc/task_mmu.c, smap_gather_stats).
// To out is added what others have brought in of the rest since it was made.
func (p *Process) swapped(ctx context.Context, maps []*MapState, out map[*MapState]residence) (some []*MapState, err error) {
	vmas, err := procfs.ReadSmaps(p.liveTID())
	if err != nil {
		return nil, err
	}
	var none []*MapState
	at := 0
	for _, m := range maps { // which are in order, as are vmas
		for at < len(vmas) && vmas[at].End <= m.Start {
			at++
		}
		sum := uint64(0)
		for i := at; i < len(vmas) && vmas[i].Start < m.End; i++ {
			sum += vmas[i].Swap
		}
		if sum > 0 {
			some = append(some, m)
		} else {
			none = append(none, m)
		}
	}
	_, err = p.addInCore(ctx, none, out)
	return some, err
}

// swapInStep returns the pages that it has found more.
func (p *Process) swapInStep(ctx context.Context, maps []*MapState, out map[*MapState]residence) (fresh []linux.PageRange, err error) {
	var calls []call
	for _, m := range maps {
		calls = append(calls, sys(unix.SYS_MADVISE, m.Start, m.End-m.Start, unix.MADV_WILLNEED).as("madvise %#x", m.Start).may())
	}
	if err := p.tr.Do(func() error { return p.run(ctx, p.threads[0], calls) }); err != nil {
		return nil, err
	}
	if fresh, err = p.addInCore(ctx, maps, out); err != nil {
		return nil, err
	}
	p.touch(fresh)
	time.Sleep(time.Millisecond) // nothing tells when the rest has come
	return fresh, nil
}

// addInCore adds what mincore(2) shows now, and returns what of it is new.
func (p *Process) addInCore(ctx context.Context, maps []*MapState, out map[*MapState]residence) (fresh []linux.PageRange, err error) {
	now := map[*MapState]residence{}
	if err := p.inCore(ctx, maps, now); err != nil {
		return nil, err
	}
	for _, m := range maps {
		set := intervals(out[m].pages)
		for _, r := range now[m].pages {
			fresh = append(fresh, set.add(r.Start, r.End)...)
		}
		out[m] = residence{pages: set}
	}
	return fresh, nil
}

// touch reads a byte of each page.
func (p *Process) touch(pages []linux.PageRange) {
	page := os.Getpagesize()
	room := new([maxPieces]byte)
	local := []unix.Iovec{{Base: &room[0]}}
	var remote []unix.RemoteIovec
	read := func() {
		for len(remote) > 0 {
			local[0].SetLen(len(remote))
			n, err := unix.ProcessVMReadv(p.liveTID(), local, remote, 0)
			if err != nil {
				n = 0
			}
			remote = remote[min(n+1, len(remote)):] // one that cannot be read shows when it is saved
		}
	}
	for _, r := range pages {
		for at := r.Start; at < r.End; at += uint64(page) {
			if remote = append(remote, unix.RemoteIovec{Base: uintptr(at), Len: 1}); len(remote) == maxPieces {
				read()
			}
		}
	}
	read()
}

// inCore adds what mincore(2) shows of the mappings to out.
func (p *Process) inCore(ctx context.Context, maps []*MapState, out map[*MapState]residence) error {
	page := uint64(os.Getpagesize())
	var batch mincoreBatch
	for _, m := range maps {
		for at := m.Start; at < m.End; {
			if batch.used == blobScratch || len(batch.calls) == maxRecords {
				if err := batch.run(ctx, p, page, out); err != nil {
					return err
				}
			}
			n := min((m.End-at)/page, blobScratch-batch.used)
			batch.calls = append(batch.calls, sys(unix.SYS_MINCORE, at, n*page, p.inj.scratch()+batch.used).as("mincore %#x", at))
			batch.maps = append(batch.maps, m)
			batch.used += n
			at += n * page
		}
	}
	return batch.run(ctx, p, page, out)
}

// mincoreBatch is calls of mincore(2), whose answers lie behind each other in
// the scratch area, and the mapping of each.
type mincoreBatch struct {
	calls []call
	maps  []*MapState
	used  uint64
}

func (b *mincoreBatch) run(ctx context.Context, p *Process, page uint64, out map[*MapState]residence) error {
	if len(b.calls) == 0 {
		return nil
	}
	vec := make([]byte, b.used)
	err := p.tr.Do(func() error { return p.run(ctx, p.threads[0], b.calls) })
	if err == nil {
		err = p.readMem(p.inj.scratch(), vec)
	}
	if err != nil {
		return err
	}
	for i, c := range b.calls {
		n := c.args[1] / page
		for k, v := range vec[:n] {
			if v&1 == 0 {
				continue
			}
			a, list := c.args[0]+uint64(k)*page, out[b.maps[i]].pages
			if last := len(list) - 1; last >= 0 && list[last].End == a {
				list[last].End += page
			} else {
				out[b.maps[i]] = residence{pages: append(list, linux.PageRange{Start: a, End: a + page})}
			}
		}
		vec = vec[n:]
	}
	*b = mincoreBatch{}
	return nil
}

func swapInUse() bool {
	var si unix.Sysinfo_t
	return unix.Sysinfo(&si) != nil || si.Freeswap != si.Totalswap
}
