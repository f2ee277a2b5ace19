package proc

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// anonName returns the name that a program has given its memory, prctl(2),
// PR_SET_VMA_ANON_NAME.
func anonName(path string) string {
	for _, prefix := range []string{"[anon:", "[anon_shmem:"} {
		if name, ok := strings.CutPrefix(path, prefix); ok {
			return strings.TrimSuffix(name, "]")
		}
	}
	return ""
}

// memoryFS are file systems whose files are in memory, or swapped out.
var memoryFS = []string{"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}

// onDisk says whether what v maps may be on a disk and not in memory: all but what is
// known to be memory, be it by the names that mm/shmem.c gives.
func (s *mapSaver) onDisk(v *procfs.VMA) bool {
	for _, prefix := range []string{"/dev/zero", "/memfd:", "/SYSV", "/anon_hugepage", "[anon_shmem:"} {
		if strings.HasPrefix(v.Path, prefix) {
			return false
		}
	}
	return !slices.Contains(memoryFS, s.filesystems()[v.Dev()]) // one that is not found counts as a disk
}

// filesystems lists the types of those that are mounted, by device.
func (s *mapSaver) filesystems() map[uint64]string {
	if s.mounted == nil {
		s.mounted, _ = procfs.ReadFilesystems(s.root)
	}
	return s.mounted
}

// Flags of mlockall(2).
const (
	mclFuture  = 2
	mclOnFault = 4

	mlockOnFault = 1 // MLOCK_ONFAULT of mlock2(2)
)

// lockedFuture tells by a mapping of ours whether new memory is locked: the
// kernel does not say so elsewhere.
func lockedFuture(ours *procfs.VMA) uint64 {
	switch {
	case ours.Has("lf"):
		return mclFuture | mclOnFault
	case ours.Has("lo"):
		return mclFuture
	}
	return 0
}

// guards finds the guard regions of all maps, madvise(2), MADV_GUARD_INSTALL.
func (s *mapSaver) guards(p *Process, vmas []procfs.VMA, maps []MapState) error {
	marked, err := s.t.tr.guardsMarked()
	if err != nil || len(maps) == 0 {
		return err
	}
	start, end := maps[0].Start, maps[len(maps)-1].End
	// Most programs have none. What is to be watched must be known to have none before it is: a
	// survey is proved behind that.
	if marked && (p.surveyed == nil || s.t.dirty == nil) {
		first := slices.IndexFunc(vmas, hasGuards)
		if first < 0 {
			return nil
		}
		start = vmas[first].Start
		for i := range slices.Backward(vmas) {
			if hasGuards(vmas[i]) {
				end = vmas[i].End
				break
			}
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.liveTID()))
	if err != nil {
		return err
	}
	defer f.Close()
	at := 0
	return linux.ScanPages(f, start, end, linux.GuardPages, func(r linux.PageRange) error {
		for ; at < len(maps) && maps[at].End <= r.Start; at++ {
		}
		for i := at; i < len(maps) && maps[i].Start < r.End; i++ {
			maps[i].Guards = append(maps[i].Guards, GuardRange{max(r.Start, maps[i].Start), min(r.End, maps[i].End)})
		}
		return nil
	})
}

func hasGuards(v procfs.VMA) bool { return v.Has("gu") }

// readPolicies asks for the memory policy, mbind(2), of each mapping that is picked.
func (p *Process) readPolicies(ctx context.Context, all []MapState, pick func(*MapState) bool) error {
	const room = 8
	const most = blobScratch / room
	maps := make([]*MapState, 0, len(all))
	for i := range all {
		if pick(&all[i]) {
			maps = append(maps, &all[i])
		}
	}
	for len(maps) > 0 {
		n := min(len(maps), most, maxRecords)
		calls := make([]call, n)
		for i := range calls {
			calls[i] = sys(unix.SYS_GET_MEMPOLICY, p.inj.scratch()+uint64(i)*room, 0, 0, maps[i].Start, mpolFAddr).may()
		}
		modes := make([]byte, n*room)
		err := p.tr.Do(func() error { return p.run(ctx, p.threads[0], calls) })
		if err == nil {
			err = p.readMem(p.inj.scratch(), modes)
		}
		if err != nil {
			return err
		}
		for i := range calls {
			mode := le.Uint32(modes[i*room:])
			if calls[i].failed() || mode == mpolDefault { // ENOSYS: a kernel without CONFIG_NUMA
				continue
			}
			if err := p.readPolicy(ctx, maps[i]); err != nil {
				return err
			}
		}
		maps = maps[n:]
	}
	return nil
}

// readPolicy asks for the nodes too.
func (p *Process) readPolicy(ctx context.Context, m *MapState) error {
	at := p.inj.scratch()
	got := make([]byte, 16+nodeBytes)
	err := p.tr.Do(func() error {
		return p.run(ctx, p.threads[0], []call{sys(unix.SYS_GET_MEMPOLICY, at, at+16, maxNodes+1, m.Start, mpolFAddr).as("get_mempolicy %#x", m.Start)})
	})
	if err == nil {
		err = p.readMem(at, got)
	}
	m.NUMA = newNUMAState(le.Uint32(got), got[16:])
	return err
}

// describeMemory gives mappings what few have: memory policies, names and
// guard regions.
func (m *memoryRestorer) describeMemory(ctx context.Context, p *Process, maps []MapState) error {
	const reserve = 32 << 10 // for the arguments of one mapping
	b := newArgs(p)
	var calls []call
	flush := func() error {
		err := b.flush(ctx, p.threads[0], calls)
		for i := range calls {
			if e := calls[i].err(); e != nil && err == nil {
				m.warn("pid %d: not as it was: %v", p.pid, e)
			}
		}
		calls = nil
		return err
	}
	for i := range maps {
		ms := &maps[i]
		if b.full(reserve) || len(calls) > maxRecords/2 {
			if err := flush(); err != nil {
				return err
			}
		}
		if n := ms.NUMA; n != nil {
			at, maxnode := n.mask(b)
			calls = append(calls, sys(unix.SYS_MBIND, ms.Start, ms.End-ms.Start, uint64(n.Mode), at, maxnode, 0).may().as("mbind %#x", ms.Start))
		}
		if ms.Name != "" {
			calls = append(calls, sys(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, ms.Start, ms.End-ms.Start, b.str(ms.Name)).
				may().as("PR_SET_VMA_ANON_NAME %s", ms.Name))
		}
		for _, g := range ms.Guards {
			calls = append(calls, sys(unix.SYS_MADVISE, g.Start, g.End-g.Start, madvGuardInstall).as("MADV_GUARD_INSTALL %#x", g.Start))
		}
	}
	return flush()
}

// sysMseal is mseal(2), Linux 6.10.
const sysMseal = 462

// sealMemory forbids what the program had forbidden itself: changes of sealed
// mappings, mseal(2), and memory that is executable after it was written,
// PR_SET_MDWE(2const). Nothing of the memory can be made after it.
func (r *Restorer) sealMemory(ctx context.Context, p *Process, ps *ProcessState) error {
	var calls []call
	for i := range ps.Maps {
		if ms := &ps.Maps[i]; slices.Contains(ms.Flags, "sl") && ms.Kind != MapVdso {
			calls = append(calls, sys(sysMseal, ms.Start, ms.End-ms.Start, 0).as("mseal %#x", ms.Start))
		}
	}
	if ps.Prctl.MDWE != 0 {
		calls = append(calls, sys(unix.SYS_PRCTL, prSetMDWE, uint64(ps.Prctl.MDWE), 0, 0, 0).as("PR_SET_MDWE"))
	}
	return p.run(ctx, p.threads[0], calls)
}
