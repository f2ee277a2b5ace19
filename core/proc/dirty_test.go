package proc

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// dirtySubject is a program whose memory is tracked.
type dirtySubject struct {
	subject
	dirty *Dirty
	area  uint64
}

func newDirtySubject(t *testing.T) *dirtySubject {
	x := &dirtySubject{subject: *newSubject(t, newTracer(t)), dirty: NewDirty()}
	t.Cleanup(x.dirty.Close)
	x.start(exec.Command(built(t, "dirty")))
	x.readArea(x.untilReady())
	return x
}

func (x *dirtySubject) readArea(said []string) {
	x.tb.Helper()
	for _, l := range said {
		if _, err := fmt.Sscanf(l, "area %x", &x.area); err == nil {
			return
		}
	}
	x.tb.Fatalf("no area in %q", said)
}

// marked freezes the tree and marks a generation.
func (x *dirtySubject) marked(survey *Survey, base, generation uint64) (*Tree, *State) {
	x.tb.Helper()
	tree := x.freeze()
	tree.Track(x.dirty)
	tree.UseSurvey(survey, true)
	st := x.inspect(tree)
	if err := tree.Mark(soon(x.tb), st, base, generation); errors.Is(err, linux.ErrNoWatch) {
		x.tb.Skip(err)
	} else if err != nil {
		x.tb.Fatal(err)
	}
	return tree, st
}

// mark marks a generation and returns the pages of the area that the program
// still has from base.
func (x *dirtySubject) mark(base, generation uint64) (kept []int) {
	x.tb.Helper()
	return x.markWith(nil, base, generation)
}

