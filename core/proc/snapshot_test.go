package proc

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// launchCopied starts the program whose memory is saved while it runs on.
func launchCopied(t *testing.T, args ...string) *subject {
	t.Helper()
	x := newSubject(t, newTracer(t))
	x.start(command(append([]string{program(t, "snapshot"), filepath.Join(t.TempDir(), "file")}, args...)...))
	x.untilReady()
	return x
}

// snap freezes the tree, makes a snapshot, and releases the tree.
func (x *subject) snap() (*State, *Memory) {
	x.tb.Helper()
	tree := x.freeze()
	st := x.inspect(tree)
	m := tree.NewMemory(st, nil)
	x.tb.Cleanup(m.Close)
	if err := m.Snapshot(soon(x.tb), x.where.Reference); err != nil {
		x.tb.Fatal(err)
	}
	x.release(tree)
	return st, m
}

func (x *subject) writeSnapshot(m *Memory) *image.Reader {
	x.tb.Helper()
	dir := x.tb.TempDir()
	w, err := image.Create(dir, image.Options{Stripes: 2})
	if err != nil {
		x.tb.Fatal(err)
	}
	defer w.Abort()
	if err := m.Write(soon(x.tb), w, func(_, _ int64) {}); err != nil {
		x.tb.Fatal(err)
	}
	m.Close()
	if _, err := w.Close(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
	img, err := image.Open(dir)
	if err != nil {
		x.tb.Fatal(err)
	}
	x.tb.Cleanup(func() { img.Close() })
	return img
}

// writeAway writes the memory to an image that nobody reads.
func writeAway(tb testing.TB, m *Memory) error {
	tb.Helper()
	w, err := image.Create(tb.TempDir(), image.Options{Stripes: 1})
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Abort()
	return m.Write(soon(tb), w, func(_, _ int64) {})
}

// copiesBelow lists the copies that are children of this process.
func copiesBelow(tb testing.TB, tr *Tracer) []int {
	tb.Helper()
	return slices.DeleteFunc(ownChildren(tb), func(pid int) bool { return !tr.IsCopy(pid) })
}

// TestLittleMemory reads a tree in the pause that has little memory, with all else, as far as there
// is room for that.
func TestLittleMemory(t *testing.T) {
	for _, tc := range []struct {
		content int64  // bytes of a plugin's data
		room    uint64 // 0: what there is
		held    bool
	}{{0, 0, true}, {1 << 20, 0, true}, {100 << 20, 0, true}, {100 << 20, 150 << 20, false}} {
		t.Run(fmt.Sprintf("%d bytes beside it", tc.content), func(t *testing.T) {
			x := newSubject(t, newTracer(t))
			x.start(command(program(t, "threads"), "3", "1", "0"))
			x.untilReady()
			tree := x.freeze()
			defer x.release(tree)
			zeros := sparse(tc.content)
			contents := []Content{{Owner: "test", Content: plugin.Content{Size: tc.content, From: zeros, Data: []plugin.Range{{Start: 0, End: tc.content}}}}}
			st := x.inspect(tree)
			st.SetContents(contents)
			m := tree.NewMemory(st, contents)
			defer m.Close()
			m.room = tc.room
			if err := m.Snapshot(soon(t), x.where.Reference); tc.held && err != nil || !tc.held && !errors.Is(err, ErrNoCopy) {
				t.Fatal(err)
			}
			if m.Snapped() != tc.held || len(m.held) > 0 != tc.held {
				t.Errorf("held: %v, in %d runs; want %v", m.Snapped(), len(m.held), tc.held)
			}
			if copies := copiesBelow(t, x.tr); len(copies) > 0 {
				t.Errorf("copies %v of a tree with little memory", copies)
			}
		})
	}
}

// sparse is so many zeros.
type sparse int64

func (s sparse) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	return len(b), nil
}

