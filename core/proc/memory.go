package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// MapClaim asks the plugins for a mapping; owner "" where none claims it.
type MapClaim func(ctx context.Context, p plugin.Process, m plugin.Mapping) (owner string, policy plugin.MapPolicy, err error)

// mapSaver decides how each mapping comes back.
type mapSaver struct {
	t       *Tree
	st      *State
	claim   MapClaim
	root    int // a process whose root directory is the tree's
	refs    map[refKey]fileRef
	objects map[objectKey]int
	all     map[*Process]*processMaps
	written map[inodeID]bool        // files in memory that have names, see findWritten
	others  map[inodeID]writtenFile // other files that are written to by mappings
	devs    map[inodeID]uint64      // see statDev
	shown   map[uint64]uint64       // the device in maps by that of stat(2), see isOther
	flags   map[*string]flagFacts   // of VmFlags that mappings share
	mounted map[uint64]string       // types of file systems by device; nil until one is asked for
	links   linkSaver
}

// flagFacts is what VmFlags tell.
type flagFacts struct {
	kept    []string
	refused bool // one of refusedFlags is among them
}

// factsOf looks at flags, of which there are few different ones.
func (s *mapSaver) factsOf(flags []string) (f flagFacts) {
	if len(flags) == 0 {
		return f
	}
	f, ok := s.flags[&flags[0]]
	if ok {
		return f
	}
	for _, k := range keptFlags {
		if slices.Contains(flags, k) {
			f.kept = append(f.kept, k)
		}
	}
	f.refused = slices.ContainsFunc(flags, func(k string) bool { return refusedFlags[k] != "" })
	s.flags[&flags[0]] = f
	return f
}

// objectKey names shared memory. Segments of System V have their id for an
// inode number, on the same device as anonymous memory (ipc/shm.c, newseg).
type objectKey struct {
	dev, ino uint64
	attached bool
}

func newMapSaver(t *Tree, st *State, claim MapClaim, root int) *mapSaver {
	st.root = root
	return &mapSaver{t: t, st: st, claim: claim, root: root, refs: map[refKey]fileRef{}, objects: map[objectKey]int{},
		all: map[*Process]*processMaps{}, written: map[inodeID]bool{}, others: map[inodeID]writtenFile{}, devs: map[inodeID]uint64{},
		shown: map[uint64]uint64{}, flags: map[*string]flagFacts{}, links: linkSaver{found: map[inodeID]string{}, search: linux.LinkSearch{Left: maxGuesses}}}
}

