package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// Advice of madvise(2).
const madvGuardInstall = 102

// guardsMarked says whether a VmFlag tells which mappings have guard regions.
// It is tried once, on a page of the agent's own. A kernel without guard
// regions marks all there are.
func (t *Tracer) guardsMarked() (bool, error) {
	t.guards.Do(func() { t.marked, t.noMark = guardsMarked() })
	return t.marked, t.noMark
}

func guardsMarked() (bool, error) {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false, fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, madvGuardInstall); err != nil { // EINVAL before Linux 6.13
		return true, nil
	}
	vmas, err := procfs.ReadSmaps(os.Getpid())
	if err != nil {
		return false, err
	}
	at := uint64(uintptr(unsafe.Pointer(&b[0])))
	i := slices.IndexFunc(vmas, func(v procfs.VMA) bool { return v.Start <= at && at < v.End })
	return i >= 0 && hasGuards(vmas[i]), nil
}

// hiddenPages are pages of shared memory that exist behind guard regions: the memory
// keeps its content, for other processes too, and shows it again when they are taken away.
type hiddenPages struct {
	p     *Process
	m     *MapState
	pages []linux.PageRange
}

func (s *MapState) guards() (all []linux.PageRange) {
	for _, g := range s.Guards {
		all = append(all, linux.PageRange(g))
	}
	return all
}

func hiddenBehindGuards(p *Process, shared []*MapState, resident map[*MapState]residence) (all []hiddenPages) {
	for _, m := range shared {
		if len(m.Guards) == 0 {
			continue
		}
		h, guards := hiddenPages{p: p, m: m}, m.guards()
		for _, r := range resident[m].pages {
			visible := slices.Collect(without(r, guards))
			h.pages = slices.AppendSeq(h.pages, without(r, visible))
		}
		all = append(all, h)
	}
	return all
}

// hiddenRuns appends those of the pages that no process shows. They are read at once.
func (m *Memory) hiddenRuns(ctx context.Context, runs []pageRun, hidden []hiddenPages, seen []intervals) ([]pageRun, error) {
	for _, h := range hidden {
		o := &m.st.Objects[h.m.Ref]
		for _, r := range h.pages {
			for _, fresh := range seen[h.m.Ref].add(h.m.Offset+r.Start-h.m.Start, h.m.Offset+r.End-h.m.Start) {
				b, err := h.p.readBehindGuard(ctx, h.m.Start+fresh.Start-h.m.Offset, fresh.End-fresh.Start)
				if err != nil {
					return nil, err
				}
				runs = appendRuns(runs, pageRun{from: bytes.NewReader(b), len: uint64(len(b)), space: o.Space, key: fresh.Start})
			}
		}
	}
	return runs, nil
}

// readBehindGuard reads shared memory by a second mapping, which has no guard regions
// (mremap(2), an old size of 0).
func (p *Process) readBehindGuard(ctx context.Context, addr, size uint64) ([]byte, error) {
	b := make([]byte, size)
	return b, p.tr.Do(func() error {
		again := []call{sys(unix.SYS_MREMAP, addr, 0, size, unix.MREMAP_MAYMOVE, 0).as("mremap %#x", addr).may()}
		if err := p.run(ctx, p.threads[0], again); err != nil {
			return err
		}
		if err := again[0].err(); err != nil {
			return refuse(p, fmt.Sprintf("shared memory at %#x", addr), "what is behind a guard region (madvise(2), MADV_GUARD_INSTALL) cannot be read: %v", err)
		}
		at := uint64(again[0].ret)
		err := p.readMem(at, b)
		return errors.Join(err, p.run(ctx, p.threads[0], []call{sys(unix.SYS_MUNMAP, at, size).as("munmap %#x", at)}))
	})
}
