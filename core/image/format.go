package image

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

const (
	imageFile = "image.hia"

	// magic has, as that of PNG, a byte above 127 and both kinds of line
	// end: a transfer as text or over a 7-bit channel changes it.
	magic         = "\x89HIA\r\n\x1a\n"
	formatVersion = 1

	headerSize       = 48
	sectionHeadSize  = 16
	extentRecordSize = 40
	sumSize          = 8
	indexBlock       = 8192 // extents under one sum

	maxExtent      = 1 << 20 // bytes of memory
	maxStripes     = 256
	maxSectionName = 255
	maxMetadata    = 1 << 30 // bytes of all payloads together
	minPageSize    = 4 << 10
	maxPageSize    = 64 << 10
)

// Machine numbers of elf(5).
const (
	machineAMD64 = 62
	machineARM64 = 183
)

// FormatError says what is wrong with a file that cannot be trusted: damaged,
// truncated, of another owner, or not an image at all.
type FormatError struct {
	Path string
	What string
}

// Error names the file and what is wrong with it.
func (e *FormatError) Error() string { return e.Path + ": " + e.What }

func formatErrorf(path, format string, args ...any) error {
	return &FormatError{Path: path, What: fmt.Sprintf(format, args...)}
}

// Extent is a piece of memory and its place in a stripe.
type Extent struct {
	Addr   uint64 // in its space, page-aligned
	Len    uint64 // bytes of memory, at most 1 MiB (Inherited: 1 GiB), a multiple of the page size
	Offset uint64 // in the stripe; of Inherited, the parent's number of the space
	Stored uint64 // bytes in the stripe
	Sum    uint64 // XXH3 of the stored bytes
	Space  uint32 // the caller's number of one address space or shared object
	Stripe uint16
	Codec  Codec
}

// compareMemory orders extents as the index has them.
func compareMemory(a, b Extent) int {
	return cmp.Or(cmp.Compare(a.Space, b.Space), cmp.Compare(a.Addr, b.Addr))
}

// check returns what is wrong with e by itself, or "".
func (e *Extent) check(pageSize, stripes uint64) string {
	limit := uint64(maxExtent)
	if e.Codec == Inherited {
		limit = maxInherited
	}
	switch {
	case e.Len == 0 || e.Len > limit || e.Len%pageSize != 0:
		return fmt.Sprintf("length %d", e.Len)
	case e.Addr%pageSize != 0 || e.Addr > math.MaxUint64-e.Len:
		return fmt.Sprintf("address %#x", e.Addr)
	case uint64(e.Stripe) >= stripes:
		return fmt.Sprintf("stripe %d of %d", e.Stripe, stripes)
	case e.Codec >= codecs:
		return fmt.Sprintf("unknown codec %d", e.Codec)
	case e.Codec == Inherited:
		if e.Stored != 0 || e.Stripe != 0 || e.Sum != 0 || e.Offset > math.MaxUint32 {
			return fmt.Sprintf("inherited from space %d, with %d bytes stored", e.Offset, e.Stored)
		}
	case e.Codec == Raw && e.Stored != e.Len,
		e.Codec != Raw && (e.Stored == 0 || e.Stored >= e.Len):
		return fmt.Sprintf("%d bytes stored as %d bytes of %v", e.Len, e.Stored, e.Codec)
	case e.Offset > math.MaxInt64-e.Stored:
		return fmt.Sprintf("offset %d", e.Offset)
	}
	return ""
}

// overlaps says whether e, the successor of prev in the index's order, does
// not begin behind it.
func (e *Extent) overlaps(prev *Extent) bool {
	return e.Space < prev.Space || e.Space == prev.Space && e.Addr < prev.Addr+prev.Len
}

func (e *Extent) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.Addr)
	le.PutUint64(b[8:], e.Offset)
	le.PutUint64(b[16:], e.Sum)
	le.PutUint32(b[24:], e.Space)
	le.PutUint32(b[28:], uint32(e.Len))
	le.PutUint32(b[32:], uint32(e.Stored))
	le.PutUint16(b[36:], e.Stripe)
	b[38] = byte(e.Codec)
	b[39] = 0
}

