package proc

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// Survey is what was found out of processes that still ran, because it takes
// long: what smaps told, for which the kernel walks all their page tables. In the
// pause maps has to say only that nothing has changed since, and afterwards the
// copy that no advice has. And there is room for what is read in the pause.
type Survey struct {
	smaps    map[int][]procfs.VMA // by host pid
	states   map[int][]MapState   // room for what Inspect says of them, likewise
	mappings int                  // of all in smaps
	reserve  reserve
	runs     []pageRun // room for what is read
	room     uint64    // see memoryRoom; 0: not known
}

// surveyFrom is the memory from which reading smaps in the pause is longer than
// twice outside of it.
const surveyFrom = 16 << 20

// NewSurvey looks at those of the processes that have much memory, or many mappings,
// and reserves as much as the snapshot is likely to read in the pause. changes is what
// tracks the memory, nil where all of it is stored. before is the survey of a generation that
// was written, or nil: it is right where the mappings are the same. The caller closes it.
func (t *Tracer) NewSurvey(pids []int, changes *Dirty, before *Survey) *Survey {
	s := &Survey{smaps: map[int][]procfs.VMA{}, states: map[int][]MapState{}, reserve: reserve{spare: &t.spare}}
	shared := sharedSizes{all: map[objectKey]uint64{}}
	var small, all uint64 // private memory
	changed := costs{}
	var written uint64
	var pieces int
	for _, pid := range pids {
		resident, private := residentBytes(pid)
		all += private
		if private <= fewPages {
			small += private
		}
		if resident < surveyFrom && (private <= fewPages || !hasMany(pid)) {
			continue
		}
		vmas := before.still(pid)
		if vmas == nil {
			var err error
			if vmas, err = procfs.ReadSmaps(pid); err != nil { // it has ended, or the freeze tells
				continue
			}
		}
		s.add(pid, vmas)
		shared.add(pid, vmas)
		changed.add(private, vmas)
		if changes != nil {
			size, n := changes.written(pid)
			written += size
			pieces += n
		}
	}
	need := small
	for _, size := range shared.all {
		need += size
	}
	switch little := all < copyFrom && s.mappings < manyMappings; {
	case little:
		need += all - small
	case changes != nil && changed.readsFaster(need+written):
		need += written
		s.runs = ready[pageRun](pieces)
	}
	if len(pids) > 0 {
		s.room, _ = memoryRoom(pids[0]) // the snapshot tells of an error
	}
	s.prepare(need + need/8)
	return s
}

// still returns the mappings of a process that have not changed since, nil where others
// have come or a copy does not show all. Whether their advices have changed the copy tells.
func (s *Survey) still(pid int) []procfs.VMA {
	if s == nil {
		return nil
	}
	known := s.smaps[pid]
	hidden := func(v procfs.VMA) bool { return v.Has("dc") || v.Has("lo") || v.Has("lf") }
	if known == nil || slices.ContainsFunc(known, hidden) || !unchanged(pid, pid, known, nil) {
		return nil
	}
	return known
}

// hasMany says whether a process has as many mappings as make it worth while to copy it.
func hasMany(pid int) bool {
	n := 0
	_ = procfs.VisitMaps(pid, func(*procfs.VMA) bool { n++; return n < manyMappings }) // it has ended
	return n == manyMappings
}

func (s *Survey) add(pid int, vmas []procfs.VMA) {
	s.smaps[pid] = vmas
	s.mappings += len(vmas)
	s.states[pid] = ready[MapState](len(vmas))
}

// ready returns an empty slice with room for n elements, and some more, whose memory is
// there: in the pause a fault for each of its pages would take longer than filling it.
func ready[T any](n int) []T {
	room := make([]T, n+n/8)
	clear(room)
	return room[:0]
}

// prepare reserves memory, where that leaves as much to others.
func (s *Survey) prepare(size uint64) {
	if size >= chunkSize && size <= s.room/2 {
		s.reserve.prepare(size)
		s.room -= size
	}
}

// Close gives back what no snapshot has taken. What was found out remains.
func (s *Survey) Close() {
	if s != nil {
		s.reserve.free()
		s.states, s.runs = nil, nil
	}
}

// sharedSizes is how much there is of each memory that is shared and in no file on a disk.
type sharedSizes struct {
	all         map[objectKey]uint64
	filesystems map[uint64]string // nil until one is asked for
}

// add adds what a process has of it.
func (s *sharedSizes) add(pid int, vmas []procfs.VMA) {
	own := map[objectKey]uint64{}
	for i := range vmas {
		if v := &vmas[i]; v.Shared && (v.Deleted || v.Ino == 0) || isWritten(v) && isNamedMemory(s.filesystem(pid, v)) {
			own[objectKey{dev: v.Dev(), ino: v.Ino}] += v.Rss
		}
	}
	for k, size := range own {
		s.all[k] = max(s.all[k], size)
	}
}

