package proc

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// TestManyMappings copies a process that has little memory in many mappings: nothing
// that takes long for each is done in the pause, and the copy tells what is left.
func TestManyMappings(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "threads"), "1", "1", "3000"))
	x.untilReady()
	tree := x.freeze()
	x.open(tree)
	const mpolLocal = 4 // MPOL_LOCAL, mbind(2)
	p, page := procOf(t, tree, x.pid), uintptr(os.Getpagesize())
	var at [2]uint64 // of mappings with a policy; the second is none of a copy's
	for i := range at {
		addr, err := p.Syscall(soon(t), unix.SYS_MMAP, 0, page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
		if err == nil {
			_, err = p.Syscall(soon(t), unix.SYS_MBIND, uintptr(addr), page, mpolLocal, 0, 0, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		at[i] = uint64(addr)
	}
	if _, err := p.Syscall(soon(t), unix.SYS_MADVISE, uintptr(at[1]), page, unix.MADV_DONTFORK); err != nil {
		t.Fatal(err)
	}
	x.release(tree)

	survey := x.tr.NewSurvey([]int{x.pid}, nil, nil)
	defer survey.Close()
	tree = x.freeze()
	tree.UseSurvey(survey, true)
	st := x.inspect(tree)
	m := tree.NewMemory(st, nil)
	defer m.Close()
	if procOf(t, tree, x.pid).surveyed == nil {
		t.Error("smaps was read in the pause")
	}
	if err := m.Snapshot(soon(t), x.where.Reference); err != nil {
		t.Fatal(err)
	}
	x.release(tree)
	if len(m.copies) != 1 {
		t.Errorf("%d copies, want 1", len(m.copies))
	}
	local := func(addr uint64) bool {
		for _, s := range processOf(t, st, x.pid).Maps {
			if s.Start == addr {
				return s.NUMA != nil && s.NUMA.Mode == mpolLocal
			}
		}
		t.Fatalf("no mapping at %#x", addr)
		return false
	}
	if local(at[0]) || !local(at[1]) {
		t.Errorf("asked in the pause for the policy of what a copy has: %v, of what it lacks: %v", local(at[0]), local(at[1]))
	}
	if err := m.AskCopies(soon(t)); err != nil {
		t.Fatal(err)
	}
	if !local(at[0]) {
		t.Error("the copy was not asked for a policy")
	}
	x.writeSnapshot(m)
}

// TestSurveyBefore: what was found out holds for the next generation where mappings are the
// same, and the copy tells where an advice has changed.
func TestSurveyBefore(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "threads"), "1", "1", "3000"))
	x.untilReady()
	call := func(nr uintptr, args ...uintptr) uintptr {
		tree := x.freeze()
		x.open(tree)
		r, err := procOf(t, tree, x.pid).Syscall(soon(t), nr, args...)
		if err != nil {
			t.Fatal(err)
		}
		x.release(tree)
		return uintptr(r)
	}
	size := 16 * uintptr(os.Getpagesize())
	mmap := func() uintptr {
		return call(unix.SYS_MMAP, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	}
	at := mmap()
	call(unix.SYS_MPROTECT, at, size, unix.PROT_NONE) // no neighbour has it
	reused := func(s, before *Survey) bool { return &s.smaps[x.pid][0] == &before.smaps[x.pid][0] }
	survey := func(before *Survey) *Survey {
		s := x.tr.NewSurvey([]int{x.pid}, nil, before)
		t.Cleanup(s.Close)
		return s
	}
	write := func(s *Survey) error {
		tree := x.freeze()
		tree.UseSurvey(s, true)
		m := tree.NewMemory(x.inspect(tree), nil)
		defer m.Close()
		if err := m.Snapshot(soon(t), x.where.Reference); err != nil {
			t.Fatal(err)
		}
		x.release(tree)
		return writeAway(t, m)
	}

	first := survey(nil)
	if err := write(first); err != nil {
		t.Fatal(err)
	}
	if s := survey(first); !reused(s, first) {
		t.Error("nothing has changed, and smaps was read again")
	} else if err := write(s); err != nil {
		t.Error(err)
	}
	call(unix.SYS_MADVISE, at, size, unix.MADV_DONTDUMP)
	if err := write(survey(first)); !errors.Is(err, plugin.ErrPassing) {
		t.Errorf("with an advice of which the survey does not know: %v", err)
	}
	locked := mmap()
	call(unix.SYS_MLOCK, locked, size)
	held := survey(nil)
	call(unix.SYS_MUNLOCK, locked, size)
	if reused(survey(held), held) {
		t.Error("smaps was not read again, where memory was locked")
	}
	second := survey(nil)
	mmap()
	third := survey(second)
	if reused(third, second) {
		t.Error("with a new mapping smaps was not read")
	}
	call(unix.SYS_MADVISE, at, size, unix.MADV_DONTFORK)
	hidden := survey(nil)
	if reused(survey(hidden), hidden) {
		t.Error("smaps was not read again, where a copy does not show all")
	}
}
