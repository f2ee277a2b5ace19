package proc

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// A process comes back on a kernel with another vdso(7) by two of them. The
// kernel's own and its data are moved to a free place. Where the program knows
// the old one, it finds a copy of it in memory of its own, each function of
// which jumps to the kernel's function of the same name, or makes the system
// call. To the next kernel the copy is memory as any other, whose jumps lead to
// a vdso that has become a copy in its turn.

// isVdso says whether a mapping is the kernel's: the vdso, or its data.
func isVdso(path string) bool {
	return path == "[vdso]" || strings.HasPrefix(path, "[vvar")
}

// maxVdso bounds the vdso of an image: the kernel's have one to four pages.
const maxVdso = 64 << 10

// readVdso returns the bytes of the vdso, but for what lies behind its ELF
// image, where the nest is.
func (p *Process) readVdso(v procfs.VMA) ([]byte, error) {
	end, err := p.vdsoEnd(v)
	if err != nil {
		return nil, err
	}
	b := make([]byte, v.Len())
	if end-v.Start > v.Len() || v.Len() > maxVdso {
		return nil, fmt.Errorf("vdso: an image of %d in %d bytes", end-v.Start, v.Len())
	}
	return b, p.readMem(v.Start, b[:end-v.Start])
}

// hostVdso is the vdso that this kernel gives, and its mappings in this process.
type hostVdso struct {
	bytes []byte
	group []procfs.VMA
}