// TestSnapshot writes all memory of a tree anew while its snapshot is written:
// what comes back is of the moment of the snapshot, in two generations.
func TestSnapshot(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprintf("namespaces %v", fresh), func(t *testing.T) {
			if !fresh && os.Geteuid() != 0 {
				t.Skip("only root chooses process ids in the current namespaces")
			}
			x := launchCopied(t)
			for range 2 {
				g := x.saveSnapshot()
				x.restore(g, fresh)
				x.order("check")
				x.order("next")
				x.order("look")
			}
		})
	}
}

// saveSnapshot is save, with the memory written while the tree changes it.
func (x *subject) saveSnapshot() *generation {
	x.tb.Helper()
	tree := x.freeze()
	g := &generation{fds: x.keepFiles(tree)}
	st := x.inspect(tree)
	m := tree.NewMemory(st, nil)
	defer m.Close()
	if err := m.Snapshot(soon(x.tb), x.where.Reference); err != nil {
		x.tb.Fatal(err)
	}
	x.release(tree)
	x.order("next")
	x.order("look")
	x.order("check")
	g.img = x.writeSnapshot(m)
	x.order("look")
	var err error
	if g.st, err = DecodeState(StateVersion, encoded(x.tb, st)); err != nil {
		x.tb.Fatal(err)
	}
	if err := x.freeze().Kill(); err != nil {
		x.tb.Fatal(err)
	}
	x.end()
	return g
}

// TestCopiesAreNobodys: what a snapshot is written from has no descriptors, a
// session of its own and the tracer for its only tie; the next freeze does not
// find it, and nothing is left behind Close.
func TestCopiesAreNobodys(t *testing.T) {
	x := launchCopied(t)
	_, m := x.snap()
	copies := copiesBelow(t, x.tr)
	if len(copies) != 2 {
		t.Fatalf("copies %v, want one of each process", copies)
	}
	for _, pid := range copies {
		s, err := procfs.ReadStatus(pid)
		if err != nil {
			t.Fatal(err)
		}
		st, err := procfs.ReadStat(pid)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := procfs.FDs(pid)
		if err != nil || len(fds) != 0 || s.Name != copyName || s.TracerPid != x.tid || st.Session != pid || st.PGRP != pid || s.Threads != 1 {
			t.Errorf("pid %d: descriptors %v (%v), name %q, tracer %d, session %d, group %d, threads %d", pid, fds, err, s.Name, s.TracerPid, st.Session, st.PGRP, s.Threads)
		}
	}
	if err := unix.Kill(-x.pid, unix.SIGCONT); err != nil { // reaches no copy
		t.Fatal(err)
	}
	x.order("look")
	m.Close()
	m.Close()
	x.tr.AwaitCopies()
	if left := copiesBelow(t, x.tr); len(left) != 0 {
		t.Errorf("copies %v are left", left)
	}
	x.order("look")
}

// TestCopyEndedByOthers: somebody kills a copy. The error says so, and the
// program goes on.
func TestCopyEndedByOthers(t *testing.T) {
	x := launchCopied(t)
	_, m := x.snap()
	for _, pid := range copiesBelow(t, x.tr) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the copies are gone", func() bool { x.tr.Reap(); return len(copiesBelow(t, x.tr)) == 0 })
	if err := writeAway(t, m); err == nil {
		t.Error("an image was written from copies that are no more")
	} else {
		t.Log(err)
	}
	m.Close()
	x.order("check")
	x.order("look")
}

// TestProgramEndsBeforeItsSnapshot: the image is whole all the same.
func TestProgramEndsBeforeItsSnapshot(t *testing.T) {
	x := launchCopied(t)
	st, m := x.snap()
	if err := unix.Kill(-x.pid, unix.SIGKILL); err != nil { // not the copies: they are in no group of the program's
		t.Fatal(err)
	}
	eventually(t, "the program is gone", func() bool { x.tr.Reap(); return unix.Kill(-x.pid, 0) == unix.ESRCH })
	img := x.writeSnapshot(m)
	var size uint64
	for _, e := range img.Extents() {
		if e.Space == processOf(t, st, x.pid).Space {
			size += e.Len
		}
	}
	if size < 4<<20 {
		t.Errorf("the image has %d bytes of the program", size)
	}
}

