package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// minWrite is the least size of a write to a stripe, but for the last one:
// smaller ones cost more in system calls than in copying.
const minWrite = 256 << 10

// stripe is one file of memory. Writers append to it side by side.
type stripe struct {
	file   *os.File
	number uint16
	end    atomic.Int64 // bytes that were given room
	begun  atomic.Int64 // bytes that are on their way to the disk
	direct *directFile  // nil: through the page cache
}

// writeBackStep is how much is sent to the disk at a time, long before the
// end.
const writeBackStep = 8 << 20

// writeBack has the kernel begin to write the first bytes to the disk, so that
// sync finds little left to do.
func (s *stripe) writeBack(to int64) {
	from := s.begun.Load()
	if to-from >= writeBackStep && s.begun.CompareAndSwap(from, to) {
		_ = unix.SyncFileRange(int(s.file.Fd()), from, to-from, unix.SYNC_FILE_RANGE_WRITE) // sync tells
	}
}

// sync makes the file durable.
func (s *stripe) sync() error {
	err := faultpoint.At(faultpoint.StripeSyncing)
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = faultpoint.At(faultpoint.StripeSynced)
	}
	return err
}

// PageWriter writes memory to the image, compressing it, for one goroutine at
// a time; different ones work in parallel, also on the same stripe. After an
// error every call returns that error.
type PageWriter struct {
	stripe   *stripe
	pageSize int
	codec    *atomic.Pointer[compressor] // of the blocks to come; nil: raw
	meter    *meter

	space uint32 // of run
	addr  uint64 // of run
	run   []byte // memory that the next Write may continue

	packed []byte // the compressed form of an extent
	out    []byte // small stored extents that wait for a write
	placed int    // extents that have a place; Offset of the others is in out
	room   room   // has run, packed and out

	extents []Extent
	raw     int64 // bytes of all extents in memory
	err     error
}

// Write stores the memory of space at addr, but for pages that are all zero:
// they are left out, so that what is read back must lie over zeros. addr and
// the length are multiples of the page size. What follows on the Write before
// it joins its extent. pages may be used again when Write returns. The fastest
// calls give 256 KiB or more (1 MiB with compression), which are not copied.
func (s *PageWriter) Write(space uint32, addr uint64, pages []byte) error {
	if err := s.admit(addr, pages); err != nil {
		return err
	}
	for len(pages) > 0 {
		zeros := zeroPrefix(pages, s.pageSize)
		addr, pages = addr+uint64(zeros), pages[zeros:]
		n := dataPrefix(pages, s.pageSize)
		if err := s.add(space, addr, pages[:n]); err != nil {
			return err
		}
		addr, pages = addr+uint64(n), pages[n:]
	}
	return nil
}

// WriteDense is Write that stores all-zero pages too: for memory over a file,
// where a page left out would show the file.
func (s *PageWriter) WriteDense(space uint32, addr uint64, pages []byte) error {
	if err := s.admit(addr, pages); err != nil {
		return err
	}
	return s.add(space, addr, pages)
}

// admit refuses what cannot be indexed.
func (s *PageWriter) admit(addr uint64, pages []byte) error {
	if s.err != nil {
		return s.err
	}
	size := uint64(s.pageSize)
	if addr%size != 0 || uint64(len(pages))%size != 0 || addr > math.MaxUint64-uint64(len(pages)) {
		return s.fail(fmt.Errorf("%s: memory at %#x of %d bytes is not whole pages", s.stripe.file.Name(), addr, len(pages)))
	}
	return nil
}

func (s *PageWriter) fail(err error) error {
	s.err = err
	return err
}

// add gives memory to the current run, and stores each full extent.
func (s *PageWriter) add(space uint32, addr uint64, b []byte) error {
	if len(s.run) > 0 && len(b) > 0 && (space != s.space || addr != s.addr+uint64(len(s.run))) {
		if err := s.endRun(); err != nil {
			return err
		}
	}
	for len(b) > 0 {
		n := min(len(b), maxExtent-len(s.run))
		if len(s.run) == 0 && n >= s.direct() {
			if err := s.store(space, addr, b[:n]); err != nil {
				return err
			}
		} else if err := s.extendRun(space, addr, b[:n]); err != nil {
			return err
		}
		addr, b = addr+uint64(n), b[n:]
	}
	return nil
}

func (s *PageWriter) extendRun(space uint32, addr uint64, b []byte) error {
	if s.run == nil {
		s.run = s.room.buffer(maxExtent)
	}
	if len(s.run) == 0 {
		s.space, s.addr = space, addr
	}
	s.run = append(s.run, b...)
	if len(s.run) == maxExtent {
		return s.endRun()
	}
	return nil
}

