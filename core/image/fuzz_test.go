package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeebo/xxh3"
)

// FuzzOpen opens an image.hia beside two good stripes: as it is, and once more
// with its size and sums made right, so that what stands behind them is reached.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	writeImage(f, dir, "zstd")
	path := filepath.Join(dir, imageFile)
	f.Add(must[[]byte](f)(os.ReadFile(path)))
	f.Add(newRawImage().bytes())
	im := newRawImage()
	im.extents[0] = Extent{Space: 1, Addr: 0x1000, Len: testPage, Offset: 3, Codec: Inherited}
	im.extents[1].Offset = 0
	f.Add(im.bytes())
	for _, compress := range []string{"s2", "lz4"} {
		other := f.TempDir()
		writeImage(f, other, compress)
		f.Add(must[[]byte](f)(os.ReadFile(filepath.Join(other, imageFile))))
	}
	var pages [][]byte
	for i := range 2 {
		pages = append(pages, must[[]byte](f)(os.ReadFile(filepath.Join(dir, stripeName(i)))))
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		for _, b := range [][]byte{image, reseal(image)} {
			// Most inputs end here, which needs no files.
			if new(Reader).parse(bytes.NewReader(b), path, int64(len(b))) != nil {
				continue
			}
			check(t, os.WriteFile(path, b, fileMode))
			fuzzOpen(t, dir, pages)
		}
	})
}

func fuzzOpen(t *testing.T, dir string, pages [][]byte) {
	r, err := Open(dir)
	if err != nil {
		return
	}
	defer r.Close()
	_ = r.VerifyPages(t.Context(), nil)
	for _, e := range r.Extents() {
		if e.Codec == Inherited {
			continue
		}
		b := make([]byte, e.Len)
		stored := pages[e.Stripe][e.Offset : e.Offset+e.Stored] // in bounds, or Open is wrong
		if r.ReadExtent(e, b) == nil && e.Codec == Raw && !bytes.Equal(b, stored) {
			t.Errorf("extent %+v: wrong data", e)
		}
	}
}

// reseal returns a copy of an image.hia with the size and the sums that its
// content asks for, as far as it can be followed.
func reseal(image []byte) []byte {
	b := bytes.Clone(image)
	if len(b) < headerSize {
		return b
	}
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint16(b[8:], formatVersion)
	le.PutUint64(b[32:], uint64(len(b)))
	le.PutUint64(b[40:], xxh3.Hash(b[:40]))
	at := headerSize
	for range le.Uint32(b[16:]) {
		if len(b)-at < sectionHeadSize {
			return b
		}
		name, payload := int(le.Uint16(b[at:])), le.Uint64(b[at+8:])
		if payload > uint64(len(b)) || at+sectionHeadSize+name+int(payload)+sumSize > len(b) {
			return b
		}
		end := at + sectionHeadSize + name + int(payload)
		le.PutUint64(b[end:], xxh3.Hash(b[at:end]))
		at = end + sumSize
	}
	for left := le.Uint64(b[24:]); left > 0; {
		n := min(left, indexBlock)
		end := at + int(n)*extentRecordSize
		if end+sumSize > len(b) {
			return b
		}
		le.PutUint64(b[end:], xxh3.Hash(b[at:end]))
		at, left = end+sumSize, left-n
	}
	return b
}

// FuzzManifest decodes a manifest as it is, and with a right sum behind it.
func FuzzManifest(f *testing.F) {
	m := testManifest(1, testComputation, AgentManifest{ID: "0", Folder: "agent-0", Files: []FileInfo{{Name: imageFile}, {Name: "pages.0"}}})
	b := must[[]byte](f)(m.encode())
	f.Add(b)
	f.Add(b[:len(b)-len(sumLine(nil))])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, append(bytes.Clone(b), sumLine(b)...)} {
			m, what := decodeManifest(b)
			if what != "" {
				continue
			}
			for _, a := range m.Agents {
				for _, name := range []string{a.Folder, a.Files[0].Name, a.Files[1].Name} {
					if !filepath.IsLocal(name) || filepath.Base(name) != name {
						t.Errorf("name %q leads elsewhere", name)
					}
				}
			}
			again := must[[]byte](t)(m.encode())
			if _, what := decodeManifest(again); what != "" {
				t.Errorf("written again: %s", what)
			}
		}
	})
}

