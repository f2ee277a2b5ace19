package image

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxChain is how many generations a chain may have, the full one included.
const MaxChain = 100

// maxInherited is how much memory one extent may inherit, in bytes.
const maxInherited = 1 << 30

// Parent names the generation that an image inherits memory from: that of the
// same agent in the same store.
type Parent struct {
	Generation uint64 `json:"generation"`
	XXH3       string `json:"xxh3"` // of its image.hia
}

// Range is a range of memory, without its end.
type Range struct{ Start, End uint64 }

// Len returns the bytes of the range.
func (r Range) Len() uint64 { return r.End - r.Start }

// Piece is an extent as it is stored, here or in a generation before, and which
// of its memory is still that of this image.
type Piece struct {
	Extent         // Space is that of this image
	Image  int     // whose stripes have it: 0: this one's, 1: its parent's, ...
	Live   []Range // of its memory, ascending
}

// fragment is memory of an image and the extent that has it.
type fragment struct {
	space, image, extent uint32
	Range
}

// OpenAgent opens the image of an agent in the generation genDir, whose
// manifest is m, as Open does, checks that it is the one that the manifest
// means, and opens all images that it inherits memory from.
func OpenAgent(genDir string, m *Manifest, a AgentManifest) (*Reader, error) {
	r, err := openImage(genDir, a)
	if err != nil {
		return nil, fmt.Errorf("agent %q: %w", a.ID, err)
	}
	r.generation = m.Generation
	if err := r.openChain(genDir, m, a); err != nil {
		r.Close()
		return nil, fmt.Errorf("agent %q: %w", a.ID, err)
	}
	return r, nil
}

// openImage opens the image of a alone.
func openImage(genDir string, a AgentManifest) (*Reader, error) {
	folder := filepath.Join(genDir, a.Folder)
	r, err := Open(folder)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, imageFile)
	switch {
	case r.header.XXH3 != a.Files[0].XXH3:
		err = formatErrorf(path, "checksum %s, the manifest says %q", r.header.XXH3, a.Files[0].XXH3)
	case r.header.Stripes != len(a.Files)-1:
		err = formatErrorf(path, "%d stripes, the manifest says %d", r.header.Stripes, len(a.Files)-1)
	case r.inherits() && a.Parent == nil:
		err = formatErrorf(path, "inherits memory, and the manifest names no parent")
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// openChain opens the ancestors of r. Generations descend, so that the chain
// ends.
func (r *Reader) openChain(genDir string, m *Manifest, a AgentManifest) error {
	if a.Parent == nil {
		return nil
	}
	// The siblings of the folder itself, whatever link led to it.
	real, err := filepath.EvalSymlinks(genDir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return err
	}
	for a.Parent != nil {
		if len(r.ancestors)+2 > MaxChain {
			return formatErrorf(genDir, "builds on more than %d generations", MaxChain-1)
		}
		parentDir := filepath.Join(filepath.Dir(real), generationName(a.Parent.Generation))
		pm, pa, err := m.findParent(parentDir, a)
		if err != nil {
			return err
		}
		parent, err := openImage(parentDir, *pa)
		if err != nil {
			return fmt.Errorf("generation %d, on which generation %d builds: %w", pm.Generation, m.Generation, err)
		}
		parent.generation = pm.Generation
		r.ancestors = append(r.ancestors, parent)
		if parent.header.Arch != r.header.Arch || parent.header.PageSize != r.header.PageSize {
			return formatErrorf(parentDir, "made for %s with pages of %d bytes, unlike generation %d, which builds on it", parent.header.Arch, parent.header.PageSize, m.Generation)
		}
		m, a = pm, *pa
	}
	return r.checkInherited()
}

// findParent reads the manifest of the generation in dir and checks that it is
// the one that the image of a builds on.
func (m *Manifest) findParent(dir string, a AgentManifest) (*Manifest, *AgentManifest, error) {
	pm, err := ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("generation %d, on which generation %d builds, is missing in %s: %w", a.Parent.Generation, m.Generation, filepath.Dir(dir), err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("generation %d, on which generation %d builds: %w", a.Parent.Generation, m.Generation, err)
	}
	path := filepath.Join(dir, manifestFile)
	i := slices.IndexFunc(pm.Agents, func(pa AgentManifest) bool { return pa.ID == a.ID })
	switch {
	case pm.Computation != m.Computation:
		return nil, nil, formatErrorf(path, "is of the computation %s, generation %d builds on one of %s", pm.Computation, m.Generation, m.Computation)
	case pm.Generation != a.Parent.Generation:
		return nil, nil, formatErrorf(path, "is generation %d, not %d", pm.Generation, a.Parent.Generation)
	case i < 0:
		return nil, nil, formatErrorf(path, "has no agent %q, on whose image generation %d builds", a.ID, m.Generation)
	case pm.Agents[i].Files[0].XXH3 != a.Parent.XXH3:
		return nil, nil, formatErrorf(path, "is not the generation %d that generation %d builds on: checksum %s, want %s", pm.Generation, m.Generation, pm.Agents[i].Files[0].XXH3, a.Parent.XXH3)
	}
	return pm, &pm.Agents[i], nil
}

// HasParent says whether the generation p of the computation is there, for the
// image that is to be in agentDir, of Pending.AgentDir, to build on.
func HasParent(agentDir, computation string, p Parent) error {
	store, agent := filepath.Dir(filepath.Dir(agentDir)), strings.TrimPrefix(filepath.Base(agentDir), agentPrefix)
	m := &Manifest{Computation: computation, Generation: p.Generation + 1}
	_, _, err := m.findParent(filepath.Join(store, generationName(p.Generation)), AgentManifest{ID: agent, Parent: &p})
	return err
}

func (r *Reader) inherits() bool {
	return slices.ContainsFunc(r.extents, func(e Extent) bool { return e.Codec == Inherited })
}

// chain returns the images that have the memory of r, itself first.
func (r *Reader) chain() []*Reader { return append([]*Reader{r}, r.ancestors...) }

// checkInherited refuses memory of a parent that is inherited twice: what is
// one process is not two, and a chain would grow beyond measure.
func (r *Reader) checkInherited() error {
	for _, x := range r.chain() {
		var inherited []Extent
		for _, e := range x.extents {
			if e.Codec == Inherited {
				inherited = append(inherited, e)
			}
		}
		slices.SortFunc(inherited, func(a, b Extent) int {
			return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Addr, b.Addr))
		})
		for i := 1; i < len(inherited); i++ {
			a, b := &inherited[i-1], &inherited[i]
			if a.Offset == b.Offset && b.Addr < a.Addr+a.Len {
				return formatErrorf(x.path, "memory at %#x of space %d of the parent is inherited twice", b.Addr, b.Offset)
			}
		}
	}
	return nil
}

