package proc

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Survey is what smaps told of processes that still ran, for which the kernel
// walks all their page tables: in the pause maps has to say only that nothing has
// changed since, and afterwards the copy that no advice has.
type Survey struct {
	smaps map[int][]procfs.VMA // by host pid
}

// surveyFrom is the memory from which reading smaps in the pause is longer than
// twice outside of it.
const surveyFrom = 16 << 20

// NewSurvey looks at those of the processes that have much memory.
func NewSurvey(pids []int) *Survey {
	s := &Survey{smaps: map[int][]procfs.VMA{}}
	for _, pid := range pids {
		if residentBytes(pid) < surveyFrom {
			continue
		}
		if vmas, err := procfs.ReadSmaps(pid); err == nil { // else it has ended, or the freeze tells
			s.smaps[pid] = vmas
		}
	}
	return s
}

// residentBytes reads /proc/PID/statm; 0 of a process that has ended.
func residentBytes(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := bytes.Fields(b)
	if err != nil || len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(f[1])) // the kernel's own number
	return n * os.Getpagesize()
}

// UseSurvey lets the tree rely on a survey of it. Only a snapshot can prove that
// it was right.
func (t *Tree) UseSurvey(s *Survey) { t.survey = s }

// mappings reads the mappings of p with all their properties.
func (t *Tree) mappings(p *Process) ([]procfs.VMA, error) {
	if t.survey != nil && t.dirty == nil && p.private() > fewPages { // it will be copied
		if known := t.survey.smaps[p.host]; known != nil && p.unchanged(known) {
			p.surveyed = known
			return known, nil
		}
	}
	return procfs.ReadSmaps(p.liveTID())
}

// unchanged says whether p has these mappings, and has locked none: a copy would
// not show that.
func (p *Process) unchanged(known []procfs.VMA) bool {
	status, err := procfs.ReadTaskStatus(p.host, p.liveTID())
	if err != nil || status.VmLck != 0 { // of our own too, by mlockall(2) with MCL_FUTURE
		return false
	}
	maps, err := procfs.ReadMaps(p.liveTID())
	if err != nil {
		return false
	}
	maps = slices.DeleteFunc(maps, func(v procfs.VMA) bool { return p.isOurs(&v) })
	return slices.EqualFunc(maps, known, sameMapping)
}

// sameMapping compares what maps tells.
func sameMapping(a, b procfs.VMA) bool {
	return a.Start == b.Start && a.End == b.End && a.Prot() == b.Prot() && a.Shared == b.Shared && a.Offset == b.Offset &&
		a.Dev() == b.Dev() && a.Ino == b.Ino && a.Path == b.Path && a.Deleted == b.Deleted
}

// confirm compares a survey that was relied on with what the copy has inherited
// from p at the moment of the pause.
func (p *Process) confirm(c *Process) error {
	if p.surveyed == nil {
		return nil
	}
	copied, err := procfs.ReadSmaps(c.host)
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
			return fmt.Errorf("pid %d: %s: the program has changed it in the moment of the checkpoint (madvise(2))", p.pid, describeVMA(v))
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
