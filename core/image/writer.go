package image

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

// Options are the options of Create.
type Options struct {
	Compress string // "none" (or "") or "zstd"
	Stripes  int    // files for memory, at most 256; 0: one a processor, at most 8
}

// FileInfo is one file of an image as its manifest lists it.
type FileInfo struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
	// XXH3 is the sum of the whole file, 16 hexadecimal digits. Stripes
	// have none: the index in image.hia has the sum of each of their extents.
	XXH3 string `json:"xxh3,omitempty"`
}

// Summary tells what a Writer has made.
type Summary struct {
	Files    []FileInfo // image.hia, then the stripes in order
	Bytes    int64      // of all files
	RawBytes int64      // of memory, without the zero pages left out and before compression
}

// Writer writes the image of one agent. Its own methods are called by one
// goroutine at a time; stripes are written beside it.
type Writer struct {
	dir      *os.File
	file     *os.File // image.hia
	out      *bufio.Writer
	size     int64 // of image.hia so far
	payloads int64 // bytes of all sections' payloads
	names    map[string]bool
	machine  uint16
	pageSize int
	encoder  *zstd.Encoder
	stripes  []*StripeWriter
	made     []string // files to remove if the image is given up
	finished bool     // closed with success, or aborted
}

// Create begins an image in dir, an existing, empty folder. The caller ends it
// with Close or Abort.
func Create(dir string, o Options) (*Writer, error) {
	if o.Stripes == 0 {
		o.Stripes = min(runtime.GOMAXPROCS(0), 8)
	}
	if o.Stripes < 0 || o.Stripes > maxStripes {
		return nil, fmt.Errorf("image with %d stripes, want 1 to %d", o.Stripes, maxStripes)
	}
	w := &Writer{names: map[string]bool{}, machine: machineOf(runtime.GOARCH), pageSize: os.Getpagesize()}
	if w.machine == 0 {
		return nil, fmt.Errorf("image format has no number for %s", runtime.GOARCH)
	}
	var err error
	if w.encoder, err = newEncoder(o); err != nil {
		return nil, err
	}
	if w.dir, err = openDir(dir, false); err != nil {
		return nil, err
	}
	if err := w.makeFiles(o.Stripes); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// newEncoder returns nil for no compression. Blocks have sums of their own, so
// that zstd's would be computed for nothing.
func newEncoder(o Options) (*zstd.Encoder, error) {
	switch o.Compress {
	case "", "none":
		return nil, nil
	case "zstd":
		return zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(o.Stripes),
			zstd.WithWindowSize(maxExtent),
			zstd.WithEncoderCRC(false))
	}
	return nil, fmt.Errorf("unknown compression %q, want none or zstd", o.Compress)
}

func (w *Writer) makeFiles(stripes int) error {
	if _, err := w.dir.Readdirnames(1); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("not empty")
		}
		return fmt.Errorf("folder for an image %s: %w", w.dir.Name(), err)
	}
	var err error
	if w.file, err = w.create(imageFile); err != nil {
		return err
	}
	for i := range stripes {
		f, err := w.create(stripeName(i))
		if err != nil {
			return err
		}
		w.stripes = append(w.stripes, newStripeWriter(f, i, w.pageSize, w.encoder))
	}
	w.out = bufio.NewWriterSize(w.file, minWrite)
	return w.emit(make([]byte, headerSize)) // known at the end only
}

func (w *Writer) create(name string) (*os.File, error) {
	f, err := createFile(w.dir, name)
	if err == nil {
		w.made = append(w.made, name)
	}
	return f, err
}

func (w *Writer) emit(b []byte) error {
	n, err := w.out.Write(b)
	w.size += int64(n)
	return err
}

// Section adds the payload of one owner, in that owner's state version. Names
// are printable, at most 255 bytes, and not used twice; all payloads together
// have at most 1 GiB.
func (w *Writer) Section(name string, version uint16, payload []byte) error {
	if w.finished {
		return os.ErrClosed
	}
	if what := checkSectionName(name); what != "" {
		return fmt.Errorf("image section: %s", what)
	}
	if w.names[name] {
		return fmt.Errorf("image section %q is given twice", name)
	}
	if w.payloads+int64(len(payload)) > maxMetadata {
		return fmt.Errorf("image section %q of %d bytes: all sections together would have more than %d", name, len(payload), maxMetadata)
	}
	var h xxh3.Hasher
	head := encodeSectionHead(name, version, len(payload))
	h.Write(head)
	h.Write(payload)
	sum := binary.LittleEndian.AppendUint64(nil, h.Sum64())
	for _, b := range [][]byte{head, payload, sum} {
		if err := w.emit(b); err != nil {
			return fmt.Errorf("image section %q: %w", name, err)
		}
	}
	w.names[name] = true
	w.payloads += int64(len(payload))
	return nil
}

