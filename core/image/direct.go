package image

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

const (
	// directBuffer is how much of a stripe is gathered for one write with O_DIRECT.
	directBuffer = 1 << 20
	// directAlign is what most file systems want of offsets, lengths and
	// addresses under O_DIRECT, open(2); statx(2) tells where it is more.
	directAlign = 4096
)

// directFile gathers what is written to a stripe past the page cache: in whole
// blocks, from aligned memory, end to end.
type directFile struct {
	mu    sync.Mutex
	align int
	buf   []byte // waits for a write, behind at
	at    int64  // bytes in the file
}

// newDirectFile has f written past the page cache. An error says that its file
// system has no such thing.
func newDirectFile(f *os.File) (*directFile, error) {
	align := directAlign
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		if st.Dio_offset_align == 0 {
			return nil, fmt.Errorf("%s: no direct writes to this file: %w", f.Name(), errors.ErrUnsupported)
		}
		align = max(align, int(st.Dio_offset_align), int(st.Dio_mem_align))
	}
	if directBuffer%align != 0 {
		return nil, fmt.Errorf("%s: direct writes want an alignment of %d bytes: %w", f.Name(), align, errors.ErrUnsupported)
	}
	if err := setDirect(f, true); err != nil {
		return nil, err
	}
	return &directFile{align: align, buf: alignedBuffer(directBuffer, align)}, nil
}

// setDirect sets or clears O_DIRECT.
func setDirect(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		if flags &^= unix.O_DIRECT; on {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	}
	if err != nil {
		return &os.PathError{Op: "fcntl O_DIRECT", Path: f.Name(), Err: err}
	}
	return nil
}

// alignedBuffer returns an empty slice with room for n bytes from an aligned
// address on.
func alignedBuffer(n, align int) []byte {
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (align - 1)
	return b[skip : skip : skip+n]
}

// goDirect has all stripes written past the page cache, or none.
func (w *Writer) goDirect() {
	var files []*directFile
	for i, s := range w.stripes {
		d, err := newDirectFile(s.file)
		if err != nil {
			w.buffered = errors.Join(err, each(w.stripes[:i], func(s *stripe) error { return setDirect(s.file, false) }))
			return
		}
		files = append(files, d)
	}
	for i, s := range w.stripes {
		s.direct = files[i]
	}
}

// Buffered says why the image is written through the page cache where
// Options.Direct asks for O_DIRECT.
func (w *Writer) Buffered() error { return w.buffered }

// append adds b to the stripe and returns where it lies.
func (s *stripe) append(b []byte, m *meter) (at int64, err error) {
	d := s.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	at = d.at + int64(len(d.buf))
	for len(b) > 0 {
		n := min(len(b), cap(d.buf)-len(d.buf))
		d.buf, b = append(d.buf, b[:n]...), b[n:]
		if len(d.buf) == cap(d.buf) {
			if err := s.flush(m); err != nil {
				return 0, err
			}
		}
	}
	s.end.Store(d.at + int64(len(d.buf)))
	return at, nil
}

// flush writes what was gathered, whole blocks.
func (s *stripe) flush(m *meter) error {
	if err := faultpoint.At(faultpoint.StripeWriting); err != nil {
		return err
	}
	d := s.direct
	short := false
	for b := d.buf; len(b) > 0; {
		begun := time.Now()
		n, err := unix.Pwrite(int(s.file.Fd()), b, d.at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		n &^= d.align - 1 // the next write is to be aligned too
		if err == nil && n == 0 {
			if !short { // the next one tells why: ENOSPC, EDQUOT
				short = true
				continue
			}
			err = unix.EIO
		}
		if err != nil {
			return &os.PathError{Op: "pwrite", Path: s.file.Name(), Err: explained(err)}
		}
		m.wrote(n, time.Since(begun))
		b, d.at = b[n:], d.at+int64(n)
	}
	d.buf = d.buf[:0]
	return nil
}

// finishDirect writes the last, broken block, and cuts off what fills it.
func (s *stripe) finishDirect(m *meter) error {
	d := s.direct
	if d == nil || len(d.buf) == 0 {
		return nil
	}
	end, n := d.at+int64(len(d.buf)), len(d.buf)
	d.buf = d.buf[:(n+d.align-1)&^(d.align-1)]
	clear(d.buf[n:])
	if err := s.flush(m); err != nil {
		return err
	}
	if err := s.file.Truncate(end); err != nil {
		return err
	}
	d.at = end
	return nil
}
