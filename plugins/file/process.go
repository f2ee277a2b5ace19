package file

import (
	"context"
	"fmt"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// inodeKey names a file while the host is up.
type inodeKey struct{ dev, ino uint64 }

// saving is what a checkpoint needs between its calls.
type saving struct {
	inodes    map[inodeKey]*inodeClaim
	sources   closers // of contents, until Resume
	openFiles bool    // the content of files with a name is saved too
	procs     map[int]bool
	pipes     map[inodeKey]*pipeClaim
	pipeOrder []*pipeClaim // in the order of claims
	ptys      map[uint32]*ptyClaim
	ptyOrder  []*ptyClaim
	held      closers // duplicates, until all is claimed

	locked     map[int][]lockedFile // by pid
	references []*reference
	complete   bool // the first SaveProcess has begun
}

// lockedFile is a description through which a process holds POSIX locks.
type lockedFile struct {
	fd      int
	link    string
	foreign bool // it is not the plugin's
}

func (s *saving) reset() {
	s.held.close()
	s.sources.close()
	*s = saving{
		inodes: map[inodeKey]*inodeClaim{},
		procs:  map[int]bool{},
		pipes:  map[inodeKey]*pipeClaim{},
		ptys:   map[uint32]*ptyClaim{},
		locked: map[int][]lockedFile{},
	}
}

// note keeps which processes hold POSIX locks through f.
func (s *saving) note(f plugin.OpenFile, foreign bool) {
	seen := map[int]bool{}
	for _, r := range f.Refs {
		if r.Locked && !seen[r.PID] {
			seen[r.PID] = true
			s.locked[r.PID] = append(s.locked[r.PID], lockedFile{r.FD, f.Link, foreign})
		}
	}
}

// reference is an id of the host's in the state of an object. It becomes what
// the program sees when the process, or a member of the group, is saved.
type reference struct {
	group   bool // a process group; else a process or
	thread  bool // a thread
	host    int
	dst     *int
	missing error // where no process of the tree has it; nil: then *dst stays 0
	found   bool
}

func (s *saving) resolve(r reference) { s.references = append(s.references, &r) }

// unresolved returns the refusal of an id that no process has.
func (s *saving) unresolved() error {
	for _, r := range s.references {
		if s.complete && !r.found && r.missing != nil {
			return r.missing
		}
	}
	return nil
}

// identify resolves the references to proc and its group.
func (s *saving) identify(proc plugin.Process) error {
	var hostGroup, group int
	for _, r := range s.references {
		if r.thread {
			for _, t := range proc.Threads() {
				if r.host == t.HostTID {
					*r.dst, r.found = t.TID, true
				}
			}
		} else if !r.group && r.host == proc.HostPID() {
			*r.dst, r.found = proc.PID(), true
		}
		if !r.group || r.found {
			continue
		}
		if group == 0 {
			var err error
			if hostGroup, group, err = procparse.ProcessGroup(proc.HostPID()); err != nil {
				return fmt.Errorf("pid %d: %w", proc.PID(), err)
			}
		}
		if r.host == hostGroup {
			*r.dst, r.found = group, true
		}
	}
	return nil
}

// SaveProcess completes the claims of the checkpoint when it is the first,
// and saves what belongs to the process.
func (p *Plugin) SaveProcess(ctx context.Context, proc plugin.Process) error {
	if !p.saving.complete {
		p.saving.complete = true // also where it fails: what it needs is closed then
		if err := p.completeClaims(ctx); err != nil {
			return err
		}
	}
	if err := p.saving.identify(proc); err != nil {
		return err
	}
	return p.saveLocks(proc)
}

// completeClaims saves what only all claims together show.
func (p *Plugin) completeClaims(ctx context.Context) error {
	defer p.saving.held.close()
	if err := p.finishPipes(); err != nil {
		return err
	}
	return p.peekPtys(ctx)
}

// RestoreProcess makes what belongs to the process, from within it. The
// plugin's own ends of pipes and ptys are closed first: who registers or
// signals what happens to a description, in Running, must not tell of that.
func (p *Plugin) RestoreProcess(ctx context.Context, proc plugin.Process) error {
	p.making.ends.close()
	if err := p.restoreTTY(ctx, proc); err != nil {
		return err
	}
	return p.restoreLocks(ctx, proc)
}

// finish does what needs all threads, and what no other plugin may be behind:
// of those that hear of Running, this one is the last.
func (p *Plugin) finish(ctx context.Context, procs []plugin.Process) error {
	if err := p.finishPtys(); err != nil {
		return err
	}
	for _, proc := range procs {
		if err := p.restoreAsync(ctx, proc); err != nil {
			return err
		}
		// Another plugin may have closed a descriptor of a locked file.
		if err := p.restoreLocks(ctx, proc); err != nil {
			return err
		}
	}
	return p.finishInodes()
}

// making is what a restart has made so far.
type making struct {
	anchors  closers     // of inodes
	inodes   map[int]int // anchors by index
	ends     closers     // anchors of pipes
	huge     []*linux.HugeFile
	pipes    map[int]pipeAnchors
	ptys     map[int]*ptyAnchors
	async    map[int][]asyncFile // by pid
	terminal bool                // its settings are in force
	// smallPipes: there was a pipe that could not have its capacity.
	smallPipes bool
}

// asyncFile is a description to set, and its number in the process.
type asyncFile struct {
	fd   int
	file *file
}

func (m *making) reset() {
	m.anchors.close()
	m.ends.close()
	for _, a := range m.ptys {
		a.close()
	}
	for _, h := range m.huge {
		h.Close()
	}
	*m = making{
		inodes: map[int]int{},
		pipes:  map[int]pipeAnchors{},
		ptys:   map[int]*ptyAnchors{},
		async:  map[int][]asyncFile{},
	}
}

func (m *making) noteAsync(f plugin.OpenFile, s *file) {
	if s.Async != nil && len(f.Refs) > 0 {
		r := f.Refs[0]
		m.async[r.PID] = append(m.async[r.PID], asyncFile{r.FD, s})
	}
}
