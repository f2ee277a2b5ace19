package shm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// attachment is a mapping of a segment.
type attachment struct {
	PID    int    `json:"pid"`
	ID     int    `json:"id"`
	Start  uint64 `json:"start,string"`
	End    uint64 `json:"end,string"`
	Offset uint64 `json:"offset"`
}

// base is where the segment begins, were all of it mapped: what shmat(2) has
// returned. Parts of one attachment have the same.
func (a attachment) base() uint64 { return a.Start - a.Offset }

// segmentPath begins the path of every mapping of a segment.
const segmentPath = "/SYSV"

// attachments lists the mappings of segments of proc.
func attachments(proc plugin.Process) ([]attachment, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", plugin.LiveTID(proc)))
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", proc.PID(), err)
	}
	found, err := parseAttachments(string(raw))
	if err != nil {
		return nil, fmt.Errorf("pid %d: maps: %w", proc.PID(), err)
	}
	for i := range found {
		found[i].PID = proc.PID()
	}
	return found, nil
}

// parseAttachments finds the segments in /proc/PID/maps, proc_pid_maps(5).
func parseAttachments(maps string) (found []attachment, err error) {
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], segmentPath) || !strings.HasSuffix(f[1], "s") {
			continue
		}
		a := attachment{}
		start, end, ok := strings.Cut(f[0], "-")
		id, err := strconv.ParseInt(f[4], 10, 32)
		if err != nil || !ok {
			return nil, fmt.Errorf("line %.200q", line)
		}
		a.ID = int(id)
		for dst, s := range map[*uint64]string{&a.Start: start, &a.End: end, &a.Offset: f[2]} {
			if *dst, err = strconv.ParseUint(s, 16, 64); err != nil {
				return nil, fmt.Errorf("line %.200q: %w", line, err)
			}
		}
		found = append(found, a)
	}
	return found, nil
}

// saveSegments saves the segments, and has each of them mapped whole, so that
// the engine can read it.
func (p *Plugin) saveSegments(ctx context.Context, t *tree) error {
	all := t.found[shmKind.name]
	if len(all) == 0 {
		return nil
	}
	if err := t.learnUsers(ctx); err != nil {
		return err
	}
	mapped := map[int][]attachment{}
	for _, proc := range t.procs {
		list, err := attachments(proc)
		if err != nil {
			return err
		}
		for _, a := range list {
			mapped[a.ID] = append(mapped[a.ID], a)
		}
	}
	var errs []error
	for _, o := range all {
		s := segment{Size: o.u64(shmSizeAt), Creator: o.pid(shmCpidAt), Last: o.pid(shmLpidAt)}
		here, attached := len(mapped[o.ID]), o.u64(shmCountAt)
		u := t.users(o.last, s.Creator, s.Last)
		u.inside = u.inside || here > 0
		u.outside = uint64(here) < attached || u.outside && !u.inside
		err := p.judge(t, shmKind, &o, u)
		if errors.Is(err, errOther) || err == nil && o.Doubtful {
			continue
		}
		if err == nil {
			s.perm = o.perm
			err = p.mapWhole(ctx, t, &s, mapped[o.ID])
		}
		switch {
		case err == nil:
			p.state.Segments = append(p.state.Segments, s)
		case !errors.Is(err, errOther):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mapWhole maps a segment of which the processes map a part or nothing.
func (p *Plugin) mapWhole(ctx context.Context, t *tree, s *segment, mapped []attachment) error {
	slices.SortFunc(mapped, func(a, b attachment) int { return cmp.Compare(a.Offset, b.Offset) })
	covered := uint64(0)
	for _, a := range mapped {
		if a.Offset > covered {
			break
		}
		covered = max(covered, a.Offset+a.End-a.Start)
	}
	if covered >= s.Size {
		return nil
	}
	proc := t.process(cmp.Or(s.Last, s.Creator))
	addr, err := proc.Syscall(ctx, unix.SYS_SHMAT, uintptr(s.ID), 0, shmRdonly)
	if len(mapped) == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM)) {
		return errOther // somebody outside has removed it meanwhile
	}
	if err != nil {
		return plugin.RefuseProcess(proc, fmt.Sprintf("System V shared memory segment %d", s.ID), "no process maps all of it: shmat: %v", err)
	}
	s.Whole = &place{proc.PID(), uint64(addr)}
	p.saving.whole = append(p.saving.whole, attachment{PID: proc.PID(), ID: s.ID, Start: uint64(addr)})
	return nil
}

// detachWhole undoes mapWhole.
func (p *Plugin) detachWhole(ctx context.Context, procs []plugin.Process) error {
	var errs []error
	for _, a := range p.saving.whole {
		for _, proc := range procs {
			if proc.PID() != a.PID {
				continue
			}
			if _, err := proc.Syscall(ctx, unix.SYS_SHMDT, uintptr(a.Start)); err != nil {
				errs = append(errs, fmt.Errorf("pid %d: segment %d: shmdt: %w", a.PID, a.ID, err))
			}
		}
	}
	p.saving.whole = nil
	return errors.Join(errs...)
}

// ClaimMap claims the mappings of segments.
func (p *Plugin) ClaimMap(_ context.Context, proc plugin.Process, m plugin.Mapping) (plugin.MapPolicy, error) {
	if !m.Shared || !strings.HasPrefix(m.Path, segmentPath) {
		return 0, plugin.ErrNotMine
	}
	i := slices.IndexFunc(p.state.Segments, func(s segment) bool { return uint64(s.ID) == m.Ino })
	if i < 0 {
		return 0, plugin.ErrNotMine // a file of that name, or one that was refused
	}
	if slices.Contains(m.Flags, "ht") {
		size, err := pageSize(proc, m)
		if err != nil {
			return 0, err
		}
		p.state.Segments[i].Huge = uint(bits.TrailingZeros64(size))
	}
	p.state.Attached = append(p.state.Attached, attachment{PID: proc.PID(), ID: int(m.Ino), Start: m.Start, End: m.End, Offset: m.Offset})
	return plugin.MapAttach, nil
}

// pageSize reads the size of a mapping's huge pages, proc_pid_smaps(5).
func pageSize(proc plugin.Process, m plugin.Mapping) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", plugin.LiveTID(proc)))
	if err != nil {
		return 0, fmt.Errorf("pid %d: %w", proc.PID(), err)
	}
	_, at, found := strings.Cut("\n"+string(raw), fmt.Sprintf("\n%08x-%08x ", m.Start, m.End))
	_, at, found2 := strings.Cut(at, "KernelPageSize:")
	text, _, found3 := strings.Cut(at, "kB")
	kb, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if !found || !found2 || !found3 || err != nil || bits.OnesCount64(kb) != 1 {
		return 0, fmt.Errorf("pid %d: mapping %x: size of its huge pages: %w", proc.PID(), m.Start, err)
	}
	return kb << 10, nil
}

