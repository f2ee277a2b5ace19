package proc

import (
	"bytes"
	"context"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ptraceSeccompGetFilter   = 0x420c
	ptraceSeccompGetMetadata = 0x420d
	ptraceOSuspendSeccomp    = 1 << 21 // PTRACE_O_SUSPEND_SECCOMP

	seccompModeStrict    = 1
	seccompModeFilter    = 2
	seccompSetModeFilter = 1
	seccompTSync         = 1 // SECCOMP_FILTER_FLAG_TSYNC
	seccompLog           = 2 // SECCOMP_FILTER_FLAG_LOG

	filterInsnBytes = 8    // sizeof(struct sock_filter)
	maxFilterInsns  = 4096 // BPF_MAXINSNS
	maxFilters      = 1024
)

// SeccompState is what forbids system calls to a thread, seccomp(2).
type SeccompState struct {
	Strict  bool            `json:"strict,omitempty"`
	Filters []SeccompFilter `json:"filters,omitempty"` // in the order in which they were installed
}

// SeccompFilter is a program of classic BPF.
type SeccompFilter struct {
	Flags uint64 `json:"flags,omitempty"`
	Insns []byte `json:"insns"`
}

func (f SeccompFilter) equal(g SeccompFilter) bool {
	return f.Flags == g.Flags && bytes.Equal(f.Insns, g.Insns)
}

// suspendSeccomp lets a thread run calls of ours as long as it is traced. Only
// a privileged tracer may, and one that has no filter of its own.
func suspendSeccomp(tid int, options uintptr) error {
	return ptrace(ptraceSetOptions, tid, 0, options|ptraceOSuspendSeccomp)
}

// readSeccomp reads the filters of a thread (kernel/seccomp.c, get_nth_filter:
// number 0 is the oldest).
func readSeccomp(tid, mode int) (*SeccompState, error) {
	switch mode {
	case 0:
		return nil, nil
	case seccompModeStrict:
		return &SeccompState{Strict: true}, nil
	}
	s := new(SeccompState)
	for n := uintptr(0); ; n++ {
		size, err := seccompFilter(tid, n, nil)
		if err == unix.ENOENT && n > 0 {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("tid %d: read seccomp filter %d: %w", tid, n, err)
		}
		f := SeccompFilter{Insns: make([]byte, size*filterInsnBytes)}
		if _, err := seccompFilter(tid, n, f.Insns); err != nil {
			return nil, fmt.Errorf("tid %d: read seccomp filter %d: %w", tid, n, err)
		}
		meta := &[2]uint64{uint64(n)} // struct seccomp_metadata
		if err := ptrace(ptraceSeccompGetMetadata, tid, unsafe.Sizeof(*meta), uintptr(unsafe.Pointer(meta))); err == nil {
			f.Flags = meta[1] & seccompLog // EINVAL before Linux 4.16
		}
		s.Filters = append(s.Filters, f)
	}
}

// seccompFilter returns the number of instructions of a filter, and fills buf.
func seccompFilter(tid int, n uintptr, buf []byte) (int, error) {
	at := unsafe.Pointer(unsafe.SliceData(buf))
	size, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptraceSeccompGetFilter, uintptr(tid), n, uintptr(at), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(size), nil
}

// restrict gives the threads of a process, which has all of its capabilities
// still, their filters. What all threads have in common the first installs for
// all, so that it stays one and the same: SECCOMP_FILTER_FLAG_TSYNC asks for
// that.
func (r *Restorer) restrict(ctx context.Context, p *Process, ps *ProcessState) error {
	byTID := map[int]*SeccompState{}
	any := false
	for i := range ps.Threads {
		ts := &ps.Threads[i]
		byTID[ts.TID] = ts.Seccomp
		any = any || ts.Seccomp != nil
	}
	if !any {
		return nil
	}
	p.suspended = true
	for _, th := range p.threads {
		if err := suspendSeccomp(th.HostTID, traceOptions); err != nil {
			return fmt.Errorf("pid %d tid %d: suspend seccomp: %w", p.pid, th.TID, err)
		}
	}
	common := commonFilters(ps.Threads)
	if err := p.installFilters(ctx, p.threads[0], common, seccompTSync); err != nil {
		return err
	}
	for _, th := range p.threads {
		s := byTID[th.TID]
		if s == nil {
			continue
		}
		if err := p.installFilters(ctx, th, s.Filters[min(len(common), len(s.Filters)):], 0); err != nil {
			return err
		}
		if s.Strict {
			if err := p.run(ctx, th, []call{sys(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, seccompModeStrict).as("PR_SET_SECCOMP")}); err != nil {
				return err
			}
		}
	}
	return nil
}

// commonFilters returns the filters with which those of all threads begin.
func commonFilters(threads []ThreadState) []SeccompFilter {
	var common []SeccompFilter
	for i := range threads {
		s := threads[i].Seccomp
		if s == nil {
			return nil
		}
		if i == 0 {
			common = s.Filters
			continue
		}
		n := 0
		for n < min(len(common), len(s.Filters)) && common[n].equal(s.Filters[n]) {
			n++
		}
		common = common[:n]
	}
	return common
}

func (p *Process) installFilters(ctx context.Context, th *Thread, filters []SeccompFilter, flags uint64) error {
	for _, f := range filters {
		b := newArgs(p)
		prog := le.AppendUint64(nil, uint64(len(f.Insns)/filterInsnBytes)) // struct sock_fprog
		prog = le.AppendUint64(prog, b.put(f.Insns))
		install := sys(unix.SYS_SECCOMP, seccompSetModeFilter, f.Flags|flags, b.put(prog)).as("seccomp")
		if err := b.flush(ctx, th, []call{install}); err != nil {
			return err
		}
	}
	return nil
}

func (s *SeccompState) validate() error {
	if s == nil {
		return nil
	}
	if len(s.Filters) > maxFilters || s.Strict && len(s.Filters) > 0 || !s.Strict && len(s.Filters) == 0 {
		return fmt.Errorf("%d seccomp filters, strict %t", len(s.Filters), s.Strict)
	}
	for _, f := range s.Filters {
		if n := len(f.Insns); n == 0 || n%filterInsnBytes != 0 || n > maxFilterInsns*filterInsnBytes || f.Flags&^seccompLog != 0 {
			return fmt.Errorf("a seccomp filter of %d bytes, flags %#x", n, f.Flags)
		}
	}
	return nil
}
