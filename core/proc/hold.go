package proc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/parallel"
)

// reserve is memory of the agent for what is read in the pause. It should be there
// before: a fault for each page takes longer than reading it.
type reserve struct {
	parts [][]byte
	spare *spare // where one comes from, and goes to; may be nil
}

// prepare makes room for about size bytes, where there is memory for that.
func (r *reserve) prepare(size uint64) {
	b := r.spare.take(size)
	if b == nil {
		var err error
		if b, err = linux.MapReserve(size); err != nil {
			return
		}
	}
	linux.MakeReady(b)
	r.parts = append(r.parts, b)
}

// assign gives each run its part of the room, and makes what is missing.
func (r *reserve) assign(runs []pageRun) error {
	var rest []byte
	next := 0
	for i := range runs {
		run := &runs[i]
		for uint64(len(rest)) < run.len {
			if next == len(r.parts) {
				b, err := linux.MapReserve(uint64(total(runs[i:])))
				if err != nil {
					return err
				}
				r.parts = append(r.parts, b)
			}
			rest = r.parts[next]
			next++
		}
		run.held, rest = rest[:run.len:run.len], rest[run.len:]
	}
	return nil
}

func (r *reserve) size() (sum uint64) {
	for _, b := range r.parts {
		sum += uint64(len(b))
	}
	return sum
}

func (r *reserve) free() {
	for _, b := range r.parts {
		if b = b[:cap(b)]; !r.spare.keep(b) {
			_ = unix.Munmap(b)
		}
	}
	r.parts = nil
}

// spare is memory of a checkpoint for the next, which the kernel takes where others need it
// (MADV_FREE, madvise(2)): what it has given once is there in no time.
type spare struct {
	mu  sync.Mutex
	mem []byte
}

// mostSpare is how much is kept at most.
const mostSpare = 64 << 20

// take returns memory of at least size bytes, nil where there is none.
func (s *spare) take(size uint64) []byte {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mem
	if uint64(len(b)) < size {
		return nil
	}
	s.mem = nil
	return b[:size]
}

// keep says whether it keeps b.
func (s *spare) keep(b []byte) bool {
	if s == nil || len(b) > mostSpare {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) <= len(s.mem) || unix.Madvise(b, unix.MADV_FREE) != nil {
		return false
	}
	if s.mem != nil {
		_ = unix.Munmap(s.mem)
	}
	s.mem = b
	return true
}

// hold reads the runs in the pause, by all processors.
func (m *Memory) hold(ctx context.Context, runs []pageRun) error {
	m.held = runs
	if err := m.reserve.assign(runs); err != nil {
		return fmt.Errorf("%w: %w", ErrNoCopy, err)
	}
	err := parallel.Each(ctx, batchesOf(runs), runtime.GOMAXPROCS(0), func(_ int, b *[]pageRun) error { return readRuns(*b) })
	if err != nil {
		return err
	}
	return faultpoint.At(faultpoint.SnapshotHeld)
}

// maxPieces is IOV_MAX, as many as a call of process_vm_readv(2) may read.
const maxPieces = 1024

// batchesOf splits runs into those that one call may read.
func batchesOf(runs []pageRun) (batches [][]pageRun) {
	for len(runs) > 0 {
		n, size := 1, runs[0].len
		for n < min(len(runs), maxPieces) && runs[0].from == nil && runs[n].from == nil && runs[n].p == runs[0].p && size+runs[n].len <= chunkSize {
			size += runs[n].len
			n++
		}
		batches, runs = append(batches, runs[:n]), runs[n:]
	}
	return batches
}

// readRuns reads what batchesOf has put together: pages that lie scattered cost
// less so than by a call for each.
func readRuns(runs []pageRun) error {
	if len(runs) > 1 && readAtOnce(runs) {
		return nil
	}
	for i := range runs {
		if err := runs[i].read(runs[i].held); err != nil {
			return err
		}
	}
	return nil
}

// readAtOnce says whether all could be read.
func readAtOnce(runs []pageRun) bool {
	local, remote := make([]unix.Iovec, len(runs)), make([]unix.RemoteIovec, len(runs))
	size := 0
	for i := range runs {
		r := &runs[i]
		local[i].Base = &r.held[0]
		local[i].SetLen(len(r.held))
		remote[i] = unix.RemoteIovec{Base: uintptr(r.addr), Len: len(r.held)}
		size += len(r.held)
	}
	n, err := unix.ProcessVMReadv(runs[0].p.liveTID(), local, remote, 0)
	return err == nil && n == size
}

// copyFrom is the private memory from which the processes of a tree are copied: less
// is read as soon.
const copyFrom = 16 << 20

// manyMappings is from how many mappings on a copy is worth while too: smaps, which a
// copy is asked for after the pause, takes 5 to 8 us for each, fork(2) 1 us.
const manyMappings = 1000

// copied says whether copies of a tree are worth while.
func (t *Tree) copied() bool {
	return t.Private() >= copyFrom || t.survey != nil && t.survey.mappings >= manyMappings
}

// holdLittle reads what is to be stored, if that is shorter than copying the processes:
// of a tree with little memory of its own, whatever it shares, and of what has changed since the
// parent of the image. What a survey told is proved beside it.
func (m *Memory) holdLittle(ctx context.Context) (done bool, err error) {
	if m.t.copied() && !m.st.inherits() {
		return false, nil
	}
	runs, err := m.pageRuns(ctx, m.runs[:0], everything, itself)
	if err != nil {
		return false, err
	}
	runs = append(runs, contentRuns(m.st, m.contents)...)
	size := uint64(total(runs))
	if m.t.copied() && !m.t.costs().readsFaster(size) {
		return false, nil
	}
	m.copies = map[*Process]*copying{}
	if err := m.checkRoom(2 * size); err != nil { // all of it is written to at once: that leaves as much to others
		return false, err
	}
	confirmed := make(chan error, 1)
	go func() { confirmed <- m.settleInPause(ctx) }()
	err = m.hold(ctx, runs)
	return true, errors.Join(err, <-confirmed)
}

// costs is what a copy of a tree depends on.
type costs struct {
	processes int
	small     uint64 // bytes in small pages
	surveyed  uint64 // of them, in processes whose mappings are to be proved
	mappings  uint64 // of those processes
}

func (t *Tree) costs() (c costs) {
	for _, p := range t.procs {
		if !p.zombie && p.private() > fewPages {
			c.add(p.private(), p.surveyed)
		}
	}
	return c
}

// add counts a process, whose mappings are known where they were surveyed.
func (c *costs) add(private uint64, surveyed []procfs.VMA) {
	for i := range surveyed {
		private -= min(private, surveyed[i].Huge)
	}
	c.processes++
	c.small += private
	if surveyed != nil {
		c.surveyed += private
		c.mappings += uint64(len(surveyed))
	}
}

// readsFaster says whether reading size bytes takes less time than the copies
// would. Times of one processor, in microseconds for a MiB: only their ratios
// count.
func (c costs) readsFaster(size uint64) bool {
	const (
		fork  = 17   // of page tables
		smaps = 14   // likewise
		read  = 300  // of bytes
		whole = 1000 // a copy, whatever its size

		forkMapping  = 1 << 20 // for a mapping: fork
		smapsMapping = 6 << 20 // smaps
	)
	cpus := uint64(min(runtime.GOMAXPROCS(0), 4)) // more do not read faster: the memory is the limit
	copying := c.small*fork + c.mappings*forkMapping + uint64(c.processes)*whole<<20
	proof := c.surveyed*smaps + c.mappings*smapsMapping
	return max((proof+size*read)/cpus, proof) <= copying
}
