package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// AttachMap makes a context again: first with events in its ring that the
// engine then writes over, then with the kernel's own number in the ring.
func (p *Plugin) AttachMap(ctx context.Context, proc plugin.Process, m plugin.Mapping, filling bool) error {
	i := slices.IndexFunc(p.state.AIO, func(c aioContext) bool {
		return c.PID == proc.PID() && c.Start == m.Start && c.Size == m.End-m.Start
	})
	if i < 0 {
		return fmt.Errorf("pid %d: asynchronous I/O context %#x: not in the state", proc.PID(), m.Start)
	}
	var err error
	if c := &p.state.AIO[i]; filling {
		p.made.aio[c.key()], err = c.make(ctx, proc)
	} else {
		_, err = proc.WriteAt(binary.NativeEndian.AppendUint32(nil, p.made.aio[c.key()]), int64(c.Start+aioID))
	}
	if err != nil {
		return fmt.Errorf("pid %d: asynchronous I/O context %#x: %w", proc.PID(), m.Start, err)
	}
	return nil
}

func (c *aioContext) key() aioKey { return aioKey{c.PID, c.Start} }

// aioKey names a context.
type aioKey struct {
	pid   int
	start uint64
}

// make makes the context, at its address and with the ring turned as it was,
// and returns the kernel's number of it.
func (c *aioContext) make(ctx context.Context, proc plugin.Process) (id uint32, err error) {
	requests, err := c.requests()
	if err != nil {
		return 0, err
	}
	at, size := proc.Scratch()
	if size < scratchSize {
		return 0, fmt.Errorf("%d bytes of scratch memory, want %d", size, scratchSize)
	}
	if _, err := proc.WriteAt(make([]byte, 8), int64(at)); err != nil {
		return 0, err
	}
	const reserve = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	size64 := uintptr(c.Size)
	err = proc.Batch(ctx, []plugin.Call{
		{Nr: unix.SYS_MMAP, Args: [6]uintptr{uintptr(c.Start), size64, unix.PROT_NONE, reserve, ^uintptr(0), 0}}, // no place for the new ring
		{Nr: unix.SYS_IO_SETUP, Args: [6]uintptr{uintptr(requests), uintptr(at)}},
		{Nr: unix.SYS_MREMAP, Args: [6]uintptr{0, size64, size64, unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED, uintptr(c.Start)},
			Sources: []plugin.Source{{Arg: 0, Addr: at}}},
	})
	if errors.Is(err, unix.EAGAIN) {
		return 0, fmt.Errorf("io_setup: more requests than /proc/sys/fs/aio-max-nr allows: %w", err)
	}
	if err != nil {
		return 0, err
	}
	if err := c.advance(ctx, proc); err != nil {
		return 0, err
	}
	now := *c
	header, err := now.readRing(proc)
	if err != nil {
		return 0, err
	}
	if now.Head != c.Head || now.Tail != c.Tail || binary.NativeEndian.Uint32(header[aioNr:]) != c.slots() {
		return 0, fmt.Errorf("the new ring has events %d to %d, want %d to %d", now.Head, now.Tail, c.Head, c.Tail)
	}
	return binary.NativeEndian.Uint32(header[aioID:]), nil
}

// requests is the number for io_setup(2) that gives a ring of the same size:
// fs/aio.c, ioctx_alloc and aio_setup_ring. Of several the least: all count
// against the system's limit.
func (c *aioContext) requests() (uint64, error) {
	possible, err := readCPUs("possible")
	if err != nil {
		return 0, err
	}
	page := uint64(os.Getpagesize())
	const extra = 3 // events: the header, and two that the kernel adds
	n := uint64(1)
	if smaller := c.Size - page; smaller > 0 {
		n = (smaller/aioEvent-extra)/2 + 1
	}
	got := aioEvent * (2*max(n, uint64(4*len(possible))) + extra)
	if got = (got + page - 1) / page * page; got != c.Size {
		return 0, fmt.Errorf("its ring of %d bytes would have %d here, as the kernel goes by its %d possible processors", c.Size, got, len(possible))
	}
	return n, nil
}

// advance brings head and tail of a new ring to where they were, by requests
// that end at once and whose events are read but for the last.
func (c *aioContext) advance(ctx context.Context, proc plugin.Process) error {
	p := aioProbe{c: c, proc: proc, batch: 1}
	p.at, _ = proc.Scratch()
	if err := p.prepare(ctx); err != nil {
		return err
	}
	p.openPipe()
	p.descriptor(p.add(unix.SYS_CLOSE, 0), 0)
	p.waitFor(1)
	if err := p.do(ctx); err != nil {
		return err
	}
	var pipe [8]byte
	if _, err := proc.ReadAt(pipe[:], int64(p.at+scratchPipe)); err != nil {
		return err
	}
	read := c.Tail - c.unread()
	if c.unread() > c.Tail {
		read += c.slots()
	}
	err := p.complete(ctx, read, true)
	if err == nil {
		err = p.complete(ctx, c.unread(), false)
	}
	_, err2 := proc.Syscall(ctx, unix.SYS_CLOSE, uintptr(binary.NativeEndian.Uint32(pipe[4:])))
	return errors.Join(err, err2)
}

// complete makes n requests, and reads their events.
func (p *aioProbe) complete(ctx context.Context, n uint32, read bool) error {
	room := min(aioReading, max(1, p.c.slots()/4))
	for n > 0 {
		k, err := p.proc.Syscall(ctx, unix.SYS_IO_SUBMIT, uintptr(p.c.Start), uintptr(min(n, room)), uintptr(p.at+scratchPointers))
		if err != nil {
			return fmt.Errorf("io_submit: %w", err)
		}
		n -= uint32(k)
		if !read {
			continue
		}
		if _, err := p.proc.Syscall(ctx, unix.SYS_IO_GETEVENTS, uintptr(p.c.Start), k, k, uintptr(p.at+scratchEvents), 0); err != nil {
			return fmt.Errorf("io_getevents: %w", err)
		}
	}
	return nil
}

// readCPUs reads a list of processors, cpu(7)'s
// /sys/devices/system/cpu/NAME.
func readCPUs(name string) ([]int, error) {
	path := "/sys/devices/system/cpu/" + name
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cpus, err := parseCPUs(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cpus, nil
}

// parseCPUs parses the list format of cpuset(7): 0-3,8.
func parseCPUs(list string) (cpus []int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || first < 0 || last < first || last >= 8*cpuMask {
			return nil, fmt.Errorf("%.100q is no list of processors", list)
		}
		for c := first; c <= last; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}
