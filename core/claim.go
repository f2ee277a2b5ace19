package core

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimFiles finds an owner for every open file description, and for those
// that only such an object holds.
func (c *checkpoint) claimFiles(ctx context.Context) ([]proc.FileState, error) {
	files, err := c.tree.OpenFiles(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.checkFileLimit(files); err != nil {
		return nil, err
	}
	var out []proc.FileState
	var errs []error
	holders := map[int]plugin.OpenFile{}
	for i := 0; i < len(files); i++ {
		f := files[i]
		held := holder{tree: c.tree}
		f.Hold = held.hold
		owner, err := c.a.plugins.ClaimFile(ctx, f)
		for _, inner := range held.end() {
			files = append(files, inner)
			holders[inner.ID] = f
		}
		if _, refused := errors.AsType[*plugin.RefusalError](err); err != nil && !refused {
			return nil, errors.Join(append(errs, err)...) // more would fail likewise
		}
		if err != nil {
			errs = append(errs, refusedIn(err, holders, f))
			continue
		}
		out = append(out, proc.NewFileState(owner, f))
	}
	errs = append(errs, c.checkFileLimit(files))
	return out, errors.Join(errs...)
}

// ownFiles is what a restart needs beside the open files of a tree: for the image, the
// first process, its coordinator, the Go runtime.
const ownFiles = 20

// checkFileLimit refuses a tree with more open files than the agent may have: a restart
// makes all of them before it gives the processes theirs.
func (c *checkpoint) checkFileLimit(files []plugin.OpenFile) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	need := uint64(ownFiles + len(c.procs)) // and each one's memory
	for _, f := range files {
		need++
		if kind := f.Stat.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFCHR || f.Stat.Nlink == 0 {
			need++ // by what there is of it while it is made: the other end, the inode
		}
	}
	if need <= l.Max {
		return nil
	}
	return plugin.RefuseProcess(c.procs[0], "the open files of all processes",
		"too many open files: a restart has to open all %d of them at first, for which it needs %d descriptors, and may have %d (getrlimit(2), RLIMIT_NOFILE: `ulimit -Hn` before hiatus launch)",
		len(files), need, l.Max)
}

// refusedIn names the descriptor through which the user can find f, where f
// has none of its own: that of what holds it.
func refusedIn(err error, holders map[int]plugin.OpenFile, f plugin.OpenFile) error {
	var refusal *plugin.RefusalError
	if len(f.Refs) > 0 || !errors.As(err, &refusal) {
		return err
	}
	in := f
	for len(in.Refs) == 0 {
		in = holders[in.ID]
	}
	return &plugin.RefusalError{PID: in.Refs[0].PID, FD: in.Refs[0].FD,
		Object: refusal.Object + " (in " + in.Link + ")", Reason: refusal.Reason, Passing: refusal.Passing}
}

// holder collects what an object holds while it is being claimed. A plugin
// that has outlived its deadline comes too late.
type holder struct {
	tree  *proc.Tree
	mu    sync.Mutex
	over  bool
	fresh []plugin.OpenFile
}

func (h *holder) hold(fd int) (id int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return 0, errors.New("the claim is over")
	}
	f, fresh, err := h.tree.Hold(fd)
	if err != nil {
		return 0, err
	}
	if fresh {
		h.fresh = append(h.fresh, f)
	}
	return f.ID, nil
}

func (h *holder) end() []plugin.OpenFile {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	return h.fresh
}
