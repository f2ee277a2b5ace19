package image

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"
)

// Header is what image.hia says of itself.
type Header struct {
	Format   int    `json:"format"`
	Arch     string `json:"arch"`      // as GOARCH
	PageSize int    `json:"page_size"` // bytes
	Stripes  int    `json:"stripes"`
	Size     int64  `json:"size"` // bytes of image.hia
	XXH3     string `json:"xxh3"` // of all of image.hia, as computed by Open
}

// SectionInfo is one section of an image.
type SectionInfo struct {
	Name    string
	Version uint16
	Size    int64 // bytes of the payload
}

// Reader reads the image of one agent. Its methods, but Close, may be called
// in parallel.
type Reader struct {
	path       string // of image.hia
	generation uint64
	ancestors  []*Reader // that memory is inherited from: parent, grandparent, ...

	header   Header
	sections []section
	extents  []Extent
	order    []uint32 // stored extents by stripe and offset
	stripes  []*os.File

	decoder *decompressor // nil where nothing is compressed
	buffers sync.Pool     // of *[maxExtent]byte
}

type section struct {
	SectionInfo
	payload []byte
}

// Open reads the metadata and the index of the image in dir, and checks
// them: owner, kind and size of each file, all sums of image.hia, that extents
// overlap neither in memory nor in a stripe, and that they cover each stripe
// from its first byte to its last. What is wrong with the content is a
// [*FormatError]. The content of memory is not read: see VerifyPages. What is
// inherited from other generations only OpenAgent finds.
func Open(dir string) (*Reader, error) {
	d, err := openDir(dir, false)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	r := &Reader{path: filepath.Join(dir, imageFile), buffers: sync.Pool{New: func() any { return new([maxExtent]byte) }}}
	if err := r.load(d); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) load(dir *os.File) error {
	f, size, err := openRegular(dir, imageFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.parse(f, f.Name(), size); err != nil {
		return err
	}
	if err := r.openStripes(dir); err != nil {
		return err
	}
	return r.openDecoder()
}

// openStripes opens the stripes and compares their sizes with the index.
func (r *Reader) openStripes(dir *os.File) error {
	ends, err := r.stripeEnds(filepath.Join(dir.Name(), imageFile))
	if err != nil {
		return err
	}
	for i, end := range ends {
		f, size, err := openRegular(dir, stripeName(i))
		if err != nil {
			return err
		}
		r.stripes = append(r.stripes, f)
		if uint64(size) != end {
			return formatErrorf(f.Name(), "has %d bytes, the index of the image wants %d", size, end)
		}
	}
	return nil
}

// stripeEnds sorts the extents by place and returns where each stripe ends.
func (r *Reader) stripeEnds(path string) ([]uint64, error) {
	r.order = make([]uint32, 0, len(r.extents))
	for i := range r.extents {
		if r.extents[i].Codec != Inherited {
			r.order = append(r.order, uint32(i))
		}
	}
	slices.SortFunc(r.order, func(i, j uint32) int {
		a, b := &r.extents[i], &r.extents[j]
		return cmp.Or(cmp.Compare(a.Stripe, b.Stripe), cmp.Compare(a.Offset, b.Offset))
	})
	ends := make([]uint64, r.header.Stripes)
	for _, i := range r.order {
		e := &r.extents[i]
		if e.Offset != ends[e.Stripe] {
			return nil, formatErrorf(path, "extent %d begins at offset %d of stripe %d, the one before ends at %d", i, e.Offset, e.Stripe, ends[e.Stripe])
		}
		ends[e.Stripe] += e.Stored
	}
	return ends, nil
}

// openDecoder makes the decoder if any extent wants it.
func (r *Reader) openDecoder() (err error) {
	if slices.ContainsFunc(r.extents, func(e Extent) bool { return e.Codec != Raw && e.Codec != Inherited }) {
		r.decoder, err = newDecompressor()
	}
	return err
}

// Header returns what image.hia says of itself.
func (r *Reader) Header() Header { return r.header }

// Sections lists the sections in the order they were written.
func (r *Reader) Sections() []SectionInfo {
	infos := make([]SectionInfo, len(r.sections))
	for i, s := range r.sections {
		infos[i] = s.SectionInfo
	}
	return infos
}

// Section returns the payload of a section, which the caller does not change,
// and the version of its owner's state. ok is false where there is none.
func (r *Reader) Section(name string) (payload []byte, version uint16, ok bool) {
	for _, s := range r.sections {
		if s.Name == name {
			return s.payload, s.Version, true
		}
	}
	return nil, 0, false
}

// Extents returns the index of this image alone, sorted by space and address.
// The caller does not change it. See Pieces.
func (r *Reader) Extents() []Extent { return r.extents }

// StripeFile returns the open file of stripe i, 0 ≤ i < Header().Stripes,
// which stays the Reader's. Raw extents may be read from it at their offsets.
func (r *Reader) StripeFile(i int) *os.File { return r.stripes[i] }

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, a := range r.ancestors {
		errs = append(errs, a.Close())
	}
	for _, f := range r.stripes {
		errs = append(errs, f.Close())
	}
	if r.decoder != nil {
		r.decoder.close()
	}
	return errors.Join(errs...)
}

// parser reads image.hia once from front to back.
type parser struct {
	path  string
	in    io.Reader
	whole xxh3.Hasher
	left  uint64 // bytes of the file not yet read
}