func (s *PageWriter) endRun() error {
	if len(s.run) == 0 {
		return nil
	}
	err := s.store(s.space, s.addr, s.run)
	s.run = s.run[:0]
	return err
}

// direct is the size from which bytes are stored without passing through run:
// 1 MiB where they are compressed, which larger blocks do better.
func (s *PageWriter) direct() int {
	if s.codec.Load() == nil {
		return minWrite
	}
	return maxExtent
}

// store makes an extent of b, compressed if that is asked for and helps.
func (s *PageWriter) store(space uint32, addr uint64, b []byte) error {
	stored, codec := b, Raw
	if c := s.codec.Load(); c != nil {
		if s.packed == nil {
			s.packed = s.room.buffer(c.room())
		}
		var packed []byte
		var ok bool
		if packed, s.packed, ok = c.encode(s.packed, b); ok {
			stored, codec = packed, c.codec
		}
	}
	s.extents = append(s.extents, Extent{
		Addr: addr, Len: uint64(len(b)),
		Offset: uint64(len(s.out)), Stored: uint64(len(stored)), Sum: xxh3.Hash(stored),
		Space: space, Stripe: s.stripe.number, Codec: codec,
	})
	s.raw += int64(len(b))
	if s.stripe.direct != nil {
		return s.append(stored)
	}
	return s.put(stored)
}

// append stores the last extent past the page cache.
func (s *PageWriter) append(b []byte) error {
	at, err := s.stripe.append(b, s.meter)
	if err != nil {
		return s.fail(err)
	}
	if s.placed == 0 {
		s.meter.writers.Add(1)
	}
	s.extents[s.placed].Offset = uint64(at)
	s.placed++
	return nil
}

// put gathers small pieces and writes large ones from where they are.
func (s *PageWriter) put(b []byte) error {
	if s.out == nil {
		s.out = s.room.buffer(2 * minWrite)
	}
	if len(b) < minWrite && len(s.out)+len(b) <= cap(s.out) {
		s.out = append(s.out, b...)
		return nil
	}
	return s.write(s.out, b)
}

// write writes what was gathered, then b, in one call where the kernel takes
// them whole. A short write is continued, so that its reason (ENOSPC, EFBIG,
// EDQUOT) comes to light.
func (s *PageWriter) write(gathered, b []byte) error {
	if err := faultpoint.At(faultpoint.StripeWriting); err != nil {
		return s.fail(err)
	}
	at := s.place(len(gathered) + len(b))
	for len(gathered)+len(b) > 0 {
		begun := time.Now()
		n, err := unix.Pwritev(int(s.stripe.file.Fd()), [][]byte{gathered, b}, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return s.fail(&os.PathError{Op: "pwritev", Path: s.stripe.file.Name(), Err: explained(err)})
		}
		s.meter.wrote(n, time.Since(begun))
		at += int64(n)
		k := min(n, len(gathered))
		gathered, b = gathered[k:], b[n-k:]
	}
	s.stripe.writeBack(at)
	s.out = s.out[:0]
	return nil
}

// explained adds what a user can do something about.
func explained(err error) error {
	if errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w (RLIMIT_FSIZE, ulimit -f, or more than the file system can have in a file)", err)
	}
	return err
}

// place gives the extents that have none yet a place in the stripe, of n bytes
// together.
func (s *PageWriter) place(n int) int64 {
	at := s.stripe.end.Add(int64(n)) - int64(n)
	if s.placed == 0 && n > 0 {
		s.meter.writers.Add(1)
	}
	for i := range s.extents[s.placed:] {
		s.extents[s.placed+i].Offset += uint64(at)
	}
	s.placed = len(s.extents)
	return at
}

// finish writes what is pending.
func (s *PageWriter) finish() error {
	if s.err != nil {
		return s.err
	}
	if err := s.endRun(); err != nil {
		return err
	}
	var err error
	if s.stripe.direct == nil {
		err = s.write(s.out, nil)
	}
	s.free()
	return err
}

func (s *PageWriter) free() {
	s.run, s.packed, s.out = nil, nil, nil
	s.room.free()
}

// zeroPrefix returns the bytes of the all-zero pages that b begins with.
func zeroPrefix(b []byte, pageSize int) int {
	n := 0
	for n < len(b) && isZero(b[n:n+pageSize]) {
		n += pageSize
	}
	return n
}

// dataPrefix returns the bytes of the other pages that b begins with.
func dataPrefix(b []byte, pageSize int) int {
	n := 0
	for n < len(b) && !isZero(b[n:n+pageSize]) {
		n += pageSize
	}
	return n
}

// isZero tests a page. Its first word decides most; a page that equals itself
// moved by one word has that word throughout, and bytes.Equal is vectorized.
func isZero(page []byte) bool {
	return binary.NativeEndian.Uint64(page) == 0 && bytes.Equal(page[:len(page)-8], page[8:])
}
