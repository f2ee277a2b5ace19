package event

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// aioProbe finds how many requests are under way in a context. The kernel has
// a slot of the ring for each request until its event is read, and takes no
// request without one. Requests that wait for a pipe are made until there is
// no slot: those that are missing belong to the program (fs/aio.c,
// get_reqs_available).
//
// Slots that are free wait at each processor, and in a store that gives a
// processor a number of them at a time. So the thread visits all processors,
// and a rest smaller than that number stays in the store.
//
// All is done in one stop. At its end the requests are gone and their events
// out of the ring, whose other events lie where they were.
type aioProbe struct {
	c      *aioContext
	proc   plugin.Process
	at     uint64 // scratch memory
	batch  uint32 // what a processor takes at a time: req_batch
	cpus   []int
	calls  []plugin.Call
	submit []int // of calls: those that make requests for the probe
	moved  []int // of calls: those that make requests to turn the ring
	mask   int   // bytes of an affinity
}

// Layout of the scratch memory.
const (
	scratchIocb     = 0   // struct iocb, of all requests
	scratchPipe     = 64  // two descriptors, the second of which begins a struct pollfd
	scratchPollFD   = 68  //
	scratchIovecs   = 80  // of the descriptor in the iocb, and of either in scratchPipe
	scratchMask     = 128 // affinity as it was
	scratchWide     = scratchMask + cpuMask
	scratchOne      = scratchWide + cpuMask         // eight masks of the last eight processors, one behind the other
	scratchPointers = scratchOne + 8*cpuMask        // to the iocb
	scratchEvents   = scratchPointers + 8*aioChunk  // what is read in a restart
	scratchSize     = scratchEvents + 32*aioReading // within what a process has
	cpuMask         = 1024                          // bytes, of 8192 processors
	aioChunk        = 4096                          // requests of a call
	aioReading      = 512                           // events of a call
	iocbFildes      = 20
	iocbEvents      = 24
	iocbOpcode      = 16
	opcodePoll      = 5 // IOCB_CMD_POLL
	iovecSize       = 16
	aioMostCalls    = 1024 // of a batch
)

func newAIOProbe(c *aioContext, proc plugin.Process) (*aioProbe, error) {
	possible, err := readCPUs("possible")
	if err != nil {
		return nil, err
	}
	online, err := readCPUs("online")
	if err != nil {
		return nil, err
	}
	at, size := proc.Scratch()
	if size < scratchSize {
		return nil, fmt.Errorf("%d bytes of scratch memory, want %d", size, scratchSize)
	}
	p := &aioProbe{c: c, proc: proc, at: at, cpus: online}
	p.batch = max(1, (c.slots()-1)/uint32(4*len(possible)))
	if c.unread() > p.capacity()/2 {
		return nil, aioRefusal("more events wait to be read than it was made for")
	}
	return p, nil
}

// capacity is how many slots of an idle context whose events were read can be
// had.
func (p *aioProbe) capacity() uint32 { return (p.c.slots() - 1) / p.batch * p.batch }

// run returns how many requests of the program are under way.
func (p *aioProbe) run(ctx context.Context) (uint32, error) {
	if err := p.prepare(ctx); err != nil {
		return 0, err
	}
	free := p.capacity() - p.c.unread()
	p.openPipe()
	p.fill()
	p.empty()
	p.turn(p.c.slots() - free)
	p.closePipe()
	if len(p.calls) > aioMostCalls {
		return 0, aioRefusal("it is too large for a look at what is under way")
	}
	if err := p.do(ctx); err != nil {
		return 0, err
	}
	taken := p.count(p.submit)
	if taken > free {
		return 0, aioRefusal(fmt.Sprintf("it takes %d requests where %d are expected", taken, free))
	}
	if err := p.settle(ctx, taken+p.count(p.moved)); err != nil {
		return 0, err
	}
	return free - taken, p.widen(ctx)
}

// do runs the calls, the first of which makes the pipe.
func (p *aioProbe) do(ctx context.Context) error {
	err := p.proc.Batch(ctx, p.calls)
	if errno := p.calls[0].Err; errno != 0 {
		return aioRefusal(fmt.Sprintf("a look at what is under way needs a pipe in the program: %v", errno))
	}
	return err
}

// prepare fills the scratch memory.
func (p *aioProbe) prepare(ctx context.Context) error {
	b, le := make([]byte, scratchEvents), binary.NativeEndian
	le.PutUint16(b[scratchIocb+iocbOpcode:], opcodePoll)
	le.PutUint64(b[scratchIocb+iocbEvents:], unix.POLLIN)
	for i, v := range []struct{ at, size uint64 }{{scratchIocb + iocbFildes, 4}, {scratchPipe, 4}, {scratchPipe + 4, 4}} {
		le.PutUint64(b[scratchIovecs+i*iovecSize:], p.at+v.at)
		le.PutUint64(b[scratchIovecs+i*iovecSize+8:], v.size)
	}
	for i := range cpuMask {
		b[scratchWide+i] = 0xff
	}
	for bit := range 8 {
		b[scratchOne+bit*cpuMask+cpuMask-1] = 1 << bit
	}
	for i := range aioChunk {
		le.PutUint64(b[scratchPointers+8*i:], p.at+scratchIocb)
	}
	if _, err := p.proc.WriteAt(b, int64(p.at)); err != nil {
		return err
	}
	n, err := p.proc.Syscall(ctx, unix.SYS_SCHED_GETAFFINITY, 0, cpuMask, uintptr(p.at+scratchMask))
	if err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	p.mask = min(int(n), cpuMask)
	return nil
}