// maps describes all mappings of p. All refusals are joined.
func (s *mapSaver) maps(ctx context.Context, p *Process, ps *ProcessState) ([]MapState, error) {
	vmas, watched := s.all[p].vmas, s.all[p].watched
	out := s.t.stateRoom(p, len(vmas))
	var errs []error
	for i := range vmas {
		v := &vmas[i]
		if p.isOurs(v) {
			ps.LockFuture = lockedFuture(v)
			continue
		}
		if v.Path == "[vsyscall]" {
			continue
		}
		m, err := s.describe(ctx, p, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if m.watched = watched[m.Start]; m.Kind != "" {
			out = append(out, m)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := s.guards(p, vmas, out); err != nil {
		return nil, fmt.Errorf("pid %d: %w", p.pid, err)
	}
	return out, p.readPolicies(ctx, out, func(m *MapState) bool {
		return p.surveyed == nil || !m.isInherited() // the copy is asked for the others
	})
}

func (p *Process) isOurs(v *procfs.VMA) bool {
	return p.inj.base != 0 && v.Start >= p.inj.base && v.End <= p.inj.base+blobSize
}

// refusedFlags are VmFlags of memory that cannot come back.
var refusedFlags = map[string]string{
	"ht": "huge pages of hugetlbfs are kept of anonymous and of shared memory only",
	"io": "it is memory of a device",
	"pf": "it is memory of a device",
	"um": "it is watched by a userfaultfd",
	"uw": "it is watched by a userfaultfd",
	"ss": "it is a shadow stack",
	"mt": "it has memory tags (PROT_MTE), which are not kept",
	"sf": "it is mapped with MAP_SYNC",
}

// keptFlags are VmFlags that are set again.
var keptFlags = []string{"gd", "nr", "lo", "lf", "dd", "dc", "wf", "hg", "nh", "mg", "rr", "sr", "mw", "dp", "sl"}

// protBTI is PROT_BTI of arm64: indirect branches only go where instructions let them.
const protBTI = 0x10

// keptProt is the protection of a mapping as mmap(2) takes it.
func keptProt(v *procfs.VMA) int {
	if v.Has("bt") {
		return v.Prot() | protBTI
	}
	return v.Prot()
}

func (s *mapSaver) describe(ctx context.Context, p *Process, v *procfs.VMA) (MapState, error) {
	m := MapState{Start: v.Start, End: v.End, Prot: keptProt(v), Shared: v.Shared, Offset: v.Offset, Path: v.Path,
		Dev: s.statDev(v), Ino: v.Ino, Flags: s.factsOf(v.Flags).kept}
	if v.Has("ht") {
		m.Huge = bits.TrailingZeros64(v.Page)
	}
	if isVdso(v.Path) {
		m.Kind = MapVdso
		if v.Path == "[vdso]" && s.st.Vdso == nil {
			b, err := p.readVdso(*v)
			if err != nil {
				return m, err
			}
			s.st.Vdso = b
		}
		return m, nil
	}
	if !v.Shared && v.Ino == 0 {
		return s.unclaimed(p, m, v) // it is no object of the kernel that a plugin could know
	}
	pm := plugin.Mapping{Start: v.Start, End: v.End, Prot: v.Prot(), Shared: v.Shared, Offset: v.Offset,
		Dev: m.Dev, Ino: v.Ino, Path: v.Link(), Flags: v.Flags}
	name, err := s.nameOf(p, v)
	if err != nil {
		return m, err
	}
	if name != "" {
		pm.Path, pm.Named, m.Path = name, true, name
	} else if f, ok := s.writtenBy(v); ok {
		if err := s.refuseKind(p, v); err != nil {
			return m, err
		}
		pm.Written, pm.Dev, m.Dev = true, f.dev, f.dev
		if v.Deleted {
			pm.Path, m.Path = f.name, f.name
		}
	}
	owner, policy, err := s.claim(ctx, p, pm)
	if err != nil {
		return m, err
	}
	if owner != "" {
		if pm.Written && policy == plugin.MapReopen {
			s.keepClaimed(inodeID{v.Dev(), v.Ino})
		}
		return s.claimed(m, v, owner, policy)
	}
	return s.unclaimed(p, m, v)
}

func (s *mapSaver) claimed(m MapState, v *procfs.VMA, owner string, policy plugin.MapPolicy) (MapState, error) {
	m.Owner = owner
	switch policy {
	case plugin.MapSave:
		m.Kind, m.Shared, m.Huge, m.content = MapAnon, false, 0, contentRead
	case plugin.MapShare:
		s.object(&m, v, false)
	case plugin.MapAttach:
		s.object(&m, v, true)
	case plugin.MapReopen:
		m.Kind = MapPlugin
		if !v.Shared {
			m.content, m.cuttable = contentPrivate, true
		}
	case plugin.MapSkip:
		m.Kind = ""
	default:
		return m, fmt.Errorf("plugin %s: claims %s with unknown policy %d", owner, v.Path, policy)
	}
	return m, nil
}

// refuseKind refuses what no mapping of the engine's may be.
func (s *mapSaver) refuseKind(p *Process, v *procfs.VMA) error {
	anonHuge := v.Path == "/anon_hugepage" || v.Shared && strings.HasPrefix(v.Path, "/memfd:")
	if s.factsOf(v.Flags).refused {
		for _, f := range v.Flags {
			if why := refusedFlags[f]; why != "" && (f != "ht" || !anonHuge) && v.Path != "[uprobes]" {
				return refuse(p, describeVMA(v), "%s", why)
			}
		}
	}
	if v.Key != 0 && v.Prot() != unix.PROT_EXEC { // which the kernel itself gives a key
		return refuse(p, describeVMA(v), "it has the memory protection key %d (pkeys(7)), which is not kept yet", v.Key)
	}
	return nil
}

// unclaimed applies the engine's own rules.
func (s *mapSaver) unclaimed(p *Process, m MapState, v *procfs.VMA) (MapState, error) {
	if err := s.refuseKind(p, v); err != nil {
		return m, err
	}
	switch {
	case v.Path == "[uprobes]":
		return m, refuse(p, describeVMA(v), "a uprobe of a tracer is set in the program")
	case !v.Shared && (v.Ino == 0 || v.Path == "/dev/zero"):
		m.Kind, m.Offset, m.content = MapAnon, 0, contentPrivate
		m.Name = anonName(v.Path)
		if v.Has("dp") {
			m.content = contentNone
		}
	case m.Huge != 0 && !v.Shared:
		m.Kind, m.Offset, m.Path, m.content = MapAnon, 0, "", contentPrivate
	case strings.HasPrefix(v.Path, "/SYSV") || strings.HasPrefix(v.Path, "/[aio]"):
		return m, refuse(p, describeVMA(v), "no plugin keeps this kind of memory")
	case v.Shared && v.Deleted:
		return s.removed(p, m, v)
	case v.Shared && (v.Ino == 0 || strings.HasPrefix(v.Path, "[anon_shmem:")):
		m.Name = anonName(v.Path)
		s.object(&m, v, false)
	case v.Deleted:
		m.Kind, m.Offset, m.content = MapAnon, 0, contentRead
	case strings.HasPrefix(v.Path, "/"):
		return s.file(p, m, v)
	case strings.HasPrefix(v.Path, "socket:"):
		return m, refuse(p, describeVMA(v), "memory of a socket, as of TCP_ZEROCOPY_RECEIVE (tcp(7)) or a ring of packet(7), cannot be mapped again")
	default:
		return m, refuse(p, describeVMA(v), "unknown kind of memory")
	}
	return m, nil
}

// removed enters a shared mapping of a file that has lost the name it was mapped
// by: as one by another name, where it has one.
func (s *mapSaver) removed(p *Process, m MapState, v *procfs.VMA) (MapState, error) {
	link, err := s.linkOf(p, v)
	if err != nil {
		return m, err
	}
	if link == "" {
		s.object(&m, v, false)
		return m, nil
	}
	named := *v
	named.Path, named.Deleted, m.Path = link, false, link
	return s.file(p, m, &named)
}

func describeVMA(v *procfs.VMA) string {
	return fmt.Sprintf("mapping %x-%x %s", v.Start, v.End, v.Link())
}

// object enters the mapping in the list of shared memory.
func (s *mapSaver) object(m *MapState, v *procfs.VMA, attached bool) {
	key := objectKey{v.Dev(), v.Ino, attached}
	i, ok := s.objects[key]
	if !ok {
		i = len(s.st.Objects)
		s.objects[key] = i
		s.st.Objects = append(s.st.Objects, ObjectState{Name: v.Path, Attached: attached, Huge: m.Huge})
	}
	o := &s.st.Objects[i]
	o.Size = max(o.Size, v.Offset+v.Len())
	m.Kind, m.Ref, m.content, m.onDisk = MapObject, i, contentAll, s.onDisk(v)
	if attached {
		m.Kind = MapAttach
	}
}

// smallFile is the largest size of a file that the tree writes to by mappings whose
// content is kept, so that it can be made again if it is gone: others remove
// the statistics files of Java machines that have ended, for example.
const smallFile = 64 << 10

// file enters the mapping's file in the list of files that must be there.
func (s *mapSaver) file(p *Process, m MapState, v *procfs.VMA) (MapState, error) {
	id := inodeID{v.Dev(), v.Ino}
	_, other := s.others[id]
	key := refKey{path: v.Path, id: id, written: v.Shared && (s.written[id] || other)} // by this mapping or another
	ref, known := s.refs[key]
	if !known {
		var err error
		if ref, err = s.newRef(p, v, key); err != nil {
			return m, err
		}
		s.refs[key] = ref
	}
	m.Kind, m.Ref = MapFile, ref.index
	if !v.Shared {
		m.content, m.cuttable = contentPrivate, ref.writable
		m.changed = !m.cuttable && (v.Write || v.Has("ac") || v.Has("nr")) // it once was for writing, mm/vma.c, accountable_mapping
	}
	return m, nil
}

// refKey names a file that processes map.
type refKey struct {
	path    string
	id      inodeID // as maps shows it
	written bool
}

// fileRef is its place in State.Refs, and whether the tree may write to it.
type fileRef struct {
	index    int
	writable bool
}

// newRef looks at a file that v maps.
func (s *mapSaver) newRef(p *Process, v *procfs.VMA, key refKey) (ref fileRef, err error) {
	var st unix.Stat_t
	path := rootedAt(s.root, v.Path) // not p's: it may be in a chroot(2)
	if err := unix.Stat(path, &st); err != nil {
		return ref, refuse(p, describeVMA(v), "its file cannot be found any more: %v", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ref, refuse(p, describeVMA(v), "it is memory of a device")
	}
	if s.t.leased(&st) {
		return ref, refuse(p, describeVMA(v), "the program has a write lease on its file (fcntl(2)), which it could not take again")
	}
	if s.isOther(path, &st, v) { // which opens it: that would break a lease
		return ref, refuse(p, describeVMA(v), "another file has taken its name")
	}
	ref = fileRef{index: len(s.st.Refs), writable: s.t.mayWrite(&st)}
	f := s.t.sums.newMappedFile(v.Path, &st)
	if key.written {
		f = MappedFile{Path: v.Path, Size: st.Size, Mtime: timeOf(st.Mtim), Write: true}
		written, err := s.keepWritten(p, v, path, &st)
		if err != nil {
			return ref, err
		}
		if f.Size <= smallFile {
			if err := f.keep(written, path, &st); err != nil {
				return ref, fmt.Errorf("pid %d: %s: read: %w", p.pid, describeVMA(v), err)
			}
		}
	}
	s.st.Refs = append(s.st.Refs, f)
	if s.t.carry && !f.Write && !ref.writable {
		if err := s.st.carry(ref.index, path, &st); err != nil {
			return ref, refuse(p, describeVMA(v), "this user may not read its file, which a self-contained image carries: %v", err)
		}
	}
	return ref, nil
}

// keep takes what a restart needs to make a file of ours again.
func (f *MappedFile) keep(from io.ReaderAt, name string, st *unix.Stat_t) error {
	f.Mode, f.Owner = st.Mode&0o7777, &missing.Owner{UID: int(st.Uid), GID: int(st.Gid)}
	f.Directory, _ = missing.Look(path.Dir(name))
	f.Content = make([]byte, f.Size)
	_, err := from.ReadAt(f.Content, 0)
	return err
}

// finish numbers the spaces of what is not of one process.
func (s *mapSaver) finish() {
	for i := range s.st.Objects {
		s.st.Objects[i].Space = uint32(len(s.st.Processes) + i)
	}
	for i := range s.st.Exes {
		s.st.Exes[i].Space = uint32(len(s.st.Processes) + len(s.st.Objects) + i)
	}
}