func (x *dirtySubject) markWith(survey *Survey, base, generation uint64) (kept []int) {
	x.tb.Helper()
	tree, st := x.marked(survey, base, generation)
	for _, m := range processOf(x.tb, st, tree.Procs()[0].pid).Maps {
		for _, r := range m.kept {
			for at := r.Start; at < r.End; at += 4096 {
				if x.area <= at && at < x.area+16*4096 {
					kept = append(kept, int(at-x.area)/4096)
				}
			}
		}
	}
	if err := tree.Release(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
	return kept
}

// watched says whether memory of the program is under a userfaultfd.
func (x *dirtySubject) watched() bool {
	x.tb.Helper()
	vmas, err := procfs.ReadSmaps(x.pid)
	if err != nil {
		x.tb.Fatal(err)
	}
	return slices.ContainsFunc(vmas, func(v procfs.VMA) bool { return v.Has("uw") })
}

// TestMark changes memory in every way between generations.
func TestMark(t *testing.T) {
	x := newDirtySubject(t)
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if kept := x.mark(0, 1); kept != nil {
		t.Errorf("kept %v of a generation that is full", kept)
	}
	base := uint64(1)
	for _, tt := range []struct {
		orders string
		gone   []int // from what is kept
	}{
		{"", nil},
		{"w3 w4", []int{3, 4}},
		{"r7", []int{7}},
		{"d5", []int{5}},
		{"f", []int{5}},  // a child's writes are not the parent's; what was given back is not there
		{"w5", []int{5}}, // it comes back
		{"m9", []int{9}}, // another mapping
		{"", nil},        // which is tracked from now on
		{"w9 w0", []int{0, 9}},
	} {
		for _, o := range strings.Fields(tt.orders) {
			x.order(o)
		}
		kept := x.mark(base, base+1)
		base++
		want := slices.DeleteFunc(slices.Clone(all), func(n int) bool { return slices.Contains(tt.gone, n) })
		if !slices.Equal(kept, want) {
			t.Errorf("after %q: kept %v, want %v", tt.orders, kept, want)
		}
	}
	if kept := x.mark(base-1, base+1); kept != nil {
		t.Errorf("kept %v of a generation that is not the last", kept)
	}
	if fds := len(x.dirty.procs); fds != 1 {
		t.Errorf("%d processes are tracked", fds)
	}
}

// TestMarkJoined moves half of the memory away from the other and back: the one
// mapping that they are again is new to the tracking.
func TestMarkJoined(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	for n, tt := range []struct {
		orders string
		kept   []int
	}{
		{"s w0", []int{1, 2, 3, 4, 5, 6, 7}},
		{"j w0 w1 w8", nil},
		{"w0 w8", []int{1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15}},
	} {
		for _, o := range strings.Fields(tt.orders) {
			x.order(o)
		}
		if kept := x.mark(uint64(n+1), uint64(n+2)); !slices.Equal(kept, tt.kept) {
			t.Errorf("after %q: kept %v, want %v", tt.orders, kept, tt.kept)
		}
	}
}

// survey is what smaps tells now.
func (x *dirtySubject) survey() *Survey {
	x.tb.Helper()
	vmas, err := procfs.ReadSmaps(x.pid)
	if err != nil {
		x.tb.Fatal(err)
	}
	return &Survey{smaps: map[int][]procfs.VMA{x.pid: vmas}}
}

// snapChanged makes a snapshot of what has changed since base, lets the program
// do more, and returns what is held of the area by page.
func (x *dirtySubject) snapChanged(survey *Survey, base uint64, order string) (held map[int][]byte, copies int) {
	x.tb.Helper()
	tree, st := x.marked(survey, base, base+1)
	m := tree.NewMemory(st, nil)
	x.tb.Cleanup(m.Close)
	if err := m.Snapshot(soon(x.tb), x.where.Reference); err != nil {
		x.tb.Fatal(err)
	}
	if err := tree.Release(soon(x.tb)); err != nil {
		x.tb.Fatal(err)
	}
	x.order(order)
	held = map[int][]byte{}
	for _, r := range m.held {
		for at := r.addr; at < r.addr+r.len; at += 4096 {
			if x.area <= at && at < x.area+16*4096 {
				held[int(at-x.area)/4096] = r.held[at-r.addr:][:4096]
			}
		}
	}
	return held, len(m.copies)
}

// TestSnapshotOfChanges reads little in the pause, and copies the process where
// much has changed; what the program writes afterwards is not in it.
func TestSnapshotOfChanges(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	x.order("w3")
	x.order("w5")
	held, copies := x.snapChanged(x.survey(), 1, "w5")
	if copies != 0 || len(held) != 2 || held[3] == nil || held[5] == nil {
		t.Fatalf("%d copies, held %v", copies, held)
	}
	if got := string(held[3][8:10]) + string(held[5][8:10]); got != "defg" {
		t.Errorf("held %q", got)
	}
	if held, copies = x.snapChanged(x.survey(), 2, "w5"); copies != 0 || len(held) != 1 || held[5][9] != 'h' {
		t.Errorf("%d copies, held %v of the next", copies, held)
	}
	x.order("b0")
	if held, copies = x.snapChanged(x.survey(), 3, "w5"); copies != 1 || len(held) != 0 {
		t.Errorf("%d copies, held %v, where much has changed", copies, held)
	}
}

// TestMarkWithSurvey: what smaps told before the freeze does not hide that
// memory has changed since, or that another is in its place.
func TestMarkWithSurvey(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	for n, tt := range []struct {
		order string
		kept  []int
	}{
		{"w3", []int{0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		{"u7", nil},
		{"w8", []int{7}},
	} {
		survey := x.survey()
		x.order(tt.order)
		if kept := x.markWith(survey, uint64(n+1), uint64(n+2)); !slices.Equal(kept, tt.kept) {
			t.Errorf("%s: kept %v, want %v", tt.order, kept, tt.kept)
		}
	}
}

// TestMarkAfterExec counts a new program as changed.
func TestMarkAfterExec(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	x.readArea(x.order("e"))
	if kept := x.mark(1, 2); kept != nil {
		t.Errorf("kept %v after execve", kept)
	}
	x.order("w1")
	if kept := x.mark(2, 3); len(kept) != 15 {
		t.Errorf("kept %v", kept)
	}
}

// TestMarkEnds leaves nothing of the tracking behind, however it ends.
func TestMarkEnds(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	if !x.watched() {
		t.Error("nothing is watched")
	}
	x.order("r1") // which finds its descriptors as they were
	x.dirty.Close()
	if x.watched() {
		t.Error("memory is watched after Close")
	}
	x.order("w1")
	if kept := x.mark(1, 2); kept != nil {
		t.Errorf("kept %v after the tracking had ended", kept)
	}
}

// TestForeignUserfault refuses memory that another watches, and ends the
// tracking for it.
func TestForeignUserfault(t *testing.T) {
	x := newDirtySubject(t)
	x.mark(0, 1)
	other := x.dirty
	x.dirty = NewDirty() // as if it were the program's own
	defer other.Close()
	tree := x.freeze()
	if err := tree.Check(x.where); err != nil {
		t.Fatal(err)
	}
	x.open(tree)
	tree.Track(x.dirty)
	_, err := tree.Inspect(soon(t), x.where, noClaim)
	if err == nil || !strings.Contains(err.Error(), "watched by a userfaultfd") {
		t.Errorf("got error %v", err)
	}
	if err := tree.Release(soon(t)); err != nil {
		t.Fatal(err)
	}
}

func TestWithout(t *testing.T) {
	r := func(a, b uint64) linux.PageRange { return linux.PageRange{Start: a, End: b} }
	for _, tt := range []struct {
		kept, want []linux.PageRange
	}{
		{nil, []linux.PageRange{r(10, 20)}},
		{[]linux.PageRange{r(0, 10), r(20, 30)}, []linux.PageRange{r(10, 20)}},
		{[]linux.PageRange{r(0, 12), r(14, 15), r(19, 30)}, []linux.PageRange{r(12, 14), r(15, 19)}},
		{[]linux.PageRange{r(10, 20)}, nil},
		{[]linux.PageRange{r(0, 5), r(5, 30)}, nil},
	} {
		if got := slices.Collect(without(r(10, 20), tt.kept)); !slices.Equal(got, tt.want) {
			t.Errorf("without %v: %v, want %v", tt.kept, got, tt.want)
		}
	}
}