func readHostVdso() (h hostVdso, err error) {
	maps, err := procfs.ReadMaps(os.Getpid())
	if err != nil {
		return h, err
	}
	self := &Process{pid: os.Getpid(), host: os.Getpid()}
	defer self.closeMem()
	for _, v := range maps {
		if !isVdso(v.Path) {
			continue
		}
		h.group = append(h.group, v)
		if v.Path == "[vdso]" {
			if h.bytes, err = self.readVdso(v); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

// vdsoOf returns the vdso's mapping of a process in the image, nil where the
// program has unmapped it.
func (ps *ProcessState) vdsoOf() *MapState {
	i := slices.IndexFunc(ps.Maps, func(m MapState) bool { return m.Kind == MapVdso && m.Path == "[vdso]" })
	if i < 0 {
		return nil
	}
	return &ps.Maps[i]
}

// same says whether a process of the image can go on with this kernel's vdso
// where it had its own: the same bytes, and the data at the same distance.
func (h *hostVdso) same(st *State, ps *ProcessState) bool {
	v := ps.vdsoOf()
	if v == nil {
		return true // of what is left nothing can be called
	}
	if !bytes.Equal(st.Vdso, h.bytes) {
		return false
	}
	own := h.group[slices.IndexFunc(h.group, func(g procfs.VMA) bool { return g.Path == "[vdso]" })]
	for _, m := range ps.Maps {
		if m.Kind == MapVdso && !slices.ContainsFunc(h.group, func(g procfs.VMA) bool {
			return g.Path == m.Path && g.Len() == m.End-m.Start && g.Start-own.Start == m.Start-v.Start
		}) {
			return false
		}
	}
	return true
}

// checkVdso refuses what could not go on with the vdso of this kernel.
func (st *State) checkVdso() error {
	h, err := readHostVdso()
	if err != nil {
		return err
	}
	var errs []error
	for i := range st.Processes {
		ps := &st.Processes[i]
		if ps.Zombie || h.same(st, ps) {
			continue
		}
		v := ps.vdsoOf()
		if h.bytes == nil {
			errs = append(errs, fmt.Errorf("pid %d: it has a vdso(7), which this kernel does not give", ps.PID))
			continue
		}
		if _, err := patchedVdso(st.Vdso, h.bytes, 0); err != nil {
			errs = append(errs, fmt.Errorf("the image was made on another kernel: %w", err))
			break
		}
		for j := range ps.Threads {
			if pc := ps.Threads[j].Regs.PC(); v.Start <= pc && pc < v.End {
				errs = append(errs, fmt.Errorf("pid %d: the image was made on another kernel, within a function of whose vdso(7) thread %d was stopped: "+
					"another generation can be restarted here", ps.PID, ps.Threads[j].TID))
			}
		}
	}
	return errors.Join(errs...)
}

// validateVdso makes sure that the vdso has the size of its mappings.
func (st *State) validateVdso() error {
	if len(st.Vdso) > maxVdso {
		return fmt.Errorf("a vdso of %d bytes", len(st.Vdso))
	}
	for i := range st.Processes {
		if v := st.Processes[i].vdsoOf(); v != nil && v.End-v.Start != uint64(len(st.Vdso)) {
			return fmt.Errorf("process %d: %d bytes of a vdso that has %d", st.Processes[i].PID, v.End-v.Start, len(st.Vdso))
		}
	}
	return nil
}

// vdsoFunction is an entry of a vdso.
type vdsoFunction struct {
	name  string
	start uint64
}

// vdsoFunctions lists the functions in the symbol table, in ascending order.
func vdsoFunctions(b []byte) ([]vdsoFunction, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("vdso: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, fmt.Errorf("vdso: %w", err)
	}
	var out []vdsoFunction
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF && s.Value < uint64(len(b)) {
			out = append(out, vdsoFunction{s.Name, s.Value})
		}
	}
	slices.SortStableFunc(out, func(a, b vdsoFunction) int { return int(a.start) - int(b.start) })
	return out, nil
}

// baseName is what a function is called without the prefix of its architecture.
func (f vdsoFunction) baseName() string {
	name := strings.TrimPrefix(f.name, "__vdso_")
	return strings.TrimPrefix(name, "__kernel_")
}

// patchedVdso returns a copy of the vdso old, whose functions lead to those of
// the vdso here, which is mapped at base.
func patchedVdso(old, here []byte, base uint64) ([]byte, error) {
	from, err := vdsoFunctions(old)
	if err != nil {
		return nil, err
	}
	to, err := vdsoFunctions(here)
	if err != nil {
		return nil, err
	}
	target := map[string]uint64{}
	for _, f := range to {
		target[f.baseName()] = base + f.start
	}
	out := slices.Clone(old)
	for i, f := range from {
		if i > 0 && f.start == from[i-1].start || f.baseName() == "rt_sigreturn" { // the way back from a signal is the same everywhere
			continue
		}
		code := vdsoCode(f.baseName(), target)
		end := uint64(len(old))
		if next := slices.IndexFunc(from[i:], func(n vdsoFunction) bool { return n.start > f.start }); next >= 0 {
			end = from[i+next].start
		}
		if f.start+uint64(len(code)) > end {
			return nil, fmt.Errorf("vdso: its function %s is too short to lead elsewhere", f.name)
		}
		copy(out[f.start:], code)
	}
	return out, nil
}

// vdsoCode returns what stands in for a function of a vdso. The memory that
// getrandom(2) is handed is laid out as its own kernel wants it: there the call
// is made, which needs none.
func vdsoCode(name string, target map[string]uint64) []byte {
	nr, isCall := vdsoCalls[name]
	if to, ok := target[name]; ok && name != "getrandom" {
		return jumpCode(to)
	}
	if isCall {
		return callCode(nr)
	}
	return failCode()
}

// placeVdso gives the program the vdso where it knows it.
func (r *Restorer) placeVdso(ctx context.Context, p *Process, ps *ProcessState) error {
	if r.vdso.same(r.st, ps) {
		return p.moveVdso(ctx, ps)
	}
	return r.replaceVdso(ctx, p, ps)
}

// moveVdso moves the kernel's own mappings to where the program knows them,
// through a free place as they may overlap their old ones.
func (p *Process) moveVdso(ctx context.Context, ps *ProcessState) error {
	cur, err := procfs.ReadMaps(p.host)
	if err != nil {
		return err
	}
	tmp := p.inj.base + 2*blobSize
	var out, in []call
	insn := p.inj.insn
	for _, c := range cur {
		if !isVdso(c.Path) {
			continue
		}
		i := slices.IndexFunc(ps.Maps, func(m MapState) bool { return m.Kind == MapVdso && m.Path == c.Path })
		if i < 0 {
			if c.Start <= insn && insn < c.End {
				if p.inj.insn, err = p.blobInsn(); err != nil {
					return err
				}
			}
			out = append(out, sys(unix.SYS_MUNMAP, c.Start, c.Len()).as("unmap %s", c.Path))
			continue
		}
		w := ps.Maps[i]
		out = append(out, moveCall(c, tmp))
		moved := c
		moved.Start, moved.End = tmp, tmp+c.Len()
		in = append(in, moveCall(moved, w.Start))
		if c.Start <= insn && insn < c.End {
			p.inj.insn = insn - c.Start + w.Start
		}
		tmp = moved.End
	}
	return p.run(ctx, p.threads[0], append(out, in...))
}

// blobInsn finds a system call instruction in the blob, for the time in which a
// process without a vdso may have no other.
func (p *Process) blobInsn() (uint64, error) {
	a, ok := p.scanInsn(procfs.VMA{Start: p.inj.base, End: p.inj.base + blobLen})
	if !ok {
		return 0, fmt.Errorf("pid %d: no system call instruction in the blob", p.pid)
	}
	return a, nil
}

// leaveBlob takes the blob away. A process without a vdso has system call
// instructions in the memory of its own only from then on.
func (p *Process) leaveBlob(ctx context.Context, ps *ProcessState) error {
	err := p.unmapBlob(ctx)
	if err == nil && ps.vdsoOf() == nil {
		p.inj.insn, err = p.findInsn()
	}
	return err
}

// moveCall moves a mapping. The kernel goes by where its vdso is now.
func moveCall(v procfs.VMA, to uint64) call {
	return sys(unix.SYS_MREMAP, v.Start, v.Len(), v.Len(), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to).as("move %s to %#x", v.Path, to)
}

// replaceVdso moves this kernel's vdso out of the way, and puts a copy of the
// old one in its place. The old vdso's data is left out: nothing reads it.
func (r *Restorer) replaceVdso(ctx context.Context, p *Process, ps *ProcessState) error {
	maps, err := procfs.ReadMaps(p.host)
	if err != nil {
		return err
	}
	group := slices.DeleteFunc(slices.Clone(maps), func(v procfs.VMA) bool { return !isVdso(v.Path) })
	lo, hi := group[0].Start, group[len(group)-1].End
	to, err := roomFor(hi-lo, maps, ps.Maps)
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.pid, err)
	}
	var calls []call
	var base uint64
	for _, v := range group {
		calls = append(calls, moveCall(v, v.Start-lo+to))
		if v.Path == "[vdso]" {
			base = v.Start - lo + to
		}
		if v.Start <= p.inj.insn && p.inj.insn < v.End {
			defer func(insn uint64) { p.inj.insn = insn - lo + to }(p.inj.insn)
		}
	}
	code, err := patchedVdso(r.st.Vdso, r.vdso.bytes, base)
	if err != nil {
		return fmt.Errorf("pid %d: %w", p.pid, err)
	}
	w := ps.vdsoOf()
	size := w.End - w.Start
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	calls = append(calls, sys(unix.SYS_MMAP, w.Start, size, unix.PROT_READ|unix.PROT_WRITE, flags, ^uint64(0), 0).as("mmap for the old vdso"))
	if err := p.run(ctx, p.threads[0], calls); err != nil {
		return err
	}
	if err := p.writeMem(w.Start, code); err != nil {
		return err
	}
	return p.run(ctx, p.threads[0], []call{sys(unix.SYS_MPROTECT, w.Start, size, unix.PROT_READ|unix.PROT_EXEC).as("mprotect the old vdso")})
}

