package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// MapReopen asks the plugin owner for the file of a mapping it had claimed.
type MapReopen func(ctx context.Context, owner string, p plugin.Process, m plugin.Mapping) (fd int, err error)

// memoryRestorer holds what is open while memory is made.
type memoryRestorer struct {
	*Restorer
	objects  []*os.File // in the order of State.Objects
	readonly []*os.File // the same, opened for reading only, where needed
	claimed  map[mapKey]int
	files    map[claimedFile]int    // regular ones of claimed, each once
	exes     []*os.File             // in the order of State.Exes
	uts      map[int]*Process       // the first process in each UTS namespace
	carried  []*os.File             // in the order of State.Refs; nil: the file of its name
	contents map[uint32]io.WriterAt // by space
}

type mapKey struct {
	pid   int
	start uint64
}

// Memory gives every process what Fill has left: its other mappings and their
// content. files are the agent's descriptors of the open file descriptions, by
// FileState.ID.
func (r *Restorer) Memory(ctx context.Context, files map[int]int, reopen MapReopen, attach MapAttaching, target ContentTarget) error {
	m := &memoryRestorer{Restorer: r, claimed: map[mapKey]int{}, files: map[claimedFile]int{}, uts: map[int]*Process{}}
	defer m.close()
	if err := r.remakeFiles(); err != nil {
		return err
	}
	if err := m.makeExes(); err != nil {
		return err
	}
	if err := m.makeCarried(); err != nil {
		return err
	}
	if err := m.makeObjects(files); err != nil {
		return err
	}
	if err := m.openContents(ctx, target); err != nil {
		return err
	}
	if err := m.reopenClaimed(ctx, reopen); err != nil {
		return err
	}
	for i := range r.st.Processes {
		ps := &r.st.Processes[i]
		if ps.Zombie {
			continue
		}
		if err := r.tr.Do(func() error { return m.mapProcess(ctx, r.byPID[ps.PID], ps) }); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		if err := faultpoint.At(faultpoint.RestartMapped); err != nil {
			return err
		}
	}
	if err := m.attach(ctx, attach, true); err != nil {
		return err
	}
	if err := m.fill(ctx); err != nil {
		return err
	}
	if err := m.attach(ctx, attach, false); err != nil {
		return err
	}
	return r.tr.Do(func() error { return m.lockMemory(ctx) })
}

func (m *memoryRestorer) close() {
	for _, f := range slices.Concat(m.objects, m.readonly, m.exes, m.carried) {
		if f != nil {
			f.Close()
		}
	}
	for _, fd := range slices.Compact(slices.Sorted(maps.Values(m.claimed))) {
		unix.Close(fd)
	}
}

// remakeFiles makes small shared files again that others have removed. A restart that
// fails takes them back: half a file would be in the way of the next.
func (r *Restorer) remakeFiles() error {
	for _, f := range r.st.Refs {
		name := r.Root() + f.Path
		if f.GoesOn && unix.Access(name, unix.F_OK) == nil {
			r.warn("shared memory %s: it is as it is now, not as it was at the checkpoint, behind which the program ran on: this image is of a version that kept no copy of what has a name", f.Path)
		}
		if f.Content == nil {
			continue
		}
		if err := r.remakeFile(&f, name); err != nil {
			return fmt.Errorf("make %s again: %w", f.Path, err)
		}
	}
	return nil
}

func (r *Restorer) remakeFile(f *MappedFile, name string) error {
	made, err := missing.MakeAll(path.Dir(name), f.Directory.Or(missing.Owner{UID: r.st.Uid, GID: r.st.Gid}))
	r.folders = append(made, r.folders...)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.remade = append(r.remade, name)
	_, err = out.Write(f.Content)
	if err == nil && f.Owner != nil {
		err = r.own(f, out)
	}
	return errors.Join(err, out.Close())
}

// own gives a file that was made again its permissions, and as root its owner where the file system has
// owners: one on another host may not.
func (r *Restorer) own(f *MappedFile, made *os.File) error {
	mode := f.Mode
	if os.Geteuid() == 0 {
		if err := made.Chown(f.Owner.UID, f.Owner.GID); err != nil {
			r.warn("%s, made again, is not of user %d, group %d: %v", f.Path, f.Owner.UID, f.Owner.GID, err)
			mode &= 0o777 // what is another's must not run as this one
		}
	}
	return os.NewSyscallError("fchmod", unix.Fchmod(int(made.Fd()), mode))
}

