package proc

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// A self-contained image carries the files that are mapped, libraries and
// programs: what is mapped of them, and of programs all. A restart takes the
// files themselves where they are still the same, and else makes what is carried
// in memory.

// carriedFile is such a file while its image is made.
type carriedFile struct {
	ref   int
	file  *os.File
	stamp fileStamp
}

// carry keeps the file of a mapping open until WriteFiles.
func (st *State) carry(ref int, name string, s *unix.Stat_t) error {
	f, err := openSame(name, s)
	if err != nil {
		return err
	}
	st.Refs[ref].Carried = true
	st.carried = append(st.carried, carriedFile{ref, f, stampOf(s)})
	return nil
}

// refSpace numbers the spaces of mapped files behind all others.
func (st *State) refSpace(ref int) uint32 { return st.contentSpace(len(st.Contents)) + uint32(ref) }

// endOfSpaces is the first number that is no space's.
func (st *State) endOfSpaces() uint32 { return st.refSpace(len(st.Refs)) }

// refRanges lists what is carried of each mapped file.
func (st *State) refRanges() [][]linux.PageRange {
	out := make([][]linux.PageRange, len(st.Refs))
	for i := range st.Processes {
		ps := &st.Processes[i]
		for j := range ps.Maps {
			m := &ps.Maps[j]
			if m.Kind != MapFile || !st.Refs[m.Ref].Carried {
				continue
			}
			size := pages(st.Refs[m.Ref].Size)
			r := linux.PageRange{Start: m.Offset, End: min(m.Offset+m.End-m.Start, size)}
			if ps.ExeRef == 0 && ps.Exe == m.Path { // it may run itself again
				r = linux.PageRange{End: size}
			}
			if r.Start < r.End {
				out[m.Ref] = append(out[m.Ref], r)
			}
		}
	}
	for i := range out {
		out[i] = joinRanges(out[i])
	}
	return out
}

// joinRanges sorts ranges and joins those that overlap.
func joinRanges(ranges []linux.PageRange) (out []linux.PageRange) {
	slices.SortFunc(ranges, func(a, b linux.PageRange) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	for _, r := range ranges {
		if n := len(out); n > 0 && r.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, r.End)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// WriteFiles writes the carried files. It needs no stopped tree.
func (st *State) WriteFiles(ctx context.Context, w *image.Writer) error {
	if len(st.carried) == 0 {
		return nil
	}
	ranges := st.refRanges()
	var runs []pageRun
	for _, c := range st.carried {
		for _, r := range ranges[c.ref] {
			for at := r.Start; at < r.End; at += chunkSize {
				runs = append(runs, pageRun{from: c.file, addr: at, len: min(r.End-at, chunkSize), space: st.refSpace(c.ref), key: at})
			}
		}
	}
	if err := writeRuns(ctx, runs, w, func(_, _ int64) {}); err != nil {
		return err
	}
	for _, c := range st.carried {
		var s unix.Stat_t
		if err := unix.Fstat(int(c.file.Fd()), &s); err != nil {
			return fmt.Errorf("%s: stat: %w", st.Refs[c.ref].Path, err)
		}
		now := stampOf(&s)
		now.ctime = c.stamp.ctime // which another link changes, or chmod(2)
		if now != c.stamp {
			return fmt.Errorf("mapped file %s: %w", st.Refs[c.ref].Path, errChangedFile)
		}
	}
	return nil
}

const errChangedFile = plugin.Passing("it was changed during the checkpoint")

// makeCarried makes those mapped files that are not as they were.
func (m *memoryRestorer) makeCarried() error {
	m.carried = make([]*os.File, len(m.st.Refs))
	for i := range m.st.Refs {
		f := &m.st.Refs[i]
		if !f.remake {
			continue
		}
		x := &ExeState{Path: f.Path, Size: f.Size, Space: m.st.refSpace(i)}
		isProgram := slices.ContainsFunc(m.st.Processes, func(ps ProcessState) bool { return ps.runs(f) })
		var err error
		if isProgram {
			m.carried[i], err = m.makeExe(x)
		} else {
			m.carried[i], err = m.makeInMemory(x)
		}
		if err != nil {
			return fmt.Errorf("mapped file %s: %w", f.Path, err)
		}
		m.warn("mapped file %s: it is not as it was; what the image has of it takes its place in memory", f.Path)
	}
	return nil
}

// runs says whether the process executes the file.
func (ps *ProcessState) runs(f *MappedFile) bool {
	return ps.ExeRef == 0 && ps.Exe == f.Path && !ps.Zombie
}

// programOf returns the file that was made again for the program of a process,
// nil where it is the file of its name.
func (m *memoryRestorer) programOf(ps *ProcessState) *os.File {
	if ps.ExeRef != 0 {
		return m.exes[ps.ExeRef-1]
	}
	for i := range m.st.Refs {
		if f := &m.st.Refs[i]; f.remake && ps.runs(f) {
			return m.carried[i]
		}
	}
	return nil
}

// makeInMemory makes a file without a name that programs see.
func (m *memoryRestorer) makeInMemory(x *ExeState) (*os.File, error) {
	fd, err := unix.MemfdCreate(path.Base(x.Path), unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	out := os.NewFile(uintptr(fd), x.Path)
	defer out.Close()
	if err := m.fillExe(x, out); err != nil {
		return nil, err
	}
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	return ro, err
}