// roomFor finds a place in the middle of the widest gap between mappings, where
// neither they nor the program's next ones come.
func roomFor(size uint64, have []procfs.VMA, want []MapState) (uint64, error) {
	const first, last = 1 << 32, 1 << 46 // as freeAddress
	taken := []linux.PageRange{{Start: last, End: last}}
	for _, v := range have {
		taken = append(taken, linux.PageRange{Start: v.Start, End: v.End})
	}
	for _, m := range want {
		taken = append(taken, linux.PageRange{Start: m.Start, End: m.End})
	}
	slices.SortFunc(taken, func(a, b linux.PageRange) int { return cmp.Compare(a.Start, b.Start) })
	var at, width uint64
	end := uint64(first)
	for _, r := range taken {
		if start := min(r.Start, last); start > end && start-end > width {
			at, width = end, start-end
		}
		end = max(end, r.End)
	}
	page := uint64(os.Getpagesize())
	if width < size+2*page {
		return 0, errors.New("no address is free for this kernel's vdso")
	}
	return (at + (width-size)/2) &^ (page - 1), nil
}

// vdsoRounds is how often a thread is let out of the vdso before the image is
// taken as it is.
const vdsoRounds = 100

// leavesVdso lets a thread that was stopped within a function of the vdso run
// for a moment, and asks it to stop again. Only on this kernel could it go on
// from there. Never by single steps, at one of which the end of the agent would
// be its own.
func (p *Process) leavesVdso(th *Thread, round int) (bool, error) {
	if nr, in := th.Regs.SyscallNr(); in && nr != unix.SYS_GETRANDOM || round == vdsoRounds || th.stopSig != 0 {
		return false, nil
	}
	if p.vdso.Start == 0 {
		maps, err := procfs.ReadMaps(th.HostTID)
		if err != nil { // it was killed, as the next request will say
			return false, nil
		}
		for _, v := range maps {
			if v.Path == "[vdso]" {
				p.vdso = v
			}
		}
	}
	if pc := th.Regs.PC(); pc < p.vdso.Start || pc >= p.vdso.End {
		return false, nil
	}
	if err := cont(th.HostTID, 0); err != nil {
		return false, err
	}
	for begin := time.Now(); time.Since(begin) < time.Duration(20+round*7%100)*time.Microsecond; {
		// Not by the scheduler, to which this is no time.
	}
	return true, ptrace(ptraceInterrupt, th.HostTID, 0, 0)
}