// parse reads an image.hia of size bytes. Nothing is allocated for a number
// in the file that the file's size does not allow.
func (r *Reader) parse(in io.Reader, path string, size int64) error {
	p := &parser{path: path, in: bufio.NewReaderSize(in, int(min(size, minWrite))), left: uint64(size)}
	var h header
	if err := p.header(&h); err != nil {
		return err
	}
	if h.size != uint64(size) {
		return formatErrorf(path, "has %d bytes, its header says %d", size, h.size)
	}
	var err error
	if r.sections, err = p.sections(h.sections); err != nil {
		return err
	}
	if r.extents, err = p.index(&h); err != nil {
		return err
	}
	if p.left != 0 {
		return formatErrorf(path, "has %d bytes behind its index", p.left)
	}
	r.header = Header{
		Format:   formatVersion,
		Arch:     archName(h.machine),
		PageSize: int(h.pageSize),
		Stripes:  int(h.stripes),
		Size:     size,
		XXH3:     hexSum(p.whole.Sum64()),
	}
	return nil
}

// read fills b; what names it in an error.
func (p *parser) read(b []byte, what string) error {
	if uint64(len(b)) > p.left {
		return formatErrorf(p.path, "%s is truncated: %d bytes left, want %d", what, p.left, len(b))
	}
	if _, err := io.ReadFull(p.in, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return formatErrorf(p.path, "%s is truncated", what)
	} else if err != nil {
		return fmt.Errorf("%s of %s: %w", what, p.path, err)
	}
	p.left -= uint64(len(b))
	p.whole.Write(b)
	return nil
}

func (p *parser) header(h *header) error {
	b := make([]byte, headerSize)
	if err := p.read(b, "header"); err != nil {
		return err
	}
	if what := h.decode(b); what != "" {
		return formatErrorf(p.path, "%s", what)
	}
	return nil
}

func (p *parser) sections(count uint32) ([]section, error) {
	var sections []section
	names := map[string]bool{}
	payloads := uint64(0)
	for i := range count {
		s, err := p.section(fmt.Sprintf("section %d", i), maxMetadata-payloads)
		if err != nil {
			return nil, err
		}
		if names[s.Name] {
			return nil, formatErrorf(p.path, "section %q stands twice", s.Name)
		}
		names[s.Name] = true
		payloads += uint64(len(s.payload))
		sections = append(sections, s)
	}
	return sections, nil
}

func (p *parser) section(what string, limit uint64) (section, error) {
	le := binary.LittleEndian
	head := make([]byte, sectionHeadSize, sectionHeadSize+maxSectionName)
	if err := p.read(head, what); err != nil {
		return section{}, err
	}
	nameLen, payloadLen := le.Uint16(head), le.Uint64(head[8:])
	if nameLen > maxSectionName || payloadLen > limit || uint64(nameLen)+payloadLen+sumSize > p.left {
		return section{}, formatErrorf(p.path, "%s is damaged: name of %d bytes, payload of %d, with %d left in the file", what, nameLen, payloadLen, p.left)
	}
	head = head[:sectionHeadSize+int(nameLen)]
	if err := p.read(head[sectionHeadSize:], what); err != nil {
		return section{}, err
	}
	s := section{payload: make([]byte, payloadLen)}
	if err := p.read(s.payload, what); err != nil {
		return section{}, err
	}
	var h xxh3.Hasher
	h.Write(head)
	h.Write(s.payload)
	if err := p.sum(h.Sum64(), what); err != nil {
		return section{}, err
	}
	s.SectionInfo = SectionInfo{Name: string(head[sectionHeadSize:]), Version: le.Uint16(head[2:]), Size: int64(payloadLen)}
	if problem := checkSectionName(s.Name); problem != "" {
		return section{}, formatErrorf(p.path, "%s: %s", what, problem)
	}
	return s, nil
}

// sum reads a sum and compares it with the right one.
func (p *parser) sum(want uint64, what string) error {
	var b [sumSize]byte
	if err := p.read(b[:], what); err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(b[:]) != want {
		return formatErrorf(p.path, "%s is damaged: checksum differs", what)
	}
	return nil
}

// index reads the extents block by block, each checked before the next one
// is given room.
func (p *parser) index(h *header) ([]Extent, error) {
	if h.extents > min(p.left/extentRecordSize, math.MaxUint32) {
		return nil, formatErrorf(p.path, "index of %d extents is truncated: %d bytes left", h.extents, p.left)
	}
	var extents []Extent
	buf := make([]byte, min(h.extents, indexBlock)*extentRecordSize)
	for left := h.extents; left > 0; {
		n := min(left, indexBlock)
		block := buf[:n*extentRecordSize]
		what := fmt.Sprintf("index of extents %d to %d", len(extents), uint64(len(extents))+n-1)
		if err := p.read(block, what); err != nil {
			return nil, err
		}
		if err := p.sum(xxh3.Hash(block), what); err != nil {
			return nil, err
		}
		var err error
		if extents, err = p.extents(extents, block, h); err != nil {
			return nil, err
		}
		left -= n
	}
	return extents, nil
}

// extents checks the extents of a block and appends them.
func (p *parser) extents(extents []Extent, block []byte, h *header) ([]Extent, error) {
	extents = slices.Grow(extents, len(block)/extentRecordSize)
	for b := range slices.Chunk(block, extentRecordSize) {
		e := decodeExtent(b)
		i := len(extents)
		if what := e.check(uint64(h.pageSize), uint64(h.stripes)); what != "" {
			return nil, formatErrorf(p.path, "extent %d: %s", i, what)
		}
		if i > 0 && e.overlaps(&extents[i-1]) {
			return nil, formatErrorf(p.path, "extent %d at %#x of space %d overlaps the one before", i, e.Addr, e.Space)
		}
		extents = append(extents, e)
	}
	return extents, nil
}
