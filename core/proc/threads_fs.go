package proc

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// ownFS describes the working directory and mask of file modes of a thread that
// does not share those of its process, clone(2), CLONE_FS. It returns nil for
// one that does.
func (p *Process) ownFS(th *Thread) (*FSState, error) {
	first := slices.IndexFunc(p.threads, func(x *Thread) bool {
		r, err := linux.Kcmp(x.HostTID, th.HostTID, linux.KCMP_FS, 0, 0)
		return x == th || err == nil && r == 0
	})
	if first == 0 {
		return nil, nil
	}
	s, err := p.statusOf(th)
	if err != nil {
		return nil, err
	}
	root, err := procfs.RootDir(th.HostTID)
	if err != nil {
		return nil, err
	}
	cwd, err := procfs.Cwd(th.HostTID)
	if root != "/" || strings.HasSuffix(cwd, " (deleted)") {
		return nil, refuse(p, fmt.Sprintf("thread %d", th.TID), "its own root %s or working directory %s is deleted or changed by chroot(2)", root, cwd)
	}
	return &FSState{Of: p.threads[first].TID, Cwd: cwd, Umask: s.Umask}, err
}

// parentOf returns the thread by which a thread is made, and whether they share
// CLONE_FS: the first of those that share one is made by the first of all.
func parentOf(p *Process, ts *ThreadState) (parent *Thread, flags uint64) {
	if ts.FS == nil {
		return p.threads[0], threadFlags
	}
	for _, th := range p.threads[1:] {
		if th.TID == ts.FS.Of {
			return th, threadFlags
		}
	}
	return p.threads[0], threadFlags &^ unix.CLONE_FS
}

// fsCalls give the first of the threads that share a working directory what
// they share.
func fsCalls(b *args, ts *ThreadState) []call {
	if ts.FS == nil || ts.FS.Of != ts.TID {
		return nil
	}
	return []call{
		sys(unix.SYS_CHDIR, b.str(ts.FS.Cwd)).as("chdir %s", ts.FS.Cwd),
		sys(unix.SYS_UMASK, uint64(ts.FS.Umask)),
	}
}

// validateFS makes sure that the threads that share are led by one of them.
func validateFS(p *ProcessState) error {
	known := map[int]bool{}
	for i := range p.Threads {
		t := &p.Threads[i]
		if t.FS == nil {
			continue
		}
		if i == 0 || !known[t.FS.Of] && t.FS.Of != t.TID || !cleanPath(t.FS.Cwd) {
			return fmt.Errorf("thread %d: working directory %.100q shared with thread %d", t.TID, t.FS.Cwd, t.FS.Of)
		}
		known[t.FS.Of] = true
	}
	return nil
}
