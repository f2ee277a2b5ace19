package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// agent supervises one process tree. The first of a computation embeds its
// coordinator.
type agent struct {
	opts    Options
	log     zerolog.Logger
	tr      *proc.Tracer
	sleeps  *proc.Sleeps
	plugins *pluginSet
	where   *surroundings
	meeting *meetingPoint
	term    *terminal // nil: none
	signals func()    // ends what takeErrors does
	// sharesGroup: the command has the agent's own process group, and gets a
	// terminal's signals itself.
	sharesGroup bool
	userNS      string // the tree's user namespace, where Launch made one

	computation string
	command     []string
	cwd         string
	name        string // of the computation
	dir         string // of its generations
	place       membership

	// sequence is held during a checkpoint, up to Finish, during a check, and
	// until the tree runs.
	sequence sync.Mutex
	standing sync.Mutex // held while the tree stands still
	held     *heldTree
	// storeSpeed is how fast the directory took the last image, in bytes a
	// second; 0: unknown.
	storeSpeed float64
	chain      chain
	surveyed   *proc.Survey      // of the last generation, if it was written; or nil
	unsure     bool              // a checkpoint has failed, perhaps for a survey of the one before
	advised    int               // checkpoints in a row that were given up for proc.ErrAdvised
	sums       proc.Sums         // of mapped files
	groups     map[string]bool   // control groups that were warned of
	result     coord.AgentResult // of the checkpoint whose Finish is to come
	toldWhy    bool              // that this agent has given it up
	released   chan struct{}     // holds a value after a tree was let go
	uses       inUse

	mu   sync.Mutex // of what follows
	tree treeRoots  // its fields but ended change once: when the tree is there
	// interruption gives a restart up whose program does not run; nil: there is none.
	interruption *interruption
	// arrival is memory that comes while the tree runs; nil: it has all.
	arrival *proc.Arrival
}

// treeRoots is where the agent finds its processes.
type treeRoots struct {
	parent int // host pid whose children are the roots: the agent, or the reaper of a restored tree
	reaper int // parent as the program sees it
	// session is the one in which the tree was launched, as the program
	// sees it.
	session int
	main    int // host pid of the command's own process
	// mainPID is main as the program sees it, by which a restored tree
	// reports it.
	mainPID int
	ended   *int // wait status of main, once it has ended
	reports *os.File
}

// newAgent makes the parts that launch and restart have in common. It has no
// effect outside this process.
func newAgent(o Options) (*agent, error) {
	a := &agent{opts: o, log: o.Log(""), where: newSurroundings(), meeting: &meetingPoint{}, sleeps: proc.NewSleeps(),
		released: make(chan struct{}, 1), place: membership{leaving: make(chan struct{})}}
	var err error
	a.plugins, err = newPluginSet(o.Plugins, func(d plugin.Definition) plugin.Host {
		return newPluginHost(d, o.Log(d.Name), o.PluginConfig, a.where, a.meeting)
	}, o.PluginTimeout, o.Log)
	if err != nil {
		return nil, err
	}
	if !o.Detached {
		a.term = openTerminal()
	}
	if a.term != nil {
		a.where.setTerminal(a.term.fd)
	}
	if o.Incremental {
		a.chain.dirty = proc.NewDirty()
	}
	a.tr = proc.NewTracer()
	a.signals = takeErrors()
	return a, nil
}

// newComputation returns a fresh id.
func newComputation() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}

func (a *agent) close() {
	a.leave()
	if a.term != nil {
		a.term.close()
	}
	a.chain.close()
	a.tr.Close()
	a.uses.close()
	a.signals()
}

// ended returns the wait status of the command's own process, nil while it
// lives.
func (a *agent) ended() *int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tree.ended
}

// adopt enters the tree.
func (a *agent) adopt(t treeRoots) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tree = t
}

// whereTree returns where the tree is; its parent is 0 as long as there is none.
func (a *agent) whereTree() treeRoots {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tree
}