// Stripes returns the number of stripes.
func (w *Writer) Stripes() int { return len(w.stripes) }

// Stripe returns the writer of stripe i, 0 ≤ i < Stripes().
func (w *Writer) Stripe(i int) *StripeWriter { return w.stripes[i] }

// Close ends the image: it writes what is pending, the index and the header,
// and makes all files and their names durable (fsync). No stripe is in use any
// more. After an error the caller calls Abort. Close looks at ctx between its
// steps; a running fsync cannot be interrupted.
func (w *Writer) Close(ctx context.Context) (Summary, error) {
	if w.finished {
		return Summary{}, os.ErrClosed
	}
	if err := w.finishStripes(ctx); err != nil {
		return Summary{}, err
	}
	extents, err := w.index()
	if err != nil {
		return Summary{}, err
	}
	if err := w.finishImage(ctx, extents); err != nil {
		return Summary{}, err
	}
	sum, err := hashFile(w.file)
	if err != nil {
		return Summary{}, err
	}
	if err := syncDir(w.dir); err != nil {
		return Summary{}, err
	}
	w.finished = true
	return w.summary(sum), w.closeFiles()
}

func (w *Writer) finishStripes(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	errs := make([]error, len(w.stripes))
	var wg sync.WaitGroup
	for i, s := range w.stripes {
		wg.Go(func() { errs[i] = s.finish() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// index returns the extents of all stripes in order.
func (w *Writer) index() ([]Extent, error) {
	n := 0
	for _, s := range w.stripes {
		n += len(s.extents)
	}
	extents := make([]Extent, 0, n)
	for _, s := range w.stripes {
		extents = append(extents, s.extents...)
	}
	slices.SortFunc(extents, compareMemory)
	for i := 1; i < len(extents); i++ {
		if e := &extents[i]; e.overlaps(&extents[i-1]) {
			return nil, fmt.Errorf("image in %s: memory at %#x of space %d is written twice", w.dir.Name(), e.Addr, e.Space)
		}
	}
	return extents, nil
}

func (w *Writer) finishImage(ctx context.Context, extents []Extent) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.emitIndex(extents); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	h := header{
		machine:  w.machine,
		pageSize: uint32(w.pageSize),
		sections: uint32(len(w.names)),
		stripes:  uint32(len(w.stripes)),
		extents:  uint64(len(extents)),
		size:     uint64(w.size),
	}
	if _, err := w.file.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.file.Sync()
}

func (w *Writer) emitIndex(extents []Extent) error {
	block := make([]byte, 0, indexBlock*extentRecordSize+sumSize)
	for chunk := range slices.Chunk(extents, indexBlock) {
		block = block[:len(chunk)*extentRecordSize]
		for i := range chunk {
			chunk[i].encode(block[i*extentRecordSize:])
		}
		block = binary.LittleEndian.AppendUint64(block, xxh3.Hash(block))
		if err := w.emit(block); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) summary(sum uint64) Summary {
	s := Summary{
		Files: []FileInfo{{Name: imageFile, Size: w.size, XXH3: hexSum(sum)}},
		Bytes: w.size,
	}
	for i, stripe := range w.stripes {
		s.Files = append(s.Files, FileInfo{Name: stripeName(i), Size: stripe.size})
		s.Bytes += stripe.size
		s.RawBytes += stripe.raw
	}
	return s
}

// Abort gives the image up: it closes and removes the files that Create made.
// After a Close that succeeded, or another Abort, it does nothing, so that it
// can be deferred. What cannot be removed now goes with the generation's folder.
func (w *Writer) Abort() {
	if w.finished {
		return
	}
	w.finished = true
	for _, name := range w.made {
		_ = unlinkFile(w.dir, name)
	}
	_ = w.closeFiles()
}

func (w *Writer) closeFiles() error {
	var errs []error
	for _, s := range w.stripes {
		s.err = os.ErrClosed
		errs = append(errs, s.file.Close())
	}
	if w.file != nil {
		errs = append(errs, w.file.Close())
	}
	if w.encoder != nil {
		errs = append(errs, w.encoder.Close())
	}
	return errors.Join(append(errs, w.dir.Close())...)
}

// hashFile returns the sum of a whole file. image.hia is read again for it
// because its header, which comes first, is written last.
func hashFile(f *os.File) (uint64, error) {
	var h xxh3.Hasher
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if _, err := io.CopyBuffer(&h, io.NewSectionReader(f, 0, info.Size()), make([]byte, minWrite)); err != nil {
		return 0, err
	}
	return h.Sum64(), nil
}