// fragments returns the memory of the image, sorted by space and address.
func (r *Reader) fragments() []fragment {
	chain := r.chain()
	var frags []fragment
	for i := len(chain) - 1; i >= 0; i-- {
		frags = inherit(uint32(i), chain[i].extents, frags)
	}
	return frags
}

// inherit lists the memory of image i, where parent is that of its parent.
func inherit(i uint32, extents []Extent, parent []fragment) []fragment {
	frags := make([]fragment, 0, len(extents))
	for x := range extents {
		e := &extents[x]
		all := Range{e.Addr, e.Addr + e.Len}
		if e.Codec != Inherited {
			frags = append(frags, fragment{e.Space, i, uint32(x), all})
			continue
		}
		at, _ := slices.BinarySearchFunc(parent, e, func(f fragment, e *Extent) int {
			if uint64(f.space) != e.Offset {
				return cmp.Compare(uint64(f.space), e.Offset)
			}
			return cmp.Compare(f.End, e.Addr+1) // the first that ends behind Addr
		})
		for _, f := range parent[at:] {
			if uint64(f.space) != e.Offset || f.Start >= all.End {
				break
			}
			f.space = e.Space
			f.Range = Range{max(f.Start, all.Start), min(f.End, all.End)}
			frags = append(frags, f)
		}
	}
	return frags
}

// Pieces returns all memory of the image, whatever generation has it: each
// stored extent once for each space that it is in, ordered by image, space and
// address.
func (r *Reader) Pieces() []Piece {
	frags := r.fragments()
	slices.SortFunc(frags, func(a, b fragment) int {
		return cmp.Or(cmp.Compare(a.image, b.image), cmp.Compare(a.extent, b.extent), cmp.Compare(a.space, b.space), cmp.Compare(a.Start, b.Start))
	})
	chain := r.chain()
	live := make([]Range, 0, len(frags))
	var pieces []Piece
	for i, f := range frags {
		if last := len(pieces) - 1; i > 0 && frags[i-1].image == f.image && frags[i-1].extent == f.extent && frags[i-1].space == f.space {
			p := &pieces[last]
			if n := len(p.Live) - 1; p.Live[n].End == f.Start {
				p.Live[n].End = f.End
			} else {
				live = append(live, f.Range)
				p.Live = live[len(live)-len(p.Live)-1:]
			}
			continue
		}
		live = append(live, f.Range)
		e := chain[f.image].extents[f.extent]
		e.Space = f.space
		pieces = append(pieces, Piece{e, int(f.image), live[len(live)-1:]})
	}
	return pieces
}

// ReadPiece is ReadExtent of a Piece: dst gets all of its memory, live or not.
func (r *Reader) ReadPiece(p Piece, dst []byte) error {
	return r.imageOf(p).ReadExtent(p.Extent, dst)
}

// PieceFile returns the open file that stores p, which stays the Reader's.
func (r *Reader) PieceFile(p Piece) *os.File { return r.imageOf(p).stripes[p.Stripe] }

func (r *Reader) imageOf(p Piece) *Reader {
	if p.Image == 0 {
		return r
	}
	return r.ancestors[p.Image-1]
}

// live returns the bytes of memory that are of the image.
func (p *Piece) live() (n int64) {
	for _, r := range p.Live {
		n += int64(r.Len())
	}
	return n
}
