package proc

import (
	"bytes"
	"context"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// Requests of prctl(2) that x/sys does not name.
const (
	prGetMDWE        = 66 // PR_GET_MDWE
	prSetMDWE        = 65
	prGetMemoryMerge = 68
	prSetMemoryMerge = 67
	prSetVMA         = 0x53564d41
	maxNodes         = 1024 // MAX_NUMNODES
	nodeBytes        = maxNodes / 8
	mpolDefault      = 0
	mpolFAddr        = 2 // MPOL_F_ADDR
)

// pfIOFlusher are the flags of PR_SET_IO_FLUSHER, which is only told to the
// privileged (PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE).
const pfIOFlusher = 0x00080000 | 0x00100000

// Results of PR_GET_SPECULATION_CTRL.
const (
	specPrctl  = 1 << 0 // PR_SPEC_PRCTL: the thread decides
	specEnable = 1 << 1
)

// attributeCalls ask for what a thread is told of itself only.
type attributeCalls struct {
	calls            []call
	tsc, mode, nodes uint64 // addresses of answers
}

func askAttributes(b *args) *attributeCalls {
	q := &attributeCalls{tsc: b.put(make([]byte, 4)), mode: b.put(make([]byte, 4)), nodes: b.put(make([]byte, nodeBytes))}
	q.calls = []call{
		sys(unix.SYS_PERSONALITY, 0xffffffff).as("personality"),
		sys(unix.SYS_PRCTL, unix.PR_MCE_KILL_GET, 0, 0, 0, 0).may(),
		sys(unix.SYS_PRCTL, unix.PR_GET_TSC, q.tsc).may(),
		sys(unix.SYS_PRCTL, unix.PR_GET_TAGGED_ADDR_CTRL, 0, 0, 0, 0).may(),
		sys(unix.SYS_GET_MEMPOLICY, q.mode, q.nodes, maxNodes+1, 0, 0).may(),
	}
	for kind := range len(AttrState{}.Speculation) {
		q.calls = append(q.calls, sys(unix.SYS_PRCTL, unix.PR_GET_SPECULATION_CTRL, uint64(kind), 0, 0, 0).may())
	}
	return q
}

// readAttributes fills in what calls, which are those of q, were answered. What
// the kernel or the architecture does not have is left out.
func (p *Process) readAttributes(th *Thread, q *attributeCalls, calls []call, a *AttrState) error {
	got := make([]byte, q.nodes+nodeBytes-q.tsc)
	if err := p.readMem(q.tsc, got); err != nil {
		return err
	}
	a.Personality = uint32(calls[0].ret)
	a.MCEKill = max(calls[1].ret, 0)
	if !calls[2].failed() {
		a.TSC = int64(le.Uint32(got))
	}
	a.Tagged = max(calls[3].ret, 0)
	if !calls[4].failed() {
		a.NUMA = newNUMAState(le.Uint32(got[q.mode-q.tsc:]), got[q.nodes-q.tsc:])
	}
	for kind := range a.Speculation {
		a.Speculation[kind] = max(calls[5+kind].ret, 0)
	}
	st, err := procfs.ReadTaskStat(p.host, th.HostTID)
	a.IOFlusher = st.Flags&pfIOFlusher == pfIOFlusher
	return err
}

func newNUMAState(mode uint32, nodes []byte) *NUMAState {
	if mode == mpolDefault {
		return nil
	}
	return &NUMAState{Mode: mode, Nodes: bytes.TrimRight(nodes, "\x00")}
}

// mask returns the arguments nodemask and maxnode of set_mempolicy(2).
func (n *NUMAState) mask(b *args) (at, maxnode uint64) {
	if len(n.Nodes) == 0 {
		return 0, 0
	}
	mask := make([]byte, nodeBytes)
	copy(mask, n.Nodes)
	return b.put(mask), maxNodes + 1
}

// setAttributes sets what differs from what the thread has. What needs
// privileges, or is not there on this host, is told.
func (r *Restorer) setAttributes(ctx context.Context, p *Process, th *Thread, want *AttrState) error {
	var now AttrState
	b := newArgs(p)
	q := askAttributes(b)
	err := b.flush(ctx, th, q.calls)
	if err == nil {
		err = p.readAttributes(th, q, q.calls, &now)
	}
	if err != nil {
		return err
	}
	var calls []call
	add := func(c call) { calls = append(calls, c.may()) }
	if want.MCEKill != now.MCEKill {
		add(sys(unix.SYS_PRCTL, unix.PR_MCE_KILL, unix.PR_MCE_KILL_SET, uint64(want.MCEKill), 0, 0).as("PR_MCE_KILL %d", want.MCEKill))
	}
	if want.TSC != now.TSC && want.TSC != 0 {
		add(sys(unix.SYS_PRCTL, unix.PR_SET_TSC, uint64(want.TSC)).as("PR_SET_TSC"))
	}
	if want.Tagged != now.Tagged {
		add(sys(unix.SYS_PRCTL, unix.PR_SET_TAGGED_ADDR_CTRL, uint64(want.Tagged), 0, 0, 0).as("PR_SET_TAGGED_ADDR_CTRL"))
	}
	if want.IOFlusher && !now.IOFlusher {
		add(sys(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0).as("PR_SET_IO_FLUSHER"))
	}
	for kind, v := range want.Speculation {
		if v&specPrctl != 0 && v != now.Speculation[kind] {
			add(sys(unix.SYS_PRCTL, unix.PR_SET_SPECULATION_CTRL, uint64(kind), uint64(v&^specPrctl), 0, 0).as("PR_SET_SPECULATION_CTRL %d", kind))
		}
	}
	if n := want.NUMA; n != nil {
		at, maxnode := n.mask(b)
		add(sys(unix.SYS_SET_MEMPOLICY, uint64(n.Mode), at, maxnode).as("set_mempolicy %#x", n.Mode))
	}
	if want.Personality != now.Personality {
		add(sys(unix.SYS_PERSONALITY, uint64(want.Personality)).as("personality %#x", want.Personality))
	}
	if err := b.flush(ctx, th, calls); err != nil {
		return err
	}
	for i := range calls {
		if err := calls[i].err(); err != nil {
			r.warn("pid %d tid %d: not as it was: %v", p.pid, th.TID, err)
		}
	}
	return nil
}
