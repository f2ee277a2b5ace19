package proc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// TableState is the descriptor table of a thread that does not share that of
// its process, clone(2), CLONE_FILES.
type TableState struct {
	Files []OwnFile `json:"files"`
}

// OwnFile is a descriptor in the table of a thread.
type OwnFile struct {
	FD      int  `json:"fd"`
	ID      int  `json:"id"` // of the open file description
	Cloexec bool `json:"cloexec,omitempty"`
}

// ownsTable says whether th does not share the descriptors of its process.
func (p *Process) ownsTable(th *Thread) bool {
	c, err := linux.Kcmp(p.threads[0].HostTID, th.HostTID, linux.KCMP_FILES, 0, 0)
	return err == nil && c != 0
}

// checkTables refuses a table of descriptors that some threads of a process
// share and others not: it comes back for a thread alone.
func (p *Process) checkTables() (errs []error) {
	var owners []*Thread
	for _, th := range p.threads {
		if !p.ownsTable(th) {
			continue
		}
		if i := slices.IndexFunc(owners, func(x *Thread) bool {
			c, err := linux.Kcmp(x.HostTID, th.HostTID, linux.KCMP_FILES, 0, 0)
			return err == nil && c == 0
		}); i >= 0 {
			errs = append(errs, refuse(p, fmt.Sprintf("thread %d", th.TID), "it shares a descriptor table with thread %d, but not with the process", owners[i].TID))
		}
		owners = append(owners, th)
	}
	return errs
}

// tables lists the descriptors that only a thread has. Plugins see the open
// files without these: they take a descriptor for one of the process.
func (c *fileCollector) tables(ctx context.Context, p *Process) error {
	for _, th := range p.threads {
		if !p.ownsTable(th) {
			continue
		}
		fds, err := procfs.FDs(th.HostTID)
		if err != nil {
			return err
		}
		table := &TableState{}
		for _, fd := range fds {
			d, info, _, err := c.describe(th.HostTID, fd)
			if err != nil {
				return fmt.Errorf("thread %d fd %d: %w", th.TID, fd, err)
			}
			if info.Locked() { // its owner is the table: fs/locks.c, current->files
				return refuse(p, fmt.Sprintf("lock of thread %d on %s", th.TID, d.Link), "it is of a descriptor table that is not the process's (fcntl(2))")
			}
			cloexec, err := d.closesOnExec(ctx, p, th, fd, info)
			if err != nil {
				return fmt.Errorf("thread %d fd %d: %w", th.TID, fd, err)
			}
			table.Files = append(table.Files, OwnFile{FD: fd, ID: d.ID, Cloexec: cloexec})
		}
		if c.own == nil {
			c.own = map[int]*TableState{}
		}
		c.own[th.HostTID] = table
	}
	return nil
}

// ownFiles returns what OpenFiles has found for a thread, nil where it shares
// the table of its process.
func (t *Tree) ownFiles(th *Thread) *TableState {
	if t.files == nil {
		return nil
	}
	return t.files.own[th.HostTID]
}

// validateTables makes sure that threads have the open files of the image.
func (st *State) validateTables(ids map[int]bool) error {
	for i := range st.Processes {
		for j := range st.Processes[i].Threads {
			t := &st.Processes[i].Threads[j]
			if t.Files == nil {
				continue
			}
			if j == 0 {
				return fmt.Errorf("thread %d: a table of its own, which is the process's", t.TID)
			}
			seen := map[int]bool{}
			for _, f := range t.Files.Files {
				if !ids[f.ID] || f.FD < 0 || f.FD > maxFD || seen[f.FD] {
					return fmt.Errorf("thread %d: descriptor %d of open file %d", t.TID, f.FD, f.ID)
				}
				seen[f.FD] = true
			}
		}
	}
	return nil
}

// hasTables says whether a thread of the process has a table of its own.
func (ps *ProcessState) hasTables() bool {
	return slices.ContainsFunc(ps.Threads, func(t ThreadState) bool { return t.Files != nil })
}

// keepForThreads keeps the agent's descriptors of what only threads will have,
// until these exist.
func (r *Restorer) keepForThreads(fds map[int]int) error {
	r.later = map[int]int{}
	for i := range r.st.Processes {
		for _, t := range r.st.Processes[i].Threads {
			if t.Files == nil {
				continue
			}
			for _, f := range t.Files.Files {
				if _, kept := r.later[f.ID]; kept {
					continue
				}
				fd, err := unix.FcntlInt(uintptr(fds[f.ID]), unix.F_DUPFD_CLOEXEC, 3)
				if err != nil {
					return fmt.Errorf("open file %d: fcntl F_DUPFD_CLOEXEC: %w", f.ID, err)
				}
				r.later[f.ID] = fd
			}
		}
	}
	return nil
}

// installTables gives threads their own tables, and closes what the process
// had kept open for them.
func (r *Restorer) installTables(ctx context.Context, p *Process, ps *ProcessState) error {
	if !ps.hasTables() {
		return nil
	}
	for i := range ps.Threads {
		ts := &ps.Threads[i]
		if ts.Files == nil {
			continue
		}
		at := slices.IndexFunc(p.threads, func(th *Thread) bool { return th.TID == ts.TID })
		if at < 0 {
			return fmt.Errorf("pid %d: no thread %d", p.pid, ts.TID)
		}
		th := p.threads[at]
		err := p.run(ctx, th, []call{
			sys(unix.SYS_UNSHARE, unix.CLONE_FILES).as("unshare(CLONE_FILES)"),
			sys(unix.SYS_CLOSE_RANGE, 0, uint64(r.sockFD)-1, 0).as("close_range"),
			sys(unix.SYS_CLOSE_RANGE, uint64(r.sockFD)+2, lastFD, 0).as("close_range"),
		})
		if err != nil {
			return err
		}
		var list []installed
		for _, f := range ts.Files.Files {
			list = append(list, installed{f.FD, r.later[f.ID], f.Cloexec})
		}
		if err := errors.Join(r.install(ctx, p, th, list), p.run(ctx, th, r.closeOurs())); err != nil {
			return err
		}
	}
	return p.run(ctx, p.threads[0], r.closeOurs())
}

// closeOurs closes the descriptors by which the agent passes others.
func (r *Restorer) closeOurs() []call {
	return []call{sys(unix.SYS_CLOSE_RANGE, uint64(r.sockFD), uint64(r.sockFD)+1, 0).as("close_range")}
}