// FuzzDecode decodes blocks of every codec, whose sums nobody has checked.
func FuzzDecode(f *testing.F) {
	for _, codec := range []Codec{Zstd, S2, LZ4} {
		c := must[*compressor](f)(newCompressor(codec.String()))
		stored, _, _ := c.encode(nil, textBytes(testPage))
		f.Add(byte(codec), uint32(testPage), bytes.Clone(stored))
	}
	d := must[*decompressor](f)(newDecompressor())
	f.Fuzz(func(t *testing.T, codec byte, size uint32, stored []byte) {
		// A guard behind the block shows what is written too far.
		const guard = 64
		n := int(size % (maxExtent + 1))
		buf := bytes.Repeat([]byte{0xa5}, n+guard)
		_ = d.decode(Codec(codec%codecs), buf[:n], stored)
		if !bytes.Equal(buf[n:], bytes.Repeat([]byte{0xa5}, guard)) {
			t.Error("written behind the block")
		}
	})
}

// FuzzChain resolves the memory of an image and its parent, of any extents
// that could stand in an index.
func FuzzChain(f *testing.F) {
	f.Add([]byte{1, 0, 8, 0, 1, 8, 4, 0}, []byte{1, 0, 4, 5, 1, 4, 1, 0, 2, 4, 4, 5})
	parse := func(b []byte) *Reader {
		r := &Reader{}
		for c := range slices.Chunk(b[:len(b)/4*4], 4) {
			e := Extent{Space: uint32(c[0] % 4), Addr: uint64(c[1]) * testPage, Len: uint64(c[2]%16+1) * testPage}
			if c[3]&1 != 0 {
				e.Codec, e.Offset = Inherited, uint64(c[3]/2%4)
			}
			r.extents = append(r.extents, e)
		}
		slices.SortStableFunc(r.extents, compareMemory)
		kept := r.extents[:0]
		for _, e := range r.extents {
			if n := len(kept); n == 0 || !e.overlaps(&kept[n-1]) {
				kept = append(kept, e)
			}
		}
		r.extents = kept
		return r
	}
	f.Fuzz(func(t *testing.T, parent, child []byte) {
		if len(parent)+len(child) > 256 {
			return
		}
		r, p := parse(child), parse(parent)
		p.extents = slices.DeleteFunc(p.extents, func(e Extent) bool { return e.Codec == Inherited })
		r.ancestors = []*Reader{p}
		if r.checkInherited() != nil {
			return
		}
		type page struct {
			space uint32
			addr  uint64
		}
		want := map[page][2]uint32{} // image and extent
		for i, e := range r.extents {
			for at := e.Addr; at < e.Addr+e.Len; at += testPage {
				if e.Codec != Inherited {
					want[page{e.Space, at}] = [2]uint32{0, uint32(i)}
					continue
				}
				for k, o := range p.extents {
					if uint64(o.Space) == e.Offset && o.Addr <= at && at < o.Addr+o.Len {
						want[page{e.Space, at}] = [2]uint32{1, uint32(k)}
					}
				}
			}
		}
		got := 0
		for _, f := range r.fragments() {
			for at := f.Start; at < f.End; at += testPage {
				if w, ok := want[page{f.space, at}]; !ok || w != [2]uint32{f.image, f.extent} {
					t.Errorf("page %#x of space %d: extent %d of image %d, want %v", at, f.space, f.extent, f.image, w)
				}
				got++
			}
		}
		for _, piece := range r.Pieces() {
			for _, l := range piece.Live {
				got -= int(l.Len() / testPage)
			}
		}
		if got != 0 || len(r.fragments()) > len(r.extents)+len(p.extents) {
			t.Errorf("%d pages too many in fragments", got)
		}
	})
}