// makeObjects makes the shared memory in the agent. memfd_create(2) gives what
// MAP_SHARED|MAP_ANONYMOUS gives, with a descriptor.
func (m *memoryRestorer) makeObjects(files map[int]int) error {
	m.readonly = make([]*os.File, len(m.st.Objects))
	for _, o := range m.st.Objects {
		if o.Attached {
			m.objects = append(m.objects, nil)
			continue
		}
		if o.File != 0 {
			f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", files[o.File]), os.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("shared memory %s: %w", o.Name, err)
			}
			m.objects = append(m.objects, f)
			continue
		}
		flags := unix.MFD_CLOEXEC
		if o.Huge != 0 {
			flags |= unix.MFD_HUGETLB | o.Huge<<unix.MFD_HUGE_SHIFT
		}
		fd, err := unix.MemfdCreate(o.memfdName(), flags)
		if err != nil {
			return fmt.Errorf("shared memory %s: memfd_create: %w", o.Name, err)
		}
		f := os.NewFile(uintptr(fd), o.Name)
		m.objects = append(m.objects, f)
		if err := f.Truncate(int64(o.Size)); err != nil {
			return fmt.Errorf("shared memory %s: %w", o.Name, err)
		}
	}
	return nil
}

// memfdName is the name for memfd_create(2), which prefixes "memfd:" itself.
func (o *ObjectState) memfdName() string {
	const most = 249 // NAME_MAX without the prefix
	name := strings.TrimPrefix(path.Base(o.Name), "memfd:")
	return name[:min(len(name), most)]
}

// claimedFile is a regular file that plugins have opened for mappings.
type claimedFile struct {
	dev, ino uint64
	access   int
}

// once returns the descriptor to use for that of a mapping: of the same regular file one is enough.
func (m *memoryRestorer) once(fd int) int {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fd
	}
	key := claimedFile{st.Dev, st.Ino, flags & unix.O_ACCMODE}
	first, known := m.files[key]
	if !known {
		m.files[key] = fd
		return fd
	}
	unix.Close(fd)
	return first
}

func (m *memoryRestorer) reopenClaimed(ctx context.Context, reopen MapReopen) error {
	for i := range m.st.Processes {
		ps := &m.st.Processes[i]
		for _, ms := range ps.Maps {
			if ms.Kind != MapPlugin {
				continue
			}
			fd, err := reopen(ctx, ms.Owner, m.byPID[ps.PID], ms.pluginMapping())
			if err != nil {
				return err
			}
			m.claimed[mapKey{ps.PID, ms.Start}] = m.once(fd)
		}
	}
	return nil
}

// mapProcess makes the mappings of a process that are not there yet.
func (m *memoryRestorer) mapProcess(ctx context.Context, p *Process, ps *ProcessState) error {
	if err := m.enterUTS(ctx, p, ps); err != nil {
		return fmt.Errorf("pid %d: UTS namespace: %w", p.pid, err)
	}
	if err := m.setMM(ctx, p, ps); err != nil {
		return err
	}
	return m.mapAll(ctx, p, ps, slices.DeleteFunc(slices.Clone(ps.Maps), func(ms MapState) bool { return ms.Kind == MapAnon || ms.Kind == MapAttach }))
}

// mapAll makes mappings, and gives them what they have beside their content.
func (m *memoryRestorer) mapAll(ctx context.Context, p *Process, ps *ProcessState, maps []MapState) error {
	for left := maps; len(left) > 0; {
		n, err := m.mapSome(ctx, p, ps, left)
		if err != nil {
			return err
		}
		left = left[n:]
	}
	return m.describeMemory(ctx, p, maps)
}

// setMM sets the addresses that /proc and brk(2) go by, and the program file:
// before its own mappings, as the kernel refuses to change it under them.
func (m *memoryRestorer) setMM(ctx context.Context, p *Process, ps *ProcessState) error {
	b := newArgs(p)
	exeFD := uint64(m.sockFD) + 2
	mm := ps.MM
	auxv := b.put(ps.Auxv)
	var raw []byte
	for _, v := range []uint64{mm.StartCode, mm.EndCode, mm.StartData, mm.EndData, mm.StartBrk, mm.Brk, mm.StartStack,
		mm.ArgStart, mm.ArgEnd, mm.EnvStart, mm.EnvEnd, auxv, uint64(len(ps.Auxv)) | exeFD<<32} {
		raw = le.AppendUint64(raw, v)
	}
	open := sys(unix.SYS_OPENAT, atFdcwd, b.str(ps.Exe), unix.O_RDONLY|unix.O_CLOEXEC, 0).as("open program file %s", ps.Exe)
	if f := m.programOf(ps); f != nil { // it arrives as descriptor 0
		if err := m.pass(ctx, p, []int{int(f.Fd())}); err != nil {
			return err
		}
		open = sys(unix.SYS_DUP, 0).as("dup")
	}
	calls := []call{
		open.keep(),
		sys(unix.SYS_DUP3, 0, exeFD, unix.O_CLOEXEC).fromKept(0).as("dup3"),
		sys(unix.SYS_CLOSE_RANGE, 0, uint64(m.sockFD)-1, 0),
		sys(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, b.put(raw), uint64(len(raw)), 0).as("PR_SET_MM_MAP"),
		sys(unix.SYS_CLOSE, exeFD),
	}
	return b.flush(ctx, p.threads[0], calls)
}

