package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// link is one generation of a chain in the making.
type link struct {
	generation uint64
	dir        string
	manifest   *Manifest
}

// addLink commits a generation that builds on parent, nil for a full one.
func addLink(t testing.TB, s *Store, generation uint64, parent *link, computation string, write func(w *Writer)) *link {
	t.Helper()
	p := must[*Pending](t)(s.Begin(generation))
	defer p.Abort()
	dir := must[string](t)(p.AgentDir("0"))
	w := must[*Writer](t)(Create(dir, Options{Compress: []string{"none", "s2"}[generation%2], Stripes: 2}))
	defer w.Abort()
	write(w)
	sum := must[Summary](t)(w.Close(t.Context()))
	a := AgentManifest{ID: "0", Folder: "agent-0", Files: sum.Files}
	if parent != nil {
		a.Parent = &Parent{parent.generation, parent.manifest.Agents[0].Files[0].XXH3}
	}
	m := testManifest(generation, computation, a)
	path, err := p.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	return &link{generation, path, m}
}

// memoryOf reads the whole memory of an image, by space and page.
func memoryOf(t testing.TB, genDir string) map[uint32]map[uint64][]byte {
	t.Helper()
	m := must[*Manifest](t)(ReadManifest(genDir))
	r := must[*Reader](t)(OpenAgent(genDir, m, m.Agents[0]))
	defer r.Close()
	check(t, r.VerifyPages(t.Context(), nil))
	out := map[uint32]map[uint64][]byte{}
	for _, p := range r.Pieces() {
		b := make([]byte, p.Len)
		check(t, r.ReadPiece(p, b))
		if out[p.Space] == nil {
			out[p.Space] = map[uint64][]byte{}
		}
		for _, l := range p.Live {
			for at := l.Start; at < l.End; at += testPage {
				if out[p.Space][at] != nil {
					t.Fatalf("page %#x of space %d comes twice", at, p.Space)
				}
				out[p.Space][at] = b[at-p.Addr:][:testPage]
			}
		}
	}
	return out
}

// TestChain writes generations of which each changes, drops, adds and keeps
// memory at random, and reads every one of them.
func TestChain(t *testing.T) {
	skipUnlessPage4K(t)
	const pages = 600
	s, rnd := newStore(t), rand.New(rand.NewPCG(1, 2))
	now := map[uint64][]byte{} // page number to content
	var parent *link
	var all []*link
	var want []map[uint64][]byte
	for generation := uint64(1); generation <= 6; generation++ {
		space, from := uint32(generation), uint32(generation-1) // processes are numbered anew
		parent = addLink(t, s, generation, parent, testComputation, func(w *Writer) {
			next := map[uint64][]byte{}
			for n := range uint64(pages) {
				at := n * testPage
				switch old := now[n]; {
				case parent != nil && rnd.IntN(4) > 0: // as it was, or nothing
					w.Inherit(space, from, at, at+testPage)
					if old != nil {
						next[n] = old
					}
				case rnd.IntN(3) > 0:
					b := textBytes(testPage)
					copy(b, fmt.Sprint(generation, n))
					next[n] = b
					check(t, w.PageWriter(int(n%2)).Write(space, at, b))
				}
			}
			now = next
		})
		all, want = append(all, parent), append(want, now)
	}
	for i, l := range all {
		got := memoryOf(t, l.dir)
		if len(got) != 1 || len(got[uint32(l.generation)]) != len(want[i]) {
			t.Errorf("generation %d: %d spaces, %d pages, want %d", l.generation, len(got), len(got[uint32(l.generation)]), len(want[i]))
		}
		for n, b := range want[i] {
			if !bytes.Equal(got[uint32(l.generation)][n*testPage], b) {
				t.Fatalf("generation %d: page %d differs", l.generation, n)
			}
		}
	}
	report := must[*Report](t)(Inspect(parent.dir))
	a := report.Agents[0]
	inherited := int64(0)
	for i, c := range a.Chain {
		if c.Generation != uint64(6-i) {
			t.Errorf("chain %+v", a.Chain)
		}
		if i > 0 {
			inherited += c.Bytes
		}
	}
	if len(a.Chain) != 6 || a.Memory.Inherited != inherited || a.Memory.Bytes+inherited != int64(len(now))*testPage {
		t.Errorf("memory %+v of chain %+v, want %d bytes", a.Memory, a.Chain, len(now)*testPage)
	}
}

