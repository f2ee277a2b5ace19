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
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// Options are the options of Create.
type Options struct {
	Compress string // as CheckCompression allows; "" is "none"
	Stripes  int    // files for memory, at most 256; 0: one a processor, at most 8
	// Speed of the directory, in bytes a second, by which "auto" goes: that of
	// an earlier Summary. 0: unknown. "auto" then measures with the first
	// megabytes of the image, which are stored raw.
	Speed float64
	// Direct has memory written past the page cache (O_DIRECT, open(2)), where
	// the file system can: see Writer.Buffered.
	Direct bool
}

// FileInfo is one file of an image as its manifest lists it.
type FileInfo struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
	// XXH3 is the sum of the whole file, 16 hexadecimal digits. Stripes
	// have none: the index in image.hia has the sum of each of their extents.
	XXH3 string `json:"xxh3,omitempty"`
}

// metadataBuffer is how much of a file without memory is written or read at a time.
const metadataBuffer = 64 << 10

// Summary tells what a Writer has made.
type Summary struct {
	Files    []FileInfo // image.hia, then the stripes in order
	Bytes    int64      // of all files
	RawBytes int64      // of memory, without the zero pages left out and before compression
	Speed    float64    // of the directory, bytes a second; 0 where too little was written to tell
}

// Writer writes the image of one agent. Its own methods are called by one
// goroutine at a time; stripes are written beside it.
type Writer struct {
	dir       *os.File
	file      *os.File // image.hia
	out       *bufio.Writer
	size      int64 // of image.hia so far
	payloads  int64 // bytes of all sections' payloads
	names     map[string]bool
	machine   uint16
	pageSize  int
	codec     atomic.Pointer[compressor] // of the blocks to come; nil: raw
	meter     meter
	stripes   []*stripe
	pages     []*PageWriter
	inherited []Extent
	buffered  error    // why not O_DIRECT
	made      []string // files to remove if the image is given up
	finished  bool     // closed with success, or aborted
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
	if err := w.chooseCodec(o); err != nil {
		return nil, err
	}
	var err error
	if w.dir, err = openDir(dir, false); err != nil {
		return nil, err
	}
	err = w.makeFiles(o)
	if err == nil {
		err = faultpoint.At(faultpoint.ImageCreated)
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// chooseCodec sets the codec of the first blocks, and what may change it.
func (w *Writer) chooseCodec(o Options) error {
	name := o.Compress
	if name == CompressAuto {
		w.meter.told = func(float64) {}
		if name = CompressNone; o.Speed > 0 {
			name = forSpeed(o.Speed)
		} else {
			w.meter.told = w.adapt
		}
	}
	c, err := newCompressor(name)
	w.codec.Store(c)
	return err
}

// adapt has the blocks to come compressed as suits the speed.
func (w *Writer) adapt(speed float64) {
	if c, err := newCompressor(forSpeed(speed)); err == nil {
		w.codec.Store(c)
	}
}

func (w *Writer) makeFiles(o Options) error {
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
	for i := range o.Stripes {
		f, err := w.create(stripeName(i))
		if err != nil {
			return err
		}
		w.stripes = append(w.stripes, &stripe{file: f, number: uint16(i)})
	}
	w.meter.stripes = w.stripes
	writers := o.Stripes
	if o.Compress != "" && o.Compress != CompressNone { // which takes more than one processor a file
		writers = max(writers, runtime.GOMAXPROCS(0))
	}
	for i := range writers {
		w.pages = append(w.pages, &PageWriter{stripe: w.stripes[i%o.Stripes], pageSize: w.pageSize, codec: &w.codec, meter: &w.meter})
	}
	if o.Direct {
		w.goDirect()
	}
	w.out = bufio.NewWriterSize(w.file, metadataBuffer)
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

// PageWriters returns the number of PageWriters: at least that of stripes, and
// of processors where the image is compressed.
func (w *Writer) PageWriters() int { return len(w.pages) }

// PageWriter returns a writer of memory, 0 ≤ i < PageWriters(). The first ones
// have a stripe each.
func (w *Writer) PageWriter(i int) *PageWriter { return w.pages[i] }

// Inherit says that the memory of space from start to end, whole pages, is that
// of space from of the parent, at the same addresses: also where that has
// none. Nothing of it is written.
func (w *Writer) Inherit(space, from uint32, start, end uint64) {
	for start < end {
		n := min(end-start, maxInherited)
		w.inherited = append(w.inherited, Extent{Addr: start, Len: n, Offset: uint64(from), Space: space, Codec: Inherited})
		start += n
	}
}

// Close ends the image: it writes what is pending, the index and the header,
// and makes all files and their names durable (fsync). No PageWriter is in use
// any more. After an error the caller calls Abort. Close looks at ctx between its
// steps; a running fsync cannot be interrupted.
func (w *Writer) Close(ctx context.Context) (Summary, error) {
	if w.finished {
		return Summary{}, os.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return Summary{}, err
	}
	if err := each(w.pages, (*PageWriter).finish); err != nil {
		return Summary{}, err
	}
	if err := each(w.stripes, func(s *stripe) error { return s.finishDirect(&w.meter) }); err != nil {
		return Summary{}, err
	}
	extents, err := w.index()
	if err != nil {
		return Summary{}, err
	}
	// Beside each other: nothing of it counts before the manifest is there.
	var speed float64
	var sum uint64
	err = beside(
		func() (err error) { speed, err = w.syncStripes(); return err },
		func() (err error) { sum, err = w.finishImage(ctx, extents); return err },
		func() error { return syncDir(w.dir) })
	if err == nil {
		err = faultpoint.At(faultpoint.FolderSynced)
	}
	if err != nil {
		return Summary{}, err
	}
	w.finished = true
	return w.summary(sum, speed), w.closeFiles()
}

// syncStripes makes the stripes durable and returns the store's speed.
func (w *Writer) syncStripes() (speed float64, err error) {
	begun := time.Now()
	if err := each(w.stripes, (*stripe).sync); err != nil {
		return 0, err
	}
	return w.meter.end(time.Since(begun))
}

// beside calls all functions side by side.
func beside(do ...func() error) error {
	return each(do, func(f func() error) error { return f() })
}

// each calls f for all of list side by side.
func each[T any](list []T, f func(T) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() { errs[i] = f(x) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// index returns the extents of all writers in order.
func (w *Writer) index() ([]Extent, error) {
	lists := [][]Extent{w.inherited}
	for _, p := range w.pages {
		lists = append(lists, p.extents)
	}
	extents := mergeExtents(lists)
	for i := 1; i < len(extents); i++ {
		if what := extents[i].check(uint64(w.pageSize), uint64(len(w.stripes))); what != "" {
			return nil, fmt.Errorf("image in %s: memory at %#x of space %d: %s", w.dir.Name(), extents[i].Addr, extents[i].Space, what)
		}
		if e := &extents[i]; e.overlaps(&extents[i-1]) {
			return nil, fmt.Errorf("image in %s: memory at %#x of space %d is written twice", w.dir.Name(), e.Addr, e.Space)
		}
	}
	return extents, nil
}

// mergeExtents returns what is in all lists, a few, in the order of compareMemory. Each is nearly in order
// by itself: to merge them takes less than to sort all.
func mergeExtents(lists [][]Extent) []Extent {
	n := 0
	for _, l := range lists {
		slices.SortFunc(l, compareMemory)
		n += len(l)
	}
	all := make([]Extent, 0, n)
	for len(all) < n {
		first := -1
		for i, l := range lists {
			if len(l) > 0 && (first < 0 || compareMemory(l[0], lists[first][0]) < 0) {
				first = i
			}
		}
		all = append(all, lists[first][0])
		lists[first] = lists[first][1:]
	}
	return all
}

// finishImage writes the index and the header, makes image.hia durable and
// returns its sum.
func (w *Writer) finishImage(ctx context.Context, extents []Extent) (sum uint64, err error) {
	if err := faultpoint.At(faultpoint.IndexWriting); err != nil {
		return 0, err
	}
	if err := w.emitIndex(extents); err != nil {
		return 0, err
	}
	if err := w.out.Flush(); err != nil {
		return 0, err
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
		return 0, err
	}
	if sum, err = HashFile(w.file); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := faultpoint.At(faultpoint.ImageSyncing); err != nil {
		return 0, err
	}
	if err := w.file.Sync(); err != nil {
		return 0, err
	}
	return sum, faultpoint.At(faultpoint.ImageSynced)
}

func (w *Writer) emitIndex(extents []Extent) error {
	block := make([]byte, 0, min(len(extents), indexBlock)*extentRecordSize+sumSize)
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

func (w *Writer) summary(sum uint64, speed float64) Summary {
	s := Summary{
		Files: []FileInfo{{Name: imageFile, Size: w.size, XXH3: hexSum(sum)}},
		Bytes: w.size,
		Speed: speed,
	}
	for i, stripe := range w.stripes {
		size := stripe.end.Load()
		s.Files = append(s.Files, FileInfo{Name: stripeName(i), Size: size})
		s.Bytes += size
	}
	for _, p := range w.pages {
		s.RawBytes += p.raw
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
	w.meter.probe.Wait() // which uses the files
	var errs []error
	for _, p := range w.pages {
		p.err = os.ErrClosed
		p.free()
	}
	for _, s := range w.stripes {
		errs = append(errs, s.file.Close())
	}
	if w.file != nil {
		errs = append(errs, w.file.Close())
	}
	return errors.Join(append(errs, w.dir.Close())...)
}

// HashFile returns the sum of a whole file, XXH3. image.hia is read again for it
// because its header, which comes first, is written last.
func HashFile(f *os.File) (uint64, error) {
	var h xxh3.Hasher
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, max(min(info.Size(), metadataBuffer), 1))
	if _, err := io.CopyBuffer(&h, io.NewSectionReader(f, 0, info.Size()), buf); err != nil {
		return 0, err
	}
	return h.Sum64(), nil
}
