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

// mark marks a generation and returns the pages of the area that the program
// still has from base.
func (x *dirtySubject) mark(base, generation uint64) (kept []int) {
	x.tb.Helper()
	tree := x.freeze()
	tree.Track(x.dirty)
	st := x.inspect(tree)
	if err := tree.Mark(soon(x.tb), st, base, generation); errors.Is(err, linux.ErrNoWatch) {
		x.tb.Skip(err)
	} else if err != nil {
		x.tb.Fatal(err)
	}
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
		if got := without(r(10, 20), tt.kept); !slices.Equal(got, tt.want) {
			t.Errorf("without %v: %v, want %v", tt.kept, got, tt.want)
		}
	}
}
