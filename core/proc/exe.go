package proc

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ExeState is the file of a program that has no name any more: deleted, or
// replaced by another. Its content is in the image.
type ExeState struct {
	Path  string `json:"path"` // that it had
	Size  int64  `json:"size"`
	Space uint32 `json:"space"`
}

// exeSaver collects the files of programs that have no name.
type exeSaver struct {
	known map[[2]uint64]int
	files []*os.File // in the order of State.Exes
}

// deletedSuffix is what the kernel writes behind the path of such a file.
const deletedSuffix = " (deleted)"

// save notes the program file of a process in the image.
func (t *Tree) saveExe(st *State, p *Process, ps *ProcessState) error {
	name, gone := strings.CutSuffix(ps.Exe, deletedSuffix)
	if !gone {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", p.liveTID()))
	if err != nil {
		return err
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		f.Close()
		return err
	}
	ps.Exe = name
	if t.exes.known == nil {
		t.exes.known = map[[2]uint64]int{}
	}
	key := [2]uint64{s.Dev, s.Ino}
	if ps.ExeRef = t.exes.known[key]; ps.ExeRef != 0 {
		return f.Close()
	}
	t.exes.files = append(t.exes.files, f)
	st.Exes = append(st.Exes, ExeState{Path: name, Size: s.Size})
	ps.ExeRef = len(st.Exes)
	t.exes.known[key] = ps.ExeRef
	return nil
}

func (e *exeSaver) close() {
	for _, f := range e.files {
		f.Close()
	}
	e.files = nil
}

// runs lists the content of the files.
func (e *exeSaver) runs(st *State) (runs []pageRun) {
	for i, f := range e.files {
		x := &st.Exes[i]
		for at := int64(0); at < x.Size; at += chunkSize {
			n := pages(min(x.Size-at, chunkSize))
			runs = append(runs, pageRun{from: f, addr: uint64(at), len: n, space: x.Space, key: uint64(at)})
		}
	}
	return runs
}

// pages rounds a length up to whole pages.
func pages(n int64) uint64 {
	page := int64(os.Getpagesize())
	return uint64((n + page - 1) / page * page)
}

// makeExes makes the files again, each without a name: where it was, so that
// /proc/PID/exe says the same, else in memory.
func (m *memoryRestorer) makeExes() error {
	for i := range m.st.Exes {
		x := &m.st.Exes[i]
		f, err := m.makeExe(x)
		if err != nil {
			return fmt.Errorf("program file %s: %w", x.Path, err)
		}
		m.exes = append(m.exes, f)
	}
	return nil
}

func (m *memoryRestorer) makeExe(x *ExeState) (*os.File, error) {
	name := m.Root() + x.Path
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o700)
	if err == nil {
		defer os.Remove(name)
	} else {
		fd, err2 := unix.MemfdCreate(strings.TrimPrefix(path.Base(x.Path), "memfd:"), unix.MFD_CLOEXEC)
		if err2 != nil {
			return nil, fmt.Errorf("memfd_create: %w", err2)
		}
		if !strings.HasPrefix(x.Path, "/memfd:") {
			m.warn("program file %s: its name is not free, /proc/PID/exe shows another: %v", x.Path, err)
		}
		out = os.NewFile(uintptr(fd), x.Path)
	}
	// The kernel runs no file that is open for writing (ETXTBSY).
	defer out.Close()
	if err := m.fillExe(x, out); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", out.Fd()))
}

func (m *memoryRestorer) fillExe(exe *ExeState, out *os.File) error {
	buf := make([]byte, chunkSize)
	for i := range m.rest {
		x := &m.rest[i]
		if x.Space != exe.Space {
			continue
		}
		err := m.img.ReadPiece(*x, buf[:x.Len])
		if err == nil {
			err = writePiece(x, buf[:x.Len], out)
		}
		if err != nil {
			return err
		}
	}
	return out.Truncate(exe.Size)
}

func (st *State) validateExes() error {
	for i, x := range st.Exes {
		if x.Space != uint32(len(st.Processes)+len(st.Objects)+i) || !cleanPath(x.Path) || x.Size < 0 || x.Size > 1<<40 {
			return fmt.Errorf("program file %d: space %d, size %d, path %.100q", i, x.Space, x.Size, x.Path)
		}
	}
	for i := range st.Processes {
		if n := st.Processes[i].ExeRef; n < 0 || n > len(st.Exes) {
			return fmt.Errorf("process %d: program file %d", st.Processes[i].PID, n)
		}
	}
	return nil
}
