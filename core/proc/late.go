package proc

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// Arrival is memory that comes while the program runs already (restart --lazy).
// Pages that are not there yet are faults of a userfaultfd(2), which a server
// answers from the image, each piece compared with its sum first; behind it the
// rest is read in the order of the files. The kernel's own accesses are no such
// faults to an ordinary user (UFFD_USER_MODE_ONLY): a system call would fail
// with EFAULT. So none begins before what it reads or writes is there: see gate.
type Arrival struct {
	img    *image.Reader
	memory map[uint32]*lateMemory // by space
	pieces []*latePiece           // as they lie in the files
	total  int64
	done   atomic.Int64

	mu     sync.Mutex
	err    error
	failed atomic.Bool
	over   chan struct{} // closed when all is there, or will never be

	buffers sync.Pool // of *[chunkSize]byte
}

// lateMemory is what one process still misses.
type lateMemory struct {
	a     *Arrival
	p     *Process
	uffd  int
	areas []linux.PageRange // ascending; each lies in one mapping
	index []lateRange       // content, ascending
	gone  atomic.Bool       // the process has ended

	mu     sync.Mutex // held while zeros are put in place
	zeroed intervals
	closed bool // nothing is missing any more
}

// latePiece is a piece of the image, which is put in place once.
type latePiece struct {
	image.Piece
	of   *lateMemory
	once sync.Once
	done atomic.Bool
}

type lateRange struct {
	image.Range
	piece *latePiece
}

func newArrival(img *image.Reader) *Arrival {
	return &Arrival{img: img, memory: map[uint32]*lateMemory{}, over: make(chan struct{}),
		buffers: sync.Pool{New: func() any { return new([chunkSize]byte) }}}
}

// Progress tells how many bytes are there, of how many.
func (a *Arrival) Progress() (done, total int64) { return a.done.Load(), a.total }

// Over is closed when the program has all its memory, or has ended.
func (a *Arrival) Over() <-chan struct{} { return a.over }

// Err says why memory could not be given to the program, which was ended.
func (a *Arrival) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *Arrival) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
		a.failed.Store(true)
	}
}

// take leaves x for later, if all of it belongs to memory that comes late.
func (a *Arrival) take(x image.Piece) bool {
	m := a.memory[x.Space]
	if m == nil || slices.ContainsFunc(x.Live, func(l image.Range) bool { return !m.holds(l) }) {
		return false
	}
	piece := &latePiece{Piece: x, of: m}
	a.pieces = append(a.pieces, piece)
	a.total += int64(x.Len)
	for _, l := range x.Live {
		m.index = append(m.index, lateRange{l, piece})
	}
	return true
}

// sort makes what was taken ready to be found by its address.
func (a *Arrival) sort() {
	for _, m := range a.memory {
		slices.SortFunc(m.index, func(x, y lateRange) int { return cmp.Compare(x.Start, y.Start) })
	}
}

// holds says whether r lies in the areas.
func (m *lateMemory) holds(r image.Range) bool {
	for at := r.Start; at < r.End; {
		i := m.areaAt(at)
		if i == len(m.areas) || m.areas[i].Start > at {
			return false
		}
		at = m.areas[i].End
	}
	return true
}

// areaAt is the first area that ends behind addr.
func (m *lateMemory) areaAt(addr uint64) int {
	i, _ := slices.BinarySearchFunc(m.areas, addr, func(r linux.PageRange, at uint64) int { return cmp.Compare(r.End, at+1) })
	return i
}

// touches says whether [start, end) has any part in the areas.
func (m *lateMemory) touches(start, end uint64) bool {
	i := m.areaAt(start)
	return i < len(m.areas) && m.areas[i].Start < end
}

// visit calls content and gap for all parts of the pages in [start, end) that
// the image has and does not have.
func (m *lateMemory) visit(start, end uint64, content func(*latePiece) bool, gap func(start, end uint64) bool) bool {
	page := uint64(os.Getpagesize())
	start &^= page - 1
	if last := end + page - 1; last >= end {
		end = last &^ (page - 1)
	}
	for i := m.areaAt(start); i < len(m.areas) && m.areas[i].Start < end; i++ {
		at, to := max(m.areas[i].Start, start), min(m.areas[i].End, end)
		k, _ := slices.BinarySearchFunc(m.index, at, func(r lateRange, at uint64) int { return cmp.Compare(r.End, at+1) })
		for ; at < to; k++ {
			next := to
			if k < len(m.index) {
				next = min(m.index[k].Start, to)
			}
			if at < next && !gap(at, next) {
				return false
			}
			if next == to {
				break
			}
			if !content(m.index[k].piece) {
				return false
			}
			at = m.index[k].End
		}
	}
	return true
}

// missing says whether any of [start, end) is not there yet.
func (m *lateMemory) missing(start, end uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.closed && !m.visit(start, end, func(p *latePiece) bool { return p.done.Load() }, m.zeroed.has)
}

