package proc

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/parallel"
)

// processMaps are the mappings of a process, see Tree.readMaps.
type processMaps struct {
	p       *Process
	vmas    []procfs.VMA
	watched map[uint64]bool
}

// read reads the mappings of all processes.
func (s *mapSaver) read(ctx context.Context) error {
	for _, p := range s.t.procs {
		if !p.zombie {
			s.all[p] = &processMaps{p: p}
		}
	}
	workers := runtime.GOMAXPROCS(0)
	if s.t.tracks() { // which all of them may end, see readMaps
		workers = 1
	}
	return parallel.Each(ctx, slices.Collect(maps.Values(s.all)), workers, func(_ int, m **processMaps) (err error) {
		if (*m).vmas, (*m).watched, err = s.t.readMaps((*m).p); err != nil {
			return fmt.Errorf("pid %d: %w", (*m).p.pid, err)
		}
		return nil
	})
}

// findWritten finds files that the tree writes to through its mappings, those in memory apart: by
// what one process does such a file is memory to all.
func (s *mapSaver) findWritten() {
	for _, p := range s.t.procs {
		if p.zombie {
			continue
		}
		vmas := s.all[p].vmas
		for i := range vmas {
			if v := &vmas[i]; isWritten(v) && isNamedMemory(s.filesystems()[v.Dev()]) {
				s.written[inodeID{v.Dev(), v.Ino}] = true
			} else if isWritten(v) {
				s.noteWritten(v)
			}
		}
	}
}

// isWritten says whether a mapping is shared with its file and may be written to.
func isWritten(v *procfs.VMA) bool { return v.Shared && v.Ino != 0 && v.Has("mw") }

// isNamedMemory says whether files of a type of file systems are memory that has names,
// and nothing else: hugetlbfs has none but huge pages.
func isNamedMemory(filesystem string) bool {
	return slices.Contains([]string{"tmpfs", "ramfs", "devtmpfs"}, filesystem)
}

// nameOf returns the name of the file of v, where it is such memory; "" where it is
// not, or has none by which it can be opened again.
func (s *mapSaver) nameOf(p *Process, v *procfs.VMA) (string, error) {
	if !s.written[inodeID{v.Dev(), v.Ino}] {
		return "", nil
	}
	if v.Deleted {
		return s.linkOf(p, v)
	}
	var st unix.Stat_t
	path := rootedAt(s.root, v.Path)
	if unix.Stat(path, &st) != nil || !s.isFile(path, &st, v) || s.t.leased(&st) { // as file tells
		return "", nil
	}
	return v.Path, nil
}

// writtenFile is a file that is no memory.
type writtenFile struct {
	name   string // by which a plugin may keep its content; "" where the state does, or nobody
	dev    uint64 // as in stat(2): it need not be open
	looked bool   // at a mapping by a name that it has
	kept   bool   // see keepClaimed
}

// noteWritten enters the file of v: with a name where it is larger than what the state holds itself, see
// file.
func (s *mapSaver) noteWritten(v *procfs.VMA) {
	id := inodeID{v.Dev(), v.Ino}
	f := s.others[id]
	if f.looked {
		return
	}
	f.looked = !v.Deleted
	var st unix.Stat_t
	path := rootedAt(s.root, v.Path)
	if f.looked && s.filesystems()[v.Dev()] != "hugetlbfs" && unix.Stat(path, &st) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > smallFile && !s.t.leased(&st) && s.isFile(path, &st, v) {
		f.name, f.dev = v.Path, st.Dev
	}
	s.others[id] = f
}

// writtenBy returns such a file if v maps it, as far as its name tells: on btrfs files of several subvolumes
// have the same device in maps, and may have the same number.
func (s *mapSaver) writtenBy(v *procfs.VMA) (f writtenFile, ok bool) {
	f = s.others[inodeID{v.Dev(), v.Ino}]
	if f.name == "" || v.Deleted || v.Path == f.name {
		return f, f.name != ""
	}
	var st unix.Stat_t
	return f, unix.Stat(rootedAt(s.root, v.Path), &st) == nil && st.Dev == f.dev && st.Ino == v.Ino
}