func (s *sharedSizes) filesystem(pid int, v *procfs.VMA) string {
	if s.filesystems == nil {
		s.filesystems, _ = procfs.ReadFilesystems(pid) // the checkpoint tells of an error
	}
	return s.filesystems[v.Dev()]
}

// residentBytes reads /proc/PID/statm; 0 of a process that has ended.
func residentBytes(pid int) (all, private uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := bytes.Fields(b)
	if err != nil || len(f) < 3 {
		return 0, 0
	}
	page := uint64(os.Getpagesize())
	n, _ := strconv.ParseUint(string(f[1]), 10, 64) // the kernel's own numbers
	shared, _ := strconv.ParseUint(string(f[2]), 10, 64)
	return n * page, (n - min(n, shared)) * page
}

// UseSurvey gives a frozen tree what a survey has reserved, and lets it rely on the
// rest, unless rely is false, if it is to be copied: only a copy proves that the survey was right. nil: there
// is none.
func (t *Tree) UseSurvey(s *Survey, rely bool) {
	t.survey = s
	t.relies = rely && s != nil && t.copied()
}

// mappings reads the mappings of p with all their properties.
func (t *Tree) mappings(p *Process) ([]procfs.VMA, error) {
	if t.relies && p.private() > fewPages { // it will be copied, or read again
		if known := t.survey.smaps[p.host]; known != nil && unchanged(p.host, p.liveTID(), known, p.isOurs) {
			p.surveyed = known
			return known, nil
		}
	}
	return procfs.ReadSmaps(p.liveTID())
}

// unchanged says whether a process has these mappings, but for ours, and has locked none: a
// copy would not show that.
func unchanged(pid, tid int, known []procfs.VMA, ours func(*procfs.VMA) bool) bool {
	status, err := procfs.ReadTaskStatus(pid, tid)
	if err != nil || status.VmLck != 0 { // of our own too, by mlockall(2) with MCL_FUTURE
		return false
	}
	same, n := true, 0
	err = procfs.VisitMaps(tid, func(v *procfs.VMA) bool { // anew: plugins map what they want to have saved
		if ours == nil || !ours(v) {
			same = n < len(known) && sameMapping(v, &known[n])
			n++
		}
		return same
	})
	return err == nil && same && n == len(known)
}

// stateRoom returns room for the states of n mappings of p.
func (t *Tree) stateRoom(p *Process, n int) []MapState {
	if t.survey != nil && cap(t.survey.states[p.host]) >= n {
		return t.survey.states[p.host][:0]
	}
	return make([]MapState, 0, n)
}

// sameMapping compares what maps tells.
func sameMapping(a, b *procfs.VMA) bool {
	return a.Start == b.Start && a.End == b.End && a.Prot() == b.Prot() && a.Shared == b.Shared && a.Offset == b.Offset &&
		a.Dev() == b.Dev() && a.Ino == b.Ino && a.Path == b.Path && a.Deleted == b.Deleted
}

// ErrAdvised gives a checkpoint up: what was read of the program before the pause is not true any more.
const ErrAdvised = plugin.Passing("the program has changed it meanwhile (madvise(2))")

// confirm compares a survey that was relied on with what c, the copy, has
// inherited from p at the moment of the pause; or with p itself, in the pause.
func (p *Process) confirm(c *Process) error {
	if p.surveyed == nil {
		return nil
	}
	copied, err := procfs.ReadSmaps(c.liveTID())
	if err != nil {
		return err
	}
	byStart := map[uint64]*procfs.VMA{}
	for i := range copied {
		byStart[copied[i].Start] = &copied[i]
	}
	for i := range p.surveyed {
		v := &p.surveyed[i]
		w := byStart[v.Start]
		if v.Path == "[vsyscall]" || w == nil && v.Has("dc") {
			continue
		}
		if w == nil || w.End != v.End || w.Key != v.Key || w.Page != v.Page || !sameFlags(v, w) {
			return fmt.Errorf("pid %d: %s: %w", p.pid, describeVMA(v), ErrAdvised)
		}
		delete(byStart, v.Start)
	}
	for _, w := range byStart { // nothing is known of it
		if !c.isOurs(w) && w.Path != "[vsyscall]" {
			return fmt.Errorf("pid %d: %s: %w", p.pid, describeVMA(w), ErrAdvised)
		}
	}
	return nil
}

// sameFlags compares the VmFlags that are looked at, but for those that a child
// does not inherit: of locked memory, which unchanged has excluded, and of
// userfaultfd(2), whose descriptor is refused.
func sameFlags(v, w *procfs.VMA) bool {
	for _, f := range keptFlags {
		if f != "lo" && f != "lf" && v.Has(f) != w.Has(f) {
			return false
		}
	}
	for f := range refusedFlags {
		if f != "um" && f != "uw" && v.Has(f) != w.Has(f) {
			return false
		}
	}
	return hasGuards(*v) == hasGuards(*w)
}