// bring puts [start, end) in place.
func (m *lateMemory) bring(start, end uint64) error {
	m.visit(start, end, func(p *latePiece) bool {
		p.once.Do(p.load)
		return true
	}, func(start, end uint64) bool {
		m.zero(start, end)
		return true
	})
	return m.a.Err()
}

// zero puts zeros where the image has nothing.
func (m *lateMemory) zero(start, end uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.gone.Load() {
		return
	}
	if err := linux.UserfaultZero(m.uffd, start, end); err != nil {
		m.broken(err)
		return
	}
	m.zeroed.add(start, end)
}

// broken notes that a page could not be put in place: no harm where the process
// has ended.
func (m *lateMemory) broken(err error) {
	if errors.Is(err, unix.ESRCH) {
		m.gone.Store(true)
		return
	}
	m.a.fail(fmt.Errorf("pid %d: %w", m.p.pid, err))
}

// load reads a piece, compares it with its sum and puts it in place.
func (p *latePiece) load() {
	m, a := p.of, p.of.a
	if a.failed.Load() {
		return
	}
	if !m.gone.Load() {
		buf := a.buffers.Get().(*[chunkSize]byte)
		defer a.buffers.Put(buf)
		b := buf[:p.Len]
		if err := a.img.ReadPiece(p.Piece, b); err != nil {
			a.fail(err)
			return
		}
		for _, l := range p.Live {
			if err := m.copy(b[l.Start-p.Addr:l.End-p.Addr], l.Start); err != nil {
				m.broken(err)
				if a.failed.Load() {
					return
				}
			}
		}
	}
	p.done.Store(true)
	a.done.Add(int64(p.Len))
}

// copy fills missing pages, mapping by mapping. A page that is there already is
// an error: it could be newer.
func (m *lateMemory) copy(b []byte, addr uint64) error {
	for i := m.areaAt(addr); len(b) > 0; i++ {
		n := min(uint64(len(b)), m.areas[i].End-addr)
		if _, err := linux.UserfaultCopy(m.uffd, addr, b[:n]); err != nil {
			return err
		}
		b, addr = b[n:], addr+n
	}
	return nil
}

// faultWorkers are how many faults of a process are answered at once.
const faultWorkers = 4

// serve answers the faults of a process until its userfaultfd is closed.
func (m *lateMemory) serve(faults *os.File) {
	pages := make(chan uint64)
	for range faultWorkers {
		go func() {
			for addr := range pages {
				m.answer(addr)
			}
		}()
	}
	defer close(pages)
	buf := make([]byte, 16*linux.UserfaultMessage)
	for {
		n, err := faults.Read(buf)
		if err != nil || n <= 0 {
			return // closed
		}
		for msgs := buf[:n]; len(msgs) > 0; msgs = msgs[min(len(msgs), linux.UserfaultMessage):] {
			if addr, ok := linux.UserfaultAddress(msgs); ok {
				pages <- addr
			}
		}
	}
}

// answer brings the page of a fault. In a hole some more pages come with it.
// After a failure the thread waits until it is killed.
func (m *lateMemory) answer(addr uint64) {
	const around = 64 << 10
	page := uint64(os.Getpagesize())
	addr &^= page - 1
	m.visit(addr, addr+page, func(*latePiece) bool { return true }, func(start, _ uint64) bool {
		m.zero(start, m.holeEnd(start, start+around))
		return true
	})
	if m.bring(addr, addr+page) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		_ = linux.UserfaultWake(m.uffd, addr, addr+page) // who came when it was there already
	}
}

// holeEnd is where the hole at start ends, at most.
func (m *lateMemory) holeEnd(start, most uint64) uint64 {
	end := start
	m.visit(start, most, func(*latePiece) bool { return false }, func(from, to uint64) bool {
		if from == end {
			end = to
		}
		return from != to && end == to
	})
	return end
}

// patientNice is the nice value of those who bring what nobody has asked for.
const patientNice = 10

// work brings all that nobody has asked for: by half of the processors, and behind
// the program, whose faults and system calls wait for others.
func (a *Arrival) work() {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range (runtime.GOMAXPROCS(0) + 1) / 2 {
		wg.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with its nice value
			yieldTo(patientNice)
			for !a.failed.Load() {
				i := next.Add(1) - 1
				if i >= int64(len(a.pieces)) {
					return
				}
				p := a.pieces[i]
				p.once.Do(p.load)
			}
		})
	}
	wg.Wait()
}

// yieldTo gives the calling thread a nice value, if its own is less.
func yieldTo(nice int) {
	const highest = 20 // getpriority(2): the system call returns 20 less the nice value
	if kept, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && highest-kept < nice {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) // it only waits less for others then
	}
}

// unregister leaves plain memory behind.
func (m *lateMemory) unregister() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, r := range m.areas {
		_ = linux.UserfaultUnregister(m.uffd, r.Start, r.End) // ENOMEM: the process has ended
	}
}