// threeLinks commits generations 1 to 3, of which each builds on the one before.
func threeLinks(t testing.TB) (*Store, []*link) {
	s := newStore(t)
	var parent *link
	var all []*link
	for generation := range uint64(3) {
		parent = addLink(t, s, generation+1, parent, testComputation, func(w *Writer) {
			at := generation * testPage
			check(t, w.PageWriter(0).Write(1, at, randomBytes(generation+1, testPage)))
			if generation > 0 {
				w.Inherit(1, 1, 0, at)
			}
		})
		all = append(all, parent)
	}
	return s, all
}

func TestBrokenChain(t *testing.T) {
	skipUnlessPage4K(t)
	rewrite := func(t *testing.T, l *link, change func(*Manifest)) {
		change(l.manifest)
		stamped := *l.manifest
		stamped.Format = manifestFormat
		check(t, os.WriteFile(filepath.Join(l.dir, manifestFile), must[[]byte](t)(stamped.encode()), fileMode))
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, all []*link)
		want   string
	}{
		{"parent missing", func(t *testing.T, all []*link) { check(t, os.RemoveAll(all[1].dir)) }, "generation 2, on which generation 3 builds, is missing"},
		{"grandparent missing", func(t *testing.T, all []*link) { check(t, os.RemoveAll(all[0].dir)) }, "generation 1, on which generation 2 builds, is missing"},
		{"another parent", func(t *testing.T, all []*link) {
			check(t, os.RemoveAll(all[0].dir))
			check(t, os.Rename(all[1].dir, all[0].dir))
		}, "missing"},
		{"other content", func(t *testing.T, all []*link) {
			rewrite(t, all[2], func(m *Manifest) { m.Agents[0].Parent.XXH3 = hexSum(1) })
		}, "is not the generation 2"},
		{"other computation", func(t *testing.T, all []*link) {
			rewrite(t, all[1], func(m *Manifest) { m.Computation = strings.Repeat("ab", 16) })
		}, "is of the computation abab"},
		{"itself", func(t *testing.T, all []*link) {
			rewrite(t, all[2], func(m *Manifest) { m.Agents[0].Parent.Generation = 3 })
		}, "builds on generation 3, which is not before"},
		{"a later one", func(t *testing.T, all []*link) {
			rewrite(t, all[2], func(m *Manifest) { m.Agents[0].Parent.Generation = 9 })
		}, "which is not before"},
		{"generation 0", func(t *testing.T, all []*link) {
			rewrite(t, all[2], func(m *Manifest) { m.Agents[0].Parent.Generation = 0 })
		}, "parent 0"},
		{"no parent", func(t *testing.T, all []*link) {
			rewrite(t, all[2], func(m *Manifest) { m.Agents[0].Parent = nil })
		}, "names no parent"},
		{"other agent", func(t *testing.T, all []*link) {
			rewrite(t, all[1], func(m *Manifest) { m.Agents[0].ID = "7" })
		}, `has no agent "0"`},
		{"damaged pages", func(t *testing.T, all []*link) {
			f := must[*os.File](t)(os.OpenFile(filepath.Join(all[0].dir, "agent-0", "pages.0"), os.O_RDWR, 0))
			flip(t, f, 99)
			check(t, f.Close())
		}, "checksum differs"},
		{"a link", func(t *testing.T, all []*link) {
			moved := filepath.Join(t.TempDir(), "moved")
			check(t, os.Rename(filepath.Join(all[0].dir, "agent-0"), moved))
			check(t, os.Symlink(moved, filepath.Join(all[0].dir, "agent-0")))
		}, "not a folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, all := threeLinks(t)
			tt.damage(t, all)
			if _, err := Verify(t.Context(), all[2].dir, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestChainTooLong(t *testing.T) {
	s := newStore(t)
	var parent *link
	for generation := range uint64(MaxChain + 1) {
		parent = addLink(t, s, generation+1, parent, testComputation, func(w *Writer) {
			if generation > 0 {
				w.Inherit(1, 1, 0, testPage)
			}
		})
		if generation < MaxChain-1 {
			continue
		}
		_, err := Verify(t.Context(), parent.dir, nil)
		if long := generation == MaxChain; long != (err != nil) {
			t.Fatalf("chain of %d generations: error %v", generation+1, err)
		}
	}
}

// TestInheritedTwice refuses memory of the parent that two spaces inherit.
func TestInheritedTwice(t *testing.T) {
	skipUnlessPage4K(t)
	s := newStore(t)
	first := addLink(t, s, 1, nil, testComputation, func(w *Writer) { check(t, w.PageWriter(0).Write(1, 0, textBytes(4*testPage))) })
	second := addLink(t, s, 2, first, testComputation, func(w *Writer) {
		w.Inherit(1, 1, 0, 3*testPage)
		w.Inherit(2, 1, 2*testPage, 4*testPage)
	})
	_, err := Verify(t.Context(), second.dir, nil)
	if fe := wantFormatError(t, err); !strings.Contains(fe.What, "inherited twice") {
		t.Error(fe)
	}
}

func TestInheritOverWritten(t *testing.T) {
	w := must[*Writer](t)(Create(t.TempDir(), Options{Stripes: 1}))
	defer w.Abort()
	check(t, w.PageWriter(0).Write(1, 0, randomBytes(1, os.Getpagesize())))
	w.Inherit(1, 1, 0, uint64(os.Getpagesize()))
	if _, err := w.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "written twice") {
		t.Errorf("got error %v", err)
	}
}

// TestPruneChain keeps what kept generations build on.
func TestPruneChain(t *testing.T) {
	s := newStore(t)
	var parent *link
	for generation := uint64(1); generation <= 7; generation++ {
		if generation == 4 || generation == 7 {
			parent = nil
		}
		parent = addLink(t, s, generation, parent, testComputation, func(*Writer) {})
	}
	for _, step := range []struct {
		keep    int
		removed []uint64
		left    []uint64
	}{
		{5, nil, []uint64{1, 2, 3, 4, 5, 6, 7}}, // 3 builds on 2 and 1
		{3, []uint64{1, 2, 3}, []uint64{4, 5, 6, 7}},
		{2, nil, []uint64{4, 5, 6, 7}},
		{1, []uint64{4, 5, 6}, []uint64{7}},
	} {
		removed := must[[]uint64](t)(s.Prune(testComputation, step.keep, nil))
		if !slices.Equal(removed, step.removed) {
			t.Errorf("keep %d: removed %v, want %v", step.keep, removed, step.removed)
		}
		wantGenerations(t, s, step.left...)
	}
}

// TestCommitWithoutParent gives a generation up whose parent is gone.
func TestCommitWithoutParent(t *testing.T) {
	skipUnlessPage4K(t)
	s, all := threeLinks(t)
	last := all[2].manifest.Agents[0].Files[0].XXH3
	next := filepath.Join(s.Path(), "tmp", "agent-0")
	check(t, HasParent(next, testComputation, Parent{3, last}))
	check(t, os.RemoveAll(all[2].dir))
	if err := HasParent(next, testComputation, Parent{3, last}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
	p := must[*Pending](t)(s.Begin(4))
	defer p.Abort()
	m := fill(t, p, testComputation)
	m.Agents[0].Parent = &Parent{3, last}
	if _, err := p.Commit(m); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
}