// roots lists the processes that have no parent in the tree.
func (a *agent) roots() ([]int, error) {
	parent := a.whereTree().parent
	if parent == 0 {
		return nil, nil
	}
	pids, err := procfs.Children(parent)
	if procfs.IsGone(err) { // the reaper ends with its last child
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("children of %d: %w", parent, err)
	}
	return slices.DeleteFunc(pids, a.tr.IsCopy), nil
}

// surroundings tells the engine where the tree lives.
func (a *agent) surroundings() proc.Surroundings {
	s := proc.Surroundings{Reference: a.tree.parent, UserNamespace: a.userNS, Reaper: a.tree.reaper, Session: a.tree.session}
	if a.term != nil {
		s.Terminal = a.term.dev
	}
	return s
}

// all lists the host pids of the whole tree, parents first.
func (a *agent) all() ([]int, error) {
	pids, err := a.roots()
	for i := 0; i < len(pids); i++ {
		children, err := procfs.Children(pids[i])
		if err != nil && !procfs.IsGone(err) {
			return nil, err
		}
		pids = append(pids, children...)
	}
	return pids, err
}

// Status implements coord.Handler.
func (a *agent) Status(context.Context) (coord.AgentStatus, error) {
	host, _ := os.Hostname()
	st := coord.AgentStatus{Host: host, PID: os.Getpid(), Log: a.opts.LogFile}
	for _, p := range a.plugins.Infos() {
		st.Plugins = append(st.Plugins, p.Name)
	}
	st.Arriving = a.arriving()
	pids, err := a.all()
	if err != nil {
		return st, err
	}
	inner, reaper := map[int]int{}, a.whereTree().reaper
	for _, pid := range pids {
		s, err := procfs.ReadStatus(pid)
		if err != nil {
			continue // it has ended
		}
		inner[pid] = s.InnerPID()
		ps := coord.ProcessStatus{PID: s.InnerPID(), HostPID: pid, PPID: reaper, Threads: s.Threads,
			State: string(s.State), Command: s.Name}
		if p, ok := inner[s.PPid]; ok {
			ps.PPID = p
		}
		st.Processes = append(st.Processes, ps)
	}
	return st, nil
}

func (a *agent) lateMemory() *proc.Arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrival
}

// arriving tells how much of the tree's memory is there, nil when all is.
func (a *agent) arriving() *coord.Arriving {
	arrival := a.lateMemory()
	if arrival == nil {
		return nil
	}
	select {
	case <-arrival.Over():
		return nil
	default:
		done, total := arrival.Progress()
		return &coord.Arriving{Done: done, Total: total}
	}
}

// awaitMemory waits until the tree has all its memory: only then it can be
// stopped.
func (a *agent) awaitMemory(ctx context.Context) error {
	arrival := a.lateMemory()
	if arrival == nil {
		return nil
	}
	select {
	case <-arrival.Over():
		return arrival.Err()
	case <-ctx.Done():
		return fmt.Errorf("the memory of the restart is still on its way: %w", context.Cause(ctx))
	}
}

// Kill implements coord.Handler. SIGKILL is sent until nothing is left. What would end
// a program gives up a restart whose program does not run yet.
func (a *agent) Kill(ctx context.Context, sig syscall.Signal) error {
	if a.whereTree().parent == 0 {
		return a.killEarly(sig)
	}
	for {
		pids, err := a.all()
		if err != nil {
			return err
		}
		left := 0
		var errs []error
		for _, pid := range pids {
			st, err := procfs.ReadStat(pid)
			if err != nil || st.State == 'Z' && st.NumThreads <= 1 { // not a leader that has left threads
				continue
			}
			left++
			if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
				errs = append(errs, fmt.Errorf("pid %d: kill: %w", pid, err))
			}
		}
		if err := errors.Join(errs...); err != nil || sig != unix.SIGKILL || left == 0 {
			return err
		}
		// A process that was forked meanwhile is met in the next round; the
		// killed need a moment to die.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

var _ coord.Handler = (*agent)(nil)