// atFdcwd is AT_FDCWD as an argument.
const atFdcwd = ^uint64(99)

// madvice are the VmFlags that madvise(2) sets.
var madvice = map[string]uint64{"rr": unix.MADV_RANDOM, "sr": unix.MADV_SEQUENTIAL, "dc": unix.MADV_DONTFORK,
	"mg": unix.MADV_MERGEABLE, "hg": unix.MADV_HUGEPAGE, "nh": unix.MADV_NOHUGEPAGE, "dd": unix.MADV_DONTDUMP,
	"wf": unix.MADV_WIPEONFORK}

// mapSome makes as many of maps as fit into a batch, and returns their number.
// Descriptors that the agent passes arrive as 0, 1, ...: the process has no
// others yet.
func (m *memoryRestorer) mapSome(ctx context.Context, p *Process, ps *ProcessState, maps []MapState) (n int, err error) {
	const callsEach = 12
	maxPassed := min(200, m.sockFD) // they take the numbers below ours
	passed := map[int]uint64{}
	b := newArgs(p)
	var calls []call
	paths := map[string]uint64{}
	var pass []int
	for n < len(maps) && len(calls)+callsEach < maxRecords && len(pass) < maxPassed {
		ms := &maps[n]
		if _, known := paths[ms.Path]; !known && b.full(len(ms.Path)+1) {
			break
		}
		n++
		switch {
		case ms.Kind == MapVdso:
			continue
		case ms.Kind == MapAnon:
			calls = append(calls, mmapCall(ms, unix.MAP_ANONYMOUS, ^uint64(0)))
		case ms.Kind == MapFile && m.carried[ms.Ref] == nil:
			at, known := paths[ms.Path]
			if !known {
				at = b.str(ms.Path)
				paths[ms.Path] = at
			}
			flags := uint64(unix.O_RDONLY)
			if ms.Shared && slices.Contains(ms.Flags, "mw") {
				flags = unix.O_RDWR
			}
			calls = append(calls,
				sys(unix.SYS_OPENAT, atFdcwd, at, flags|unix.O_CLOEXEC, 0).keep().as("open %s", ms.Path),
				mmapCall(ms, 0, 0).fromKept(4), sys(unix.SYS_CLOSE, 0).fromKept(0))
		default:
			fd, err := m.descriptorOf(ps, ms)
			if err != nil {
				return 0, err
			}
			at, known := passed[fd]
			if !known {
				at = uint64(len(pass))
				passed[fd] = at
				pass = append(pass, fd)
			}
			calls = append(calls, mmapCall(ms, 0, at))
		}
		calls = append(calls, ms.advice()...)
	}
	if len(pass) > 0 {
		if err := m.pass(ctx, p, pass); err != nil {
			return 0, err
		}
		calls = append(calls, sys(unix.SYS_CLOSE_RANGE, 0, uint64(m.sockFD)-1, 0))
	}
	return n, b.flush(ctx, p.threads[0], calls)
}

func mmapCall(ms *MapState, flags uint64, fd uint64) call {
	flags |= unix.MAP_FIXED
	switch {
	case slices.Contains(ms.Flags, "dp"):
		flags |= unix.MAP_DROPPABLE
	case ms.Shared:
		flags |= unix.MAP_SHARED
	default:
		flags |= unix.MAP_PRIVATE
	}
	if ms.Huge != 0 && ms.Kind == MapAnon {
		flags |= unix.MAP_HUGETLB | uint64(ms.Huge)<<unix.MAP_HUGE_SHIFT
		c := sys(unix.SYS_MMAP, ms.Start, ms.End-ms.Start, uint64(ms.Prot), flags, fd, 0)
		return c.as("mmap %x-%x of huge pages (there must be as many free ones, HugePages_Free of proc_meminfo(5))", ms.Start, ms.End)
	}
	if slices.Contains(ms.Flags, "gd") {
		flags |= unix.MAP_GROWSDOWN
	}
	if slices.Contains(ms.Flags, "nr") {
		flags |= unix.MAP_NORESERVE
	}
	what := ms.Path
	if ms.Huge != 0 {
		what += " of huge pages (there must be as many free ones, HugePages_Free of proc_meminfo(5))"
	}
	return sys(unix.SYS_MMAP, ms.Start, ms.End-ms.Start, uint64(ms.Prot), flags, fd, ms.Offset).
		as("mmap %x-%x %s", ms.Start, ms.End, what)
}