func decodeExtent(b []byte) Extent {
	le := binary.LittleEndian
	return Extent{
		Addr:   le.Uint64(b[0:]),
		Offset: le.Uint64(b[8:]),
		Sum:    le.Uint64(b[16:]),
		Space:  le.Uint32(b[24:]),
		Len:    uint64(le.Uint32(b[28:])),
		Stored: uint64(le.Uint32(b[32:])),
		Stripe: le.Uint16(b[36:]),
		Codec:  Codec(b[38]),
	}
}

// header is the fixed part of image.hia.
type header struct {
	machine  uint16
	pageSize uint32
	sections uint32
	stripes  uint32
	extents  uint64
	size     uint64
}

func (h *header) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, headerSize), magic...)
	b = le.AppendUint16(b, formatVersion)
	b = le.AppendUint16(b, h.machine)
	b = le.AppendUint32(b, h.pageSize)
	b = le.AppendUint32(b, h.sections)
	b = le.AppendUint32(b, h.stripes)
	b = le.AppendUint64(b, h.extents)
	b = le.AppendUint64(b, h.size)
	return le.AppendUint64(b, xxh3.Hash(b))
}

// decode reads the headerSize bytes of b and returns what is wrong with
// them, or "". The format is looked at before the sum, so that an image of a
// later format, whose header may be another, is named as such.
func (h *header) decode(b []byte) string {
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return "not a hiatus image"
	}
	if v := le.Uint16(b[8:]); v != formatVersion {
		return fmt.Sprintf("image format %d, want %d", v, formatVersion)
	}
	if xxh3.Hash(b[:headerSize-sumSize]) != le.Uint64(b[headerSize-sumSize:]) {
		return "header is damaged: checksum differs"
	}
	*h = header{
		machine:  le.Uint16(b[10:]),
		pageSize: le.Uint32(b[12:]),
		sections: le.Uint32(b[16:]),
		stripes:  le.Uint32(b[20:]),
		extents:  le.Uint64(b[24:]),
		size:     le.Uint64(b[32:]),
	}
	switch {
	case archName(h.machine) == "":
		return fmt.Sprintf("unknown machine %d", h.machine)
	case h.pageSize < minPageSize || h.pageSize > maxPageSize || h.pageSize&(h.pageSize-1) != 0:
		return fmt.Sprintf("page size %d", h.pageSize)
	case h.stripes == 0 || h.stripes > maxStripes:
		return fmt.Sprintf("%d stripes", h.stripes)
	}
	return ""
}

// archName returns the GOARCH of a machine, "" for an unknown one.
func archName(machine uint16) string {
	switch machine {
	case machineAMD64:
		return "amd64"
	case machineARM64:
		return "arm64"
	}
	return ""
}

// machineOf returns the machine of a GOARCH, 0 for an unknown one.
func machineOf(arch string) uint16 {
	switch arch {
	case "amd64":
		return machineAMD64
	case "arm64":
		return machineARM64
	}
	return 0
}

// encodeSectionHead returns the bytes that stand before a payload.
func encodeSectionHead(name string, version uint16, payload int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(make([]byte, 0, sectionHeadSize+len(name)), uint16(len(name)))
	b = le.AppendUint16(b, version)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(payload))
	return append(b, name...)
}

// checkSectionName returns what is wrong with the name of a section, or "".
func checkSectionName(name string) string {
	if name == "" || len(name) > maxSectionName {
		return fmt.Sprintf("section name of %d bytes, want 1 to %d", len(name), maxSectionName)
	}
	return checkPrintable("section name", name)
}

// checkFileName returns what is wrong with name as the name of a file or
// folder that the package makes or opens, or "". It must not lead elsewhere,
// nor hide, nor confuse a terminal.
func checkFileName(name string, limit int) string {
	switch {
	case name == "":
		return "empty name"
	case len(name) > limit:
		return fmt.Sprintf("name of %d bytes, want at most %d", len(name), limit)
	case strings.HasPrefix(name, "."):
		return fmt.Sprintf("name %q begins with a dot", name)
	case strings.Contains(name, "/"):
		return fmt.Sprintf("name %q has a slash", name)
	}
	return checkPrintable("name", name)
}

func checkPrintable(what, s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%s %q is not printable", what, s)
	}
	return ""
}

// stripeName is the name of the stripe file i.
func stripeName(i int) string { return fmt.Sprintf("pages.%d", i) }

// hexSum is the form of a sum in JSON: jq has no 64-bit integers.
func hexSum(sum uint64) string { return fmt.Sprintf("%016x", sum) }