// length is the size that a mapping of all of the segment has.
func (s *segment) length() uint64 {
	page := uint64(os.Getpagesize())
	if s.Huge > 0 {
		page = 1 << s.Huge
	}
	return (s.Size + page - 1) &^ (page - 1)
}

// makeSegments makes the segments, which no process has mapped yet.
func (p *Plugin) makeSegments(ctx context.Context, t *tree) error {
	return p.makeEach(ctx, t, shmKind, len(p.state.Segments), func(m *maker, i int) error {
		s := &p.state.Segments[i]
		flags := ipcCreat | ipcExcl | s.writable()
		if s.Huge > 0 {
			flags |= shmHugetlb | uintptr(s.Huge)<<shmHugeShift
		}
		p.making.segments[s.ID] = s
		get := plugin.Call{Nr: unix.SYS_SHMGET, Args: [6]uintptr{uintptr(uint32(s.Key)), uintptr(s.Size), flags}}
		return m.make(ctx, t.process(s.Creator), s.perm, get)
	}, func(i int) perm { return p.state.Segments[i].perm })
}

// AttachMap maps a segment. The parts of one attachment are made together, by
// one shmat(2): shmdt(2) takes away those that have the same file.
func (p *Plugin) AttachMap(ctx context.Context, proc plugin.Process, m plugin.Mapping, filling bool) error {
	s := p.making.segments[int(m.Ino)]
	i := slices.IndexFunc(p.state.Attached, func(a attachment) bool { return a.PID == proc.PID() && a.Start == m.Start })
	if s == nil || i < 0 || p.state.Attached[i] != (attachment{proc.PID(), s.ID, m.Start, m.End, m.Offset}) {
		return fmt.Errorf("pid %d: mapping %x-%x of segment %d: not in the state", proc.PID(), m.Start, m.End, m.Ino)
	}
	parts := p.partsOf(p.state.Attached[i])
	writable := slices.Contains(m.Flags, "mw")
	whole := s.Whole != nil && *s.Whole == place{proc.PID(), m.Start}
	var err error
	switch first := parts[0].Start == m.Start; {
	case filling && first:
		err = s.attach(ctx, proc, parts, 0)
	case filling:
	case whole:
		_, err = proc.Syscall(ctx, unix.SYS_SHMDT, uintptr(m.Start))
	case !writable && first:
		for _, a := range parts {
			if _, err = proc.Syscall(ctx, unix.SYS_MUNMAP, uintptr(a.Start), uintptr(a.End-a.Start)); err != nil {
				break
			}
		}
		if err == nil {
			err = s.attach(ctx, proc, parts, shmRdonly)
		}
	}
	if err == nil && !filling && !whole {
		_, err = proc.Syscall(ctx, unix.SYS_MPROTECT, uintptr(m.Start), uintptr(m.End-m.Start), uintptr(m.Prot))
	}
	if err != nil {
		return fmt.Errorf("pid %d: mapping %x-%x of segment %d: %w", proc.PID(), m.Start, m.End, s.ID, err)
	}
	return nil
}