// descriptorOf returns the agent's descriptor for a mapping.
func (m *memoryRestorer) descriptorOf(ps *ProcessState, ms *MapState) (int, error) {
	switch ms.Kind {
	case MapPlugin:
		return m.claimed[mapKey{ps.PID, ms.Start}], nil
	case MapFile:
		return int(m.carried[ms.Ref].Fd()), nil
	}
	f := m.objects[ms.Ref]
	if slices.Contains(ms.Flags, "mw") || !ms.Shared {
		return int(f.Fd()), nil
	}
	if m.readonly[ms.Ref] == nil {
		ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			return 0, fmt.Errorf("shared memory %s: %w", ms.Path, err)
		}
		m.readonly[ms.Ref] = ro
	}
	return int(m.readonly[ms.Ref].Fd()), nil
}

// pass sends descriptors to a process, where they take the lowest numbers.
func (r *Restorer) pass(ctx context.Context, p *Process, fds []int) error {
	return r.passTo(ctx, p, p.threads[0], fds)
}

// passTo sends them to a thread that may have a table of its own.
func (r *Restorer) passTo(ctx context.Context, p *Process, th *Thread, fds []int) error {
	const most = 250 // SCM_MAX_FD is 253
	for len(fds) > 0 {
		n := min(len(fds), most)
		if err := unix.Sendmsg(r.sock, []byte{0}, unix.UnixRights(fds[:n]...), nil, 0); err != nil {
			return fmt.Errorf("pid %d: pass descriptors: %w", p.pid, err)
		}
		b := newArgs(p)
		data := b.put(make([]byte, 16))
		iov := b.put(le.AppendUint64(le.AppendUint64(nil, data), 1))
		space := unix.CmsgSpace(4 * n)
		control := b.put(make([]byte, space))
		var msg []byte
		for _, v := range []uint64{0, 0, iov, 1, control, uint64(space), 0} {
			msg = le.AppendUint64(msg, v)
		}
		calls := []call{sys(unix.SYS_RECVMSG, uint64(r.sockFD), b.put(msg), unix.MSG_DONTWAIT).as("receive %d descriptors", n)}
		if err := b.flush(ctx, th, calls); err != nil {
			return err
		}
		fds = fds[n:]
	}
	return nil
}

// fill copies the content of all other memory from the image.
func (m *memoryRestorer) fill(ctx context.Context) error {
	targets := map[uint32]io.WriterAt{}
	for i := range m.st.Processes {
		if ps := &m.st.Processes[i]; !ps.Zombie {
			targets[ps.Space] = m.byPID[ps.PID]
		}
	}
	for i, o := range m.st.Objects {
		switch {
		case o.Attached:
			targets[o.Space] = m.attachedTo(i)
		case o.Huge != 0:
			h := &linux.HugeFile{FD: int(m.objects[i].Fd()), Size: int64(o.Size)}
			defer h.Close()
			targets[o.Space] = h
		default:
			targets[o.Space] = m.objects[i]
		}
	}
	maps.Copy(targets, m.contents)
	made := map[uint32]bool{} // before
	for _, x := range m.st.Exes {
		made[x.Space] = true
	}
	for i := range m.st.Refs { // or not needed
		made[m.st.refSpace(i)] = true
	}
	pieces := slices.DeleteFunc(m.rest, func(x image.Piece) bool { return made[x.Space] })
	m.rest = nil
	for _, x := range pieces {
		if targets[x.Space] == nil {
			return fmt.Errorf("memory: the image has an extent of an unknown space %d", x.Space)
		}
	}
	return m.eachPiece(ctx, pieces, func(_, _ int64) {}, func(x *image.Piece, b []byte) error {
		return writePiece(x, b, targets[x.Space])
	})
}

// writePiece writes what is live of a piece, of which b is all.
func writePiece(x *image.Piece, b []byte, to io.WriterAt) error {
	for _, l := range x.Live {
		if _, err := to.WriteAt(b[l.Start-x.Addr:l.End-x.Addr], int64(l.Start)); err != nil {
			return fmt.Errorf("memory at %#x of space %d: %w", l.Start, x.Space, unwrapPath(err))
		}
	}
	return nil
}
