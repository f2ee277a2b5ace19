package file

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/parallel"
	"github.com/hiatus-project/hiatus/plugin"
)

// exchange gives a file in memory another content in place, and keeps the old one, so
// that it can be taken back. The file stays the same to whoever knows it, by other links too.
type exchange struct {
	dev, ino uint64 // of the file
	file     int    // -1: not open yet
	other    int    // a memfd, with the content that the file is to have, and later what it had
	size     int64  // that the file is to have
	was      int64  // its size when it was opened
	swapped  bool

	mu      sync.Mutex
	changed []plugin.Range
}

// exchangeStep is the most that is exchanged at once.
const exchangeStep = 1 << 20

// openExchange opens the file that was looked at. It is as long as it was at the checkpoint at
// least from now on: pages behind its end could not be written to (mmap(2), SIGBUS).
func (p *Plugin) openExchange(x *exchange, d *inode) (int, error) {
	fd, err := p.openPath(p.place(d.Path), &file{Kind: kindRegular, Path: d.Path, Flags: unix.O_RDWR | unix.O_NONBLOCK})
	if err != nil {
		return -1, err
	}
	var now unix.Stat_t
	if err = unix.Fstat(fd, &now); err == nil && (uint64(now.Dev) != x.dev || now.Ino != x.ino) {
		err = errors.New("another file has taken its name in this moment")
	}
	if err == nil {
		x.file, err = dup(fd)
	}
	if x.was = now.Size; err == nil && x.was < d.Size {
		p.named.undo = append(p.named.undo, x.undo)
		err = ftruncate(fd, d.Size)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// target returns where the new content goes until it is the file's.
func (x *exchange) target(size int64) (writer, error) {
	fd, err := unix.MemfdCreate("hiatus-restart", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	x.other, x.size = fd, size
	return writer(fd), ftruncate(fd, size)
}

func (x *exchange) close() {
	for _, fd := range []int{x.file, x.other} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// swap gives the file its new content, and keeps the old. Other trees may do the same beside it.
func (x *exchange) swap(ctx context.Context) error {
	x.swapped = true
	whole := max(x.was, x.size)
	for _, fd := range []int{x.file, x.other} {
		if err := ftruncate(fd, whole); err != nil {
			return err
		}
	}
	pieces, err := x.pieces(whole)
	if err != nil {
		return err
	}
	workers := runtime.GOMAXPROCS(0)
	room := make([][2][exchangeStep]byte, min(workers, len(pieces)))
	err = parallel.Each(ctx, pieces, workers, func(i int, r *plugin.Range) error {
		n := r.End - r.Start
		return x.swapPiece(*r, room[i][0][:n], room[i][1][:n])
	})
	if err != nil {
		return err
	}
	return ftruncate(x.file, x.size)
}

// undo gives the file its old content again.
func (x *exchange) undo() error {
	if !x.swapped {
		return ftruncate(x.file, x.was)
	}
	if err := ftruncate(x.file, max(x.size, x.was)); err != nil {
		return err
	}
	err := parallel.Each(context.Background(), x.changed, runtime.GOMAXPROCS(0), func(_ int, r *plugin.Range) error {
		b := make([]byte, r.End-r.Start)
		if err := readZeros(x.other, b, r.Start); err != nil {
			return err
		}
		return put(x.file, b, r.Start)
	})
	if err != nil {
		return err
	}
	return ftruncate(x.file, x.was)
}

// readZeros reads what may be behind the end, where there is nothing: another tree may have cut the file.
func readZeros(fd int, b []byte, at int64) error {
	n, err := reader(fd).ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	return err
}

// pieces lists what is no hole in both, in steps.
func (x *exchange) pieces(size int64) (pieces []plugin.Range, err error) {
	var all []plugin.Range
	for _, fd := range []int{x.file, x.other} {
		ranges, err := dataRanges(fd, size)
		if err != nil {
			return nil, err
		}
		all = append(all, ranges...)
	}
	slices.SortFunc(all, func(a, b plugin.Range) int { return cmp.Compare(a.Start, b.Start) })
	end := int64(0)
	for _, r := range all {
		for at := max(r.Start, end); at < r.End; at = end {
			end = min(at+exchangeStep, r.End)
			pieces = append(pieces, plugin.Range{Start: at, End: end})
		}
	}
	return pieces, nil
}

func (x *exchange) swapPiece(r plugin.Range, theirs, ours []byte) error {
	if err := errors.Join(readZeros(x.file, theirs, r.Start), readZeros(x.other, ours, r.Start)); err != nil {
		return err
	}
	if bytes.Equal(theirs, ours) {
		return nil
	}
	if err := put(x.other, theirs, r.Start); err != nil {
		return err
	}
	x.mu.Lock()
	x.changed = append(x.changed, r)
	x.mu.Unlock()
	return put(x.file, ours, r.Start)
}

// put writes b, which begins at a page, and makes holes of the pages that are zero.
func put(fd int, b []byte, at int64) error {
	page := os.Getpagesize()
	zero := make([]byte, page)
	isHole := func(i int) bool { return bytes.Equal(b[i:min(i+page, len(b))], zero[:min(page, len(b)-i)]) }
	for i := 0; i < len(b); {
		from, hole := i, isHole(i)
		for i < len(b) && isHole(i) == hole {
			i += page
		}
		i = min(i, len(b))
		if hole && unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at+int64(from), int64(i-from)) == nil {
			continue
		}
		if _, err := writer(fd).WriteAt(b[from:i], at+int64(from)); err != nil {
			return err
		}
	}
	return nil
}

func ftruncate(fd int, size int64) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("ftruncate to %d: %w", size, err)
	}
	return nil
}
