package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// aioContext is a context of io_setup(2). The program names it by the address
// of its ring of events.
type aioContext struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start,string"`
	Size  uint64 `json:"size"`
	Head  uint32 `json:"head"`
	Tail  uint32 `json:"tail"`
}

// Layout of the ring, struct aio_ring and struct io_event: the header is as
// large as an event.
const (
	aioEvent = 32
	aioID    = 0
	aioNr    = 4
	aioHead  = 8
	aioTail  = 12
	aioMagic = 16

	aioRingMagic = 0xa10a10a1
	aioMost      = 0x10000000 / aioEvent // events of a ring, fs/aio.c, ioctx_alloc
)

// slots is the number of events that the ring has room for.
func (c *aioContext) slots() uint32 { return uint32(c.Size/aioEvent) - 1 }

// unread is how many events wait.
func (c *aioContext) unread() uint32 { return (c.Tail + c.slots() - c.Head) % c.slots() }

func (c *aioContext) validate() error {
	page := uint64(os.Getpagesize())
	if c.PID <= 0 || c.Start%page != 0 || c.Size%page != 0 || c.Size == 0 || c.Size > 4*aioMost*aioEvent ||
		c.Start+c.Size < c.Start || c.Head >= c.slots() || c.Tail >= c.slots() {
		return fmt.Errorf("pid %d: context %#x of %d bytes, events %d to %d", c.PID, c.Start, c.Size, c.Head, c.Tail)
	}
	return nil
}

// readRing reads the header of the ring.
func (c *aioContext) readRing(proc plugin.Process) (header []byte, err error) {
	header = make([]byte, aioEvent)
	if _, err := proc.ReadAt(header, int64(c.Start)); err != nil {
		return nil, err
	}
	c.Head, c.Tail = binary.NativeEndian.Uint32(header[aioHead:]), binary.NativeEndian.Uint32(header[aioTail:])
	return header, nil
}

// ClaimMap saves an asynchronous I/O context, which is known by its ring, and refuses memory
// of descriptors that are refused: once, however many there are.
func (p *Plugin) ClaimMap(ctx context.Context, proc plugin.Process, m plugin.Mapping) (plugin.MapPolicy, error) {
	if why := refusalOf(m.Path); why != "" {
		if slices.Contains(p.refused, m.Path) {
			return plugin.MapSkip, nil
		}
		p.refused = append(p.refused, m.Path)
		return 0, plugin.RefuseProcess(proc, "memory of "+m.Path, "%s", why)
	}
	if !strings.HasPrefix(m.Path, "/[aio]") {
		return 0, plugin.ErrNotMine
	}
	policy, err := p.claimAIO(ctx, proc, m)
	var why aioRefusal
	if errors.As(err, &why) {
		return 0, plugin.RefuseProcess(proc, fmt.Sprintf("asynchronous I/O context %#x", m.Start), "%s", string(why))
	}
	return policy, err
}

// aioRefusal is why a context cannot be kept.
type aioRefusal string

func (r aioRefusal) Error() string { return string(r) }

func (p *Plugin) claimAIO(ctx context.Context, proc plugin.Process, m plugin.Mapping) (plugin.MapPolicy, error) {
	const readWrite = unix.PROT_READ | unix.PROT_WRITE
	c := aioContext{PID: proc.PID(), Start: m.Start, Size: m.End - m.Start}
	if m.Prot&readWrite != readWrite {
		return 0, aioRefusal("its ring is protected, so that the kernel itself does not find it")
	}
	header, err := c.readRing(proc)
	if err != nil {
		return 0, err
	}
	_, err = proc.Syscall(ctx, unix.SYS_IO_GETEVENTS, uintptr(c.Start), 0, 0, 0, 0)
	if errors.Is(err, unix.EINVAL) && m.Offset == 0 {
		return plugin.MapSave, nil // the parent's: a child of fork(2) has its ring, but no context
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("io_getevents: %w", err)
	}
	le := binary.NativeEndian
	if m.Offset != 0 || le.Uint32(header[aioNr:]) != c.slots() || le.Uint32(header[aioMagic:]) != aioRingMagic || c.validate() != nil {
		return 0, aioRefusal("its ring is not as the kernel made it")
	}
	if err := c.drain(ctx, proc); err != nil {
		return 0, err
	}
	p.state.AIO = append(p.state.AIO, c)
	return plugin.MapAttach, nil
}

// Requests that read and write files end by themselves within the time that
// the device needs. One of IOCB_CMD_POLL may never.
const (
	aioPatience = 2 * time.Second
	aioInterval = time.Millisecond
)

// drain makes sure that nothing is under way in the context of a stopped
// program: the kernel would not show it.
func (c *aioContext) drain(ctx context.Context, proc plugin.Process) error {
	before := *c
	probe, err := newAIOProbe(c, proc)
	if err != nil {
		return err
	}
	underWay, err := probe.run(ctx)
	if err != nil {
		return err
	}
	// Nothing but the ring tells of an end without taking the event.
	for until := time.Now().Add(aioPatience); ; {
		if _, err := c.readRing(proc); err != nil {
			return err
		}
		ended := c.unread() - before.unread()
		if ended == underWay {
			return nil
		}
		if ended > underWay || !time.Now().Before(until) {
			return aioRefusal(fmt.Sprintf("%d of its requests are under way and do not end, as those of IOCB_CMD_POLL (io_submit(2))", underWay-ended))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(aioInterval):
		}
	}
}
