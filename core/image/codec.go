package image

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec says how the bytes of an extent are stored.
type Codec uint8

// The numbers stand in images: append only.
const (
	Raw  Codec = 0 // as they are
	Zstd Codec = 1 // one zstd frame
	S2   Codec = 2 // one s2 block
	LZ4  Codec = 3 // one LZ4 block

	// Inherited is memory that is as the parent has it: nothing is stored.
	Inherited Codec = 4

	codecs = 5 // how many there are
)

// String returns the name used in reports.
func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	case S2:
		return "s2"
	case LZ4:
		return "lz4"
	case Inherited:
		return "inherited"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// The compressions of Options that are no codec.
const (
	CompressAuto = "auto" // what suits the speed of the directory
	CompressNone = "none"
)

// Compressions lists what CheckCompression allows; zstd may have a level
// behind it.
func Compressions() []string {
	return []string{CompressAuto, CompressNone, S2.String(), LZ4.String(), Zstd.String()}
}

// CheckCompression says whether Options.Compress may have the value s: one of
// Compressions, or "zstd:" and a level of 1 to 22.
func CheckCompression(s string) error {
	if slices.Contains(Compressions(), s) {
		return nil
	}
	_, err := zstdLevel(s)
	return err
}

// zstdLevel returns the library's level for "zstd" or "zstd:level".
func zstdLevel(s string) (zstd.EncoderLevel, error) {
	name, level, given := strings.Cut(s, ":")
	if name != Zstd.String() {
		return 0, fmt.Errorf("unknown compression %q, want one of %s, zstd:LEVEL", s, strings.Join(Compressions(), ", "))
	}
	if !given {
		return zstd.SpeedFastest, nil
	}
	n, err := strconv.Atoi(level)
	if err != nil || n < 1 || n > 22 {
		return 0, fmt.Errorf("compression %q: the level of zstd is 1 to 22", s)
	}
	return zstd.EncoderLevelFromZstd(n), nil
}

// compressor encodes blocks, for several goroutines at once.
type compressor struct {
	codec Codec
	zstd  *zstd.Encoder
	// samples has blocks that look like noise left alone: encoders that
	// search far take long to find nothing.
	samples bool
}

// newCompressor returns nil for no compression.
func newCompressor(name string) (*compressor, error) {
	switch name {
	case "", CompressNone:
		return nil, nil
	case S2.String():
		return &compressor{codec: S2}, nil
	case LZ4.String():
		return &compressor{codec: LZ4}, nil
	}
	level, err := zstdLevel(name)
	if err != nil {
		return nil, err
	}
	// Blocks have sums of their own, so that zstd's would be computed for nothing.
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(maxExtent),
		zstd.WithEncoderCRC(false))
	return &compressor{codec: Zstd, zstd: e, samples: true}, err
}

// room is the size of a buffer that is enough for encode.
func (c *compressor) room() int {
	if c.codec == S2 {
		return s2.MaxEncodedLen(maxExtent)
	}
	return maxExtent
}

// encode returns the compressed form of b, in dst or its successor, which
// becomes the next dst. ok is false where it would not be a sixteenth smaller:
// decoding it would cost more than it saves.
func (c *compressor) encode(dst, b []byte) (stored, next []byte, ok bool) {
	if c.samples && isNoise(b) {
		return nil, dst, false
	}
	limit := len(b) - len(b)/16
	switch c.codec {
	case S2:
		if cap(dst) < c.room() {
			dst = make([]byte, c.room())
		}
		dst = s2.Encode(dst[:cap(dst)], b)
	case LZ4:
		if cap(dst) < c.room() {
			dst = make([]byte, c.room())
		}
		// 0 bytes, or an error, where the result does not fit.
		n, err := lz4.CompressBlock(b, dst[:limit], nil)
		if err != nil {
			n = 0
		}
		dst = dst[:n]
	case Zstd:
		dst = c.zstd.EncodeAll(b, dst[:0])
	}
	return dst, dst, len(dst) > 0 && len(dst) <= limit
}

const (
	sampleSize = 8 << 10
	// noise is what compress.Estimate gives for random bytes, and a little
	// more; base64 has 0.23.
	noise = 0.06
)

// isNoise says whether samples of b have no structure.
func isNoise(b []byte) bool {
	for i := range 4 {
		at := i * len(b) / 4
		if compress.Estimate(b[at:min(at+sampleSize, len(b))]) > noise {
			return false
		}
	}
	return true
}

// decompressor decodes blocks, for several goroutines at once.
type decompressor struct {
	zstd *zstd.Decoder
}

// newDecompressor makes a decompressor whose limits keep a frame that claims
// more than an extent may have from taking memory.
func newDecompressor() (*decompressor, error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(maxExtent),
		zstd.WithDecoderMaxWindow(maxExtent),
		zstd.WithDecodeAllCapLimit(true))
	return &decompressor{zstd: d}, err
}

// decode fills dst with what stored decodes to, which must have its length.
func (d *decompressor) decode(c Codec, dst, stored []byte) error {
	n := 0
	var err error
	switch c {
	case Zstd:
		var out []byte
		out, err = d.zstd.DecodeAll(stored, dst[:0:len(dst)])
		n = len(out)
	case S2:
		// The length that a block claims is looked at first: Decode would
		// take memory for it.
		if n, err = s2.DecodedLen(stored); err == nil && n == len(dst) {
			_, err = s2.Decode(dst[:len(dst):len(dst)], stored)
		}
	case LZ4:
		n, err = lz4.UncompressBlock(stored, dst)
	default:
		return fmt.Errorf("unknown codec %d", c)
	}
	if err != nil {
		return err
	}
	if n != len(dst) {
		return fmt.Errorf("decodes to %d bytes, not %d", n, len(dst))
	}
	return nil
}

func (d *decompressor) close() { d.zstd.Close() }
