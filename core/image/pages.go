package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

// ReadExtent reads e, one of Extents, into dst of e.Len bytes. What is stored
// is compared with its sum before it is decoded. After an error dst holds
// anything.
func (r *Reader) ReadExtent(e Extent, dst []byte) error {
	if int(e.Stripe) >= len(r.stripes) || uint64(len(dst)) != e.Len || e.Len > maxExtent || e.Stored > e.Len {
		return fmt.Errorf("extent at %#x of space %d into %d bytes: not of this image", e.Addr, e.Space, len(dst))
	}
	if e.Codec == Raw {
		return r.readStored(&e, dst)
	}
	if e.Codec >= codecs || r.decoder == nil {
		return r.damaged(&e, "codec differs from the image's")
	}
	buf := r.buffers.Get().(*[maxExtent]byte)
	defer r.buffers.Put(buf)
	stored := buf[:e.Stored]
	if err := r.readStored(&e, stored); err != nil {
		return err
	}
	if err := r.decoder.decode(e.Codec, dst, stored); err != nil {
		return r.damaged(&e, err.Error())
	}
	return nil
}

// readStored reads the stored bytes of e and checks their sum.
func (r *Reader) readStored(e *Extent, stored []byte) error {
	if err := r.readAt(e, stored); err != nil {
		return err
	}
	return r.checkSum(e, stored)
}

// readAt fills b from the place of e on.
func (r *Reader) readAt(e *Extent, b []byte) error {
	_, err := r.stripes[e.Stripe].ReadAt(b, int64(e.Offset))
	if errors.Is(err, io.EOF) {
		return r.damaged(e, "truncated since it was opened")
	}
	return err
}

func (r *Reader) checkSum(e *Extent, stored []byte) error {
	if xxh3.Hash(stored) != e.Sum {
		return r.damaged(e, "checksum differs")
	}
	return nil
}

func (r *Reader) damaged(e *Extent, what string) error {
	return formatErrorf(r.stripes[e.Stripe].Name(), "%d bytes at offset %d (memory at %#x of space %d): %s", e.Stored, e.Offset, e.Addr, e.Space, what)
}

// VerifyPages reads all stripes, also of the images that memory is inherited
// from, with as many goroutines as processors, and compares each extent with its
// sum. progress, unless it is nil, gets the bytes done and of all stripes; it is
// called by one goroutine at a time, with done growing.
func (r *Reader) VerifyPages(ctx context.Context, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &verifier{progress: progress}
	for _, x := range r.chain() {
		v.batches = append(v.batches, x.batches()...)
		v.total += x.stored()
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(v.batches)) {
		wg.Go(func() {
			if err := v.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// stored returns the bytes of all stripes.
func (r *Reader) stored() (n int64) {
	for i := range r.extents {
		n += int64(r.extents[i].Stored)
	}
	return n
}

// batch is extents that one read gets.
type batch struct {
	r       *Reader
	extents []uint32
}

// batches cuts the stored extents, in the order of their places, into runs of
// at most 1 MiB.
func (r *Reader) batches() (list []batch) {
	size, stripe, first := uint64(0), uint16(0), 0
	for i, x := range r.order {
		e := &r.extents[x]
		if i > first && (e.Stripe != stripe || size+e.Stored > maxExtent) {
			list = append(list, batch{r, r.order[first:i]})
			size, first = 0, i
		}
		stripe = e.Stripe
		size += e.Stored
	}
	if first < len(r.order) {
		list = append(list, batch{r, r.order[first:]})
	}
	return list
}

// verifier is one VerifyPages.
type verifier struct {
	batches  []batch
	next     atomic.Int64
	progress func(done, total int64)
	total    int64

	mu   sync.Mutex
	done int64 // guarded by mu
}

// run verifies batches until there are no more.
func (v *verifier) run(ctx context.Context) error {
	buf := new([maxExtent]byte)
	for {
		n := int(v.next.Add(1)) - 1
		if n >= len(v.batches) || ctx.Err() != nil {
			return nil
		}
		size, err := v.batches[n].r.verify(v.batches[n].extents, buf)
		if err != nil {
			return err
		}
		v.report(size)
	}
}

func (v *verifier) report(size int64) {
	if v.progress == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += size
	v.progress(v.done, v.total)
}

// verify reads extents that lie end to end in one stripe, at most 1 MiB, and
// checks their sums.
func (r *Reader) verify(batch []uint32, buf *[maxExtent]byte) (int64, error) {
	first, last := &r.extents[batch[0]], &r.extents[batch[len(batch)-1]]
	b := buf[:last.Offset+last.Stored-first.Offset]
	if err := r.readAt(first, b); err != nil {
		return 0, err
	}
	for _, x := range batch {
		e := &r.extents[x]
		at := e.Offset - first.Offset
		if err := r.checkSum(e, b[at:at+e.Stored]); err != nil {
			return 0, err
		}
	}
	return int64(len(b)), nil
}
