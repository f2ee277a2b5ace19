package proc

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// MapAttaching asks the plugin owner to make a mapping it had claimed.
type MapAttaching func(ctx context.Context, owner string, p plugin.Process, m plugin.Mapping, filling bool) error

// attach has plugins make the mappings that are theirs to make: first to be
// filled, then as they were.
func (m *memoryRestorer) attach(ctx context.Context, attach MapAttaching, filling bool) error {
	for i := range m.st.Processes {
		ps := &m.st.Processes[i]
		p := m.byPID[ps.PID]
		attached := slices.DeleteFunc(slices.Clone(ps.Maps), func(ms MapState) bool { return ms.Kind != MapAttach })
		for j := range attached {
			if err := attach(ctx, attached[j].Owner, p, attached[j].pluginMapping(), filling); err != nil {
				return err
			}
		}
		if filling || len(attached) == 0 {
			continue
		}
		if err := m.tr.Do(func() error { return m.describeAttached(ctx, p, attached) }); err != nil {
			return err
		}
	}
	return nil
}

// describeAttached gives mappings that plugins have made what they have beside their content.
func (m *memoryRestorer) describeAttached(ctx context.Context, p *Process, attached []MapState) error {
	var calls []call
	for i := range attached {
		calls = append(calls, attached[i].advice()...)
	}
	if err := p.run(ctx, p.threads[0], calls); err != nil {
		return err
	}
	return m.describeMemory(ctx, p, attached)
}

func (ms *MapState) pluginMapping() plugin.Mapping {
	return plugin.Mapping{Start: ms.Start, End: ms.End, Prot: ms.Prot, Shared: ms.Shared, Offset: ms.Offset,
		Dev: ms.Dev, Ino: ms.Ino, Path: ms.Path, Flags: ms.Flags}
}

// advice are the calls that set what madvise(2) had set.
func (ms *MapState) advice() (calls []call) {
	for _, f := range ms.Flags {
		if a := madvice[f]; a != 0 {
			calls = append(calls, sys(unix.SYS_MADVISE, ms.Start, ms.End-ms.Start, a).as("madvise %s %#x", f, ms.Start))
		}
	}
	return calls
}

// attachedMemory writes to an object through the mappings that show it.
type attachedMemory []attachedSpan

type attachedSpan struct {
	off, end uint64 // in the object
	p        *Process
	addr     uint64
}

func (m *memoryRestorer) attachedTo(object int) (a attachedMemory) {
	for i := range m.st.Processes {
		ps := &m.st.Processes[i]
		for _, ms := range ps.Maps {
			if ms.Kind == MapAttach && ms.Ref == object {
				a = append(a, attachedSpan{ms.Offset, ms.Offset + ms.End - ms.Start, m.byPID[ps.PID], ms.Start})
			}
		}
	}
	return a
}

// WriteAt implements io.WriterAt.
func (a attachedMemory) WriteAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		at := uint64(off) + uint64(n)
		i := slices.IndexFunc(a, func(s attachedSpan) bool { return s.off <= at && at < s.end })
		if i < 0 {
			return n, fmt.Errorf("no process has %#x of it mapped", at)
		}
		part := b[n:min(uint64(len(b)), uint64(n)+a[i].end-at)]
		if err := a[i].p.writeMem(a[i].addr+at-a[i].off, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}