// add adds a call. Only those before the first request may end the batch.
func (p *aioProbe) add(nr uintptr, args ...uint64) *plugin.Call {
	c := plugin.Call{Nr: nr, MayFail: len(p.submit)+len(p.moved) > 0}
	for i, a := range args {
		c.Args[i] = uintptr(a)
	}
	p.calls = append(p.calls, c)
	return &p.calls[len(p.calls)-1]
}

// descriptor makes the first argument of a call the nth end of the pipe; of the
// eight bytes there the kernel takes four.
func (p *aioProbe) descriptor(c *plugin.Call, n uint64) {
	c.Sources = append(c.Sources, plugin.Source{Addr: p.at + scratchPipe + 4*n})
}

// openPipe makes the pipe that the requests wait for.
func (p *aioProbe) openPipe() {
	p.add(unix.SYS_PIPE2, p.at+scratchPipe, unix.O_CLOEXEC)
	p.waitFor(0)
}

// waitFor makes the iocb one of the nth end of the pipe.
func (p *aioProbe) waitFor(n uint64) {
	tid := uint64(p.proc.Threads()[0].TID)
	p.add(unix.SYS_PROCESS_VM_READV, tid, p.at+scratchIovecs, 1, p.at+scratchIovecs+(1+n)*iovecSize, 1, 0)
}

// fill makes requests at every processor until there is no slot.
func (p *aioProbe) fill() {
	most := p.c.slots()
	for _, cpu := range p.cpus {
		n := uint64(cpu/8) + 1
		p.add(unix.SYS_SCHED_SETAFFINITY, 0, n, p.at+scratchOne+uint64(cpu%8+1)*cpuMask-n).MayFail = true
		for i := uint32(0); i <= most/aioChunk; i++ {
			p.submit = append(p.submit, len(p.calls))
			p.add(unix.SYS_IO_SUBMIT, p.c.Start, aioChunk, p.at+scratchPointers)
		}
		most = 2 * p.batch // the first has emptied the store
	}
	// Only a mask that was set before stays narrower than the widest.
	p.add(unix.SYS_SCHED_SETAFFINITY, 0, cpuMask, p.at+scratchWide)
	p.add(unix.SYS_SCHED_GETAFFINITY, 0, cpuMask, p.at+scratchWide)
	p.add(unix.SYS_SCHED_SETAFFINITY, 0, cpuMask, p.at+scratchMask)
}

// empty ends the requests and takes their events away. A request holds the
// pipe's first end until it is gone, and the second end reports an error then.
func (p *aioProbe) empty() {
	p.descriptor(p.add(unix.SYS_WRITE, 0, p.at+scratchIocb, 1), 1)
	p.descriptor(p.add(unix.SYS_CLOSE, 0), 0)
	p.add(unix.SYS_PPOLL, p.at+scratchPollFD, 1, 0, 0, 0)
	p.sift()
}

func (p *aioProbe) sift() {
	p.add(plugin.SiftRing, p.c.Start, p.at+scratchIocb, uint64(p.c.slots()))
}

// turn moves the ring by n slots, by requests that end at once: a thread that
// is about to take an event without a system call goes on where it was.
func (p *aioProbe) turn(n uint32) {
	p.waitFor(1)
	for room := min(aioChunk, p.capacity()-p.c.unread()); n > 0; {
		k := min(n, room)
		p.moved = append(p.moved, len(p.calls))
		p.add(unix.SYS_IO_SUBMIT, p.c.Start, uint64(k), p.at+scratchPointers)
		p.sift()
		n -= k
	}
}

func (p *aioProbe) closePipe() { p.descriptor(p.add(unix.SYS_CLOSE, 0), 1) }

// count adds up the requests of io_submit(2) calls.
func (p *aioProbe) count(calls []int) (n uint32) {
	for _, i := range calls {
		if p.calls[i].Err == 0 {
			n += uint32(p.calls[i].Ret)
		}
	}
	return n
}

// settle turns the ring until moved is a whole number of turns. It is, but
// where requests of the program are under way.
func (p *aioProbe) settle(ctx context.Context, moved uint32) error {
	for moved%p.c.slots() != 0 {
		p.calls, p.submit, p.moved = nil, nil, nil
		p.openPipe()
		p.descriptor(p.add(unix.SYS_CLOSE, 0), 0)
		p.turn(min(aioChunk, p.c.slots()-moved%p.c.slots()))
		p.closePipe()
		if err := p.do(ctx); err != nil {
			return err
		}
		n := p.count(p.moved)
		if n == 0 {
			return aioRefusal("requests that are under way leave no room in it")
		}
		moved += n
	}
	return nil
}

// widen gives a thread that had set no affinity back that it follows changes
// of its cpuset(7).
func (p *aioProbe) widen(ctx context.Context) error {
	masks := make([]byte, 2*cpuMask)
	if _, err := p.proc.ReadAt(masks, int64(p.at+scratchMask)); err != nil {
		return err
	}
	if !bytes.Equal(masks[:p.mask], masks[cpuMask:cpuMask+p.mask]) {
		return nil
	}
	for i := range masks[:cpuMask] {
		masks[i] = 0xff
	}
	if _, err := p.proc.WriteAt(masks[:cpuMask], int64(p.at+scratchMask)); err != nil {
		return err
	}
	if _, err := p.proc.Syscall(ctx, unix.SYS_SCHED_SETAFFINITY, 0, cpuMask, uintptr(p.at+scratchMask)); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}