// TestAdopterIsNotCopied: the copies would be children of a program that
// adopts orphans.
func TestAdopterIsNotCopied(t *testing.T) {
	x := launchCopied(t, "reaper")
	tree := x.freeze()
	st := x.inspect(tree)
	m := tree.NewMemory(st, nil)
	defer m.Close()
	if err := m.Snapshot(soon(t), os.Getpid()); !errors.Is(err, ErrNoCopy) {
		t.Errorf("error %v, want %v", err, ErrNoCopy)
	}
	// It is found out by looking, too.
	for i := range st.Processes {
		st.Processes[i].Prctl.Subreaper = false
	}
	if err := m.Snapshot(soon(t), os.Getpid()); !errors.Is(err, ErrNoCopy) {
		t.Errorf("error %v, want %v", err, ErrNoCopy)
	}
	x.release(tree)
	x.order("check")
}

// What plugins map in the pause, to have it saved, no survey has seen.
func TestSurveyBeforeAMapping(t *testing.T) {
	x := launchCopied(t)
	vmas, err := procfs.ReadSmaps(x.pid)
	if err != nil {
		t.Fatal(err)
	}
	tree := x.freeze()
	tree.UseSurvey(&Survey{smaps: map[int][]procfs.VMA{x.pid: vmas}}, true)
	x.open(tree)
	p, page := procOf(t, tree, x.pid), uintptr(os.Getpagesize())
	at, err := p.Syscall(soon(t), unix.SYS_MMAP, 0, page, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := tree.Inspect(soon(t), x.where, noClaim)
	if err != nil {
		t.Fatal(err)
	}
	defer st.CloseFiles()
	i := slices.IndexFunc(st.Processes, func(ps ProcessState) bool { return ps.PID == p.pid })
	known := slices.ContainsFunc(st.Processes[i].Maps, func(m MapState) bool { return m.Start <= uint64(at) && uint64(at) < m.End })
	if !known || p.surveyed != nil {
		t.Errorf("the mapping is known: %v; relied on the survey: %v", known, p.surveyed != nil)
	}
	if _, err := p.Syscall(soon(t), unix.SYS_MUNMAP, at, page); err != nil {
		t.Error(err)
	}
	x.release(tree)
}

// TestSurvey relies on what smaps told before the freeze where maps has not
// changed, and finds out by the copy where only an advice has.
func TestSurvey(t *testing.T) {
	for _, tc := range []struct {
		change   string
		relied   bool
		mistaken bool
	}{{"look", true, false}, {"advise", true, true}, {"map", false, false}, {"lock", false, false}} {
		t.Run(tc.change, func(t *testing.T) {
			x := launchCopied(t)
			vmas, err := procfs.ReadSmaps(x.pid)
			if err != nil {
				t.Fatal(err)
			}
			x.order(tc.change)
			tree := x.freeze()
			tree.UseSurvey(&Survey{smaps: map[int][]procfs.VMA{x.pid: vmas}}, true)
			st := x.inspect(tree)
			if relied := procOf(t, tree, x.pid).surveyed != nil; relied != tc.relied {
				t.Errorf("relied on the survey: %v, want %v", relied, tc.relied)
			}
			m := tree.NewMemory(st, nil)
			defer m.Close()
			if err := m.Snapshot(soon(t), x.where.Reference); err != nil {
				t.Fatal(err)
			}
			x.release(tree)
			if err := writeAway(t, m); (err != nil) != tc.mistaken {
				t.Errorf("error %v, want one: %v", err, tc.mistaken)
			}
			x.order("check")
		})
	}
}

// TestDeathOfTheCopier kills a tracer at random moments while it makes copies
// without end: the program goes on unharmed, and no copy outlives the tracer.
func TestDeathOfTheCopier(t *testing.T) {
	const kills = 30
	tr := newTracer(t)
	becomeSubreaper(t)
	r := rand.New(rand.NewSource(2))
	x := launch(t, tr, program(t, "steady"), "default")
	for range kills {
		killReady(t, again("copy-for-ever", strconv.Itoa(x.pid), strconv.Itoa(os.Getpid())), time.Duration(r.Intn(3000))*time.Microsecond)
		if got := x.answer(); got != "steady" {
			t.Fatalf("the program says %q", got)
		}
		eventually(t, "no copy is left", func() bool {
			alive := 0
			for _, pid := range ownChildren(t) {
				if st, err := procfs.ReadStat(pid); err == nil && pid != x.pid && st.State != 'Z' {
					alive++
				}
			}
			below, err := procfs.Children(x.pid)
			return alive == 0 && err == nil && len(below) == 0
		})
		_, _ = tr.Reap()
	}
}

// copyForEver makes a snapshot of a process and drops it, until it is killed.
func copyForEver() error {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	adopter, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	ctx, tr := context.Background(), NewTracer()
	for first := true; ; first = false {
		tree, err := tr.Freeze(ctx, NewSleeps(), func() ([]int, error) { return []int{pid}, nil })
		if err != nil {
			return err
		}
		if err := tree.Open(ctx); err != nil {
			return err
		}
		if first {
			fmt.Println("ready")
		}
		m := &Memory{t: tree, st: &State{}, copies: map[*Process]*copying{tree.procs[0]: nil}}
		if err := m.makeCopies(ctx, adopter); err != nil {
			return err
		}
		if err := tree.Release(ctx); err != nil {
			return err
		}
		m.Close()
	}
}

// TestCopyStaysShared: reading a copy must not give it pages of its own, or the program's
// memory would be there twice.
func TestCopyStaysShared(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command("/usr/bin/python3", "-c", "import time; b = b'x' * (64 << 20); print('ready', flush=True); time.sleep(60)"))
	x.untilReady()
	_, m := x.snap()
	copies := copiesBelow(t, x.tr)
	if len(copies) != 1 {
		t.Fatalf("copies %v", copies)
	}
	w, err := image.Create(t.TempDir(), image.Options{Stripes: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := m.Write(soon(t), w, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	all, err := readNumbers(fmt.Sprintf("/proc/%d/smaps_rollup", copies[0]))
	if err != nil {
		t.Fatal(err)
	}
	if own := all["Private_Clean:"] + all["Private_Dirty:"]; own > 4<<10 {
		t.Errorf("%d KiB of its %d KiB are its own", own, all["Rss:"])
	}
}

// TestFileCutBehindTheSnapshot cuts a file that the program has pages of for itself, and not open any
// more, when it runs on: the copy has lost them too.
func TestFileCutBehindTheSnapshot(t *testing.T) {
	x := launchCopied(t)
	vmas, err := procfs.ReadMaps(x.pid)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(vmas, func(v procfs.VMA) bool { return filepath.Base(v.Path) == "file" })
	if i < 0 {
		t.Fatal("the file is not mapped")
	}
	content, err := os.ReadFile(vmas[i].Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, m := x.snap(); writeAway(t, m) != nil {
		t.Fatal("a file that nobody has changed is in the way")
	}
	_, m := x.snap()
	before := modified(t, vmas[i].Path)
	eventually(t, "a later time of change", func() bool {
		if err := os.WriteFile(vmas[i].Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return !modified(t, vmas[i].Path).Equal(before)
	})
	if err := writeAway(t, m); !errors.Is(err, errChangedFile) {
		t.Errorf("got error %v, want %v", err, errChangedFile)
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}
