package proc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// lateOf makes memory of areas and pieces, in pages.
func lateOf(areas []linux.PageRange, pieces ...image.Range) *lateMemory {
	page := uint64(os.Getpagesize())
	a := newArrival(nil)
	m := &lateMemory{a: a, uffd: -1}
	for _, r := range areas {
		m.areas = append(m.areas, linux.PageRange{Start: r.Start * page, End: r.End * page})
	}
	a.memory[0] = m
	for _, r := range pieces {
		live := image.Range{Start: r.Start * page, End: r.End * page}
		a.take(image.Piece{Extent: image.Extent{Addr: live.Start, Len: live.Len()}, Live: []image.Range{live}})
	}
	a.sort()
	return m
}

func TestLateVisit(t *testing.T) {
	page := uint64(os.Getpagesize())
	m := lateOf([]linux.PageRange{{Start: 10, End: 20}, {Start: 20, End: 22}, {Start: 30, End: 40}},
		image.Range{Start: 32, End: 34}, image.Range{Start: 12, End: 15}, image.Range{Start: 15, End: 16}, image.Range{Start: 19, End: 21}, image.Range{Start: 39, End: 40})
	for _, c := range []struct {
		start, end uint64 // in pages
		want       string
	}{
		{0, 10, ""},
		{22, 30, ""},
		{50, 60, ""},
		{10, 11, "gap 10-11"},
		{10, 13, "gap 10-12, piece 12"},
		{13, 16, "piece 12, piece 15"},
		{0, 100, "gap 10-12, piece 12, piece 15, gap 16-19, piece 19, piece 19, gap 21-22, gap 30-32, piece 32, gap 34-39, piece 39"},
		{20, 21, "piece 19"},
		{16, 17, "gap 16-17"},
	} {
		for _, off := range []uint64{0, 1} { // whole pages, whatever is asked for
			var got []string
			m.visit(c.start*page+off, c.end*page-off, func(p *latePiece) bool {
				got = append(got, fmt.Sprintf("piece %d", p.Addr/page))
				return true
			}, func(start, end uint64) bool {
				got = append(got, fmt.Sprintf("gap %d-%d", start/page, end/page))
				return true
			})
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("%d-%d: %s, want %s", c.start, c.end, s, c.want)
			}
		}
	}
	m.visit(^uint64(0)-1, ^uint64(0), nil, nil) // does not overflow
	if end := m.holeEnd(16*page, 18*page); end != 18*page {
		t.Errorf("a hole ends at %d", end/page)
	}
	if end := m.holeEnd(34*page, 100*page); end != 39*page {
		t.Errorf("a hole ends at %d", end/page)
	}
}

func TestLateTake(t *testing.T) {
	page := uint64(os.Getpagesize())
	m := lateOf([]linux.PageRange{{Start: 10, End: 20}, {Start: 20, End: 22}})
	for _, c := range []struct {
		start, end uint64
		want       bool
	}{{10, 22, true}, {19, 21, true}, {9, 11, false}, {21, 23, false}, {30, 31, false}} {
		x := image.Piece{Extent: image.Extent{Addr: c.start * page}, Live: []image.Range{{Start: c.start * page, End: c.end * page}}}
		if got := m.a.take(x); got != c.want {
			t.Errorf("%d-%d: %v", c.start, c.end, got)
		}
	}
	if m.a.take(image.Piece{Extent: image.Extent{Space: 1}}) {
		t.Error("memory of another process was taken")
	}
}

func TestLateMissing(t *testing.T) {
	page := uint64(os.Getpagesize())
	m := lateOf([]linux.PageRange{{Start: 10, End: 20}}, image.Range{Start: 12, End: 14})
	missing := func() (list []uint64) {
		for p := uint64(8); p < 22; p++ {
			if m.missing(p*page, p*page+1) {
				list = append(list, p)
			}
		}
		return list
	}
	if got := missing(); !slices.Equal(got, []uint64{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}) {
		t.Errorf("missing: %v", got)
	}
	m.zeroed.add(10*page, 11*page)
	m.zeroed.add(14*page, 16*page)
	m.a.pieces[0].done.Store(true)
	if got := missing(); !slices.Equal(got, []uint64{11, 16, 17, 18, 19}) {
		t.Errorf("missing: %v", got)
	}
}