// partsOf returns what is left of the attachment that a is of, in the order
// of addresses.
func (p *Plugin) partsOf(a attachment) (parts []attachment) {
	for _, b := range p.state.Attached {
		if b.PID == a.PID && b.ID == a.ID && b.base() == a.base() {
			parts = append(parts, b)
		}
	}
	slices.SortFunc(parts, func(a, b attachment) int { return cmp.Compare(a.Start, b.Start) })
	return parts
}

// attach maps the segment, keeps the parts and unmaps the rest: in place, or
// from another address where the place of the rest is taken by now.
func (s *segment) attach(ctx context.Context, proc plugin.Process, parts []attachment, flags uintptr) error {
	base := parts[0].base()
	if at, err := proc.Syscall(ctx, unix.SYS_SHMAT, uintptr(s.ID), uintptr(base), flags); err == nil {
		return unmapBetween(ctx, proc, uint64(at), s.length(), parts)
	}
	at, err := proc.Syscall(ctx, unix.SYS_SHMAT, uintptr(s.ID), 0, flags)
	if err != nil {
		return fmt.Errorf("shmat: %w", err)
	}
	for _, a := range parts {
		n := uintptr(a.End - a.Start)
		if _, err := proc.Syscall(ctx, unix.SYS_MREMAP, at+uintptr(a.Offset), n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(a.Start)); err != nil {
			return fmt.Errorf("mremap: %w", err)
		}
	}
	moved := make([]attachment, len(parts))
	for i, a := range parts {
		moved[i] = attachment{Start: uint64(at) + a.Offset, End: uint64(at) + a.Offset + a.End - a.Start}
	}
	return unmapBetween(ctx, proc, uint64(at), s.length(), moved)
}

// unmapBetween unmaps what lies between the parts in [start, start+length).
func unmapBetween(ctx context.Context, proc plugin.Process, start, length uint64, parts []attachment) error {
	unmap := func(from, to uint64) error {
		if from >= to {
			return nil
		}
		if _, err := proc.Syscall(ctx, unix.SYS_MUNMAP, uintptr(from), uintptr(to-from)); err != nil {
			return fmt.Errorf("munmap: %w", err)
		}
		return nil
	}
	at := start
	for _, a := range parts {
		if err := unmap(at, a.Start); err != nil {
			return err
		}
		at = a.End
	}
	return unmap(at, start+length)
}

// finishSegments sets shm_lpid where that process lives, owner and
// permissions, and removes what was removed.
func (p *Plugin) finishSegments(ctx context.Context, t *tree) error {
	for _, s := range p.state.Segments {
		if p.making.left(shmKind, s.ID) {
			continue
		}
		if proc := t.byPID[s.Last]; proc != nil {
			at, err := proc.Syscall(ctx, unix.SYS_SHMAT, uintptr(s.ID), 0, shmRdonly)
			if err == nil {
				_, err = proc.Syscall(ctx, unix.SYS_SHMDT, at)
			}
			if err != nil {
				return fmt.Errorf("pid %d: segment %d: last use: %w", s.Last, s.ID, err)
			}
		}
		proc := t.procs[0]
		if s.Mode&shmLocked != 0 {
			if _, err := proc.Syscall(ctx, unix.SYS_SHMCTL, uintptr(s.ID), shmLock, 0); err != nil {
				p.host.Log().Warn().Err(err).Int("segment", s.ID).Msg("it stays unlocked (SHM_LOCK)")
			}
		}
		if err := p.finishObject(ctx, shmKind, proc, s.perm, 0); err != nil {
			return err
		}
		if s.Mode&shmDest != 0 {
			if _, err := proc.Syscall(ctx, unix.SYS_SHMCTL, uintptr(s.ID), ipcRmid, 0); err != nil {
				return fmt.Errorf("segment %d: IPC_RMID: %w", s.ID, err)
			}
		}
	}
	return nil
}
