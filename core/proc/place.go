package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/missing"
)

// checkPlace refuses directories that could not be entered again.
func (p *Process) checkPlace() (errs []error) {
	live := p.liveTID()
	if cwd, err := procfs.Cwd(live); err == nil && !strings.HasPrefix(cwd, "/") {
		errs = append(errs, refuse(p, "working directory "+cwd, "it is not visible from here"))
	}
	root, err := procfs.RootDir(live)
	if err != nil || root == "/" {
		return errs
	}
	if _, gone := goneMode(live, "root"); gone || !strings.HasPrefix(root, "/") {
		errs = append(errs, refuse(p, "root directory "+root, "it is deleted, or not visible from here"))
	}
	return errs
}

// goneMode returns the mode of a directory of a process, and whether it is
// deleted: one with that suffix in its name is not.
func goneMode(pid int, link string) (mode uint32, gone bool) {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/%s", pid, link), &st) != nil {
		return 0, false
	}
	return st.Mode & 0o7777, st.Nlink == 0
}

// readPlace reads the working and the root directory.
func (p *Process) readPlace(ps *ProcessState) (err error) {
	live := p.liveTID()
	if ps.Cwd, err = procfs.Cwd(live); err != nil {
		return err
	}
	if mode, gone := goneMode(live, "cwd"); gone {
		ps.Cwd, ps.CwdGone = strings.TrimSuffix(ps.Cwd, deletedSuffix), &mode
	}
	root, err := procfs.RootDir(live)
	if err == nil && root != "/" {
		ps.Root = root
	}
	return err
}

// placeChecker compares directories and program files with what their names lead to, for which it
// looks at each once.
type placeChecker struct {
	root   int // a process whose root directory is the tree's
	named  map[string]namedPlace
	places []PlaceState // working directories
}

// namedPlace is what a name leads to.
type namedPlace struct {
	inode inodeID
	err   error
}

func newPlaceChecker(root int) *placeChecker {
	return &placeChecker{root: root, named: map[string]namedPlace{}}
}

// check refuses those that a restart would not find by their names: a
// mount covers them, or theirs was unmounted with MNT_DETACH, umount(2).
func (c *placeChecker) check(p *Process, ps *ProcessState) error {
	live := p.liveTID()
	root := ps.Root
	if root == "" {
		root = "/"
	}
	err := c.compare(p, live, "root", root)
	if ps.ExeRef == 0 {
		err = errors.Join(err, c.compare(p, live, "exe", ps.Exe))
	}
	if ps.CwdGone == nil {
		err = errors.Join(err, c.compare(p, live, "cwd", ps.Cwd))
	}
	for i := range ps.Threads {
		if fs := ps.Threads[i].FS; fs != nil && fs.Of == ps.Threads[i].TID {
			err = errors.Join(err, c.compare(p, p.threads[i].HostTID, "cwd", fs.Cwd))
		}
	}
	return err
}

// compare looks at one of a thread.
func (c *placeChecker) compare(p *Process, tid int, link, name string) error {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/%s", tid, link), &st) != nil { // not for us to see: it is taken by its name
		return nil
	}
	there, known := c.named[name]
	if !known {
		var at unix.Stat_t
		there.err = unix.Stat(rootedAt(c.root, name), &at)
		there.inode = inodeID{at.Dev, at.Ino}
		c.named[name] = there
		if link == "cwd" && there.err == nil {
			c.places = append(c.places, PlaceState{name, at.Mode & 0o7777, int(at.Uid), int(at.Gid)})
		}
	}
	what := map[string]string{"cwd": "working directory", "root": "root directory", "exe": "program file"}[link]
	switch {
	case errors.Is(there.err, unix.EACCES):
		return refuse(p, what+" "+name, "this user may not come to it again: stat: %v", there.err)
	case there.err == nil && there.inode == inodeID{st.Dev, st.Ino}:
		return nil
	}
	return refuse(p, what+" "+name, "its name leads elsewhere: a mount covers it, or it is unmounted")
}

// checkDirectories makes sure that the directories are there, or can be made again.
func (st *State) checkDirectories(ps *ProcessState) error {
	var errs []error
	need := func(what, name string) {
		fi, err := os.Stat(name)
		if what == "working" && errors.Is(err, os.ErrNotExist) && st.remakes(name) {
			if !mayMake(name) {
				errs = append(errs, fmt.Errorf("pid %d: its working directory %s is gone, and this user may not make it again", ps.PID, name))
			}
			return
		}
		if err != nil || !fi.IsDir() {
			errs = append(errs, fmt.Errorf("pid %d: its %s directory %s is not there", ps.PID, what, name))
		}
	}
	if ps.CwdGone == nil {
		need("working", ps.Cwd)
	}
	for i := range ps.Threads {
		if fs := ps.Threads[i].FS; fs != nil && fs.Of == ps.Threads[i].TID {
			need("working", fs.Cwd)
		}
	}
	if ps.Root != "" {
		need("root", ps.Root)
	}
	return errors.Join(errs...)
}

func (st *State) remakes(name string) bool {
	return slices.ContainsFunc(st.Places, func(p PlaceState) bool { return p.Path == name })
}

// mayMake says whether the user may make a directory that is gone, and those above it.
func mayMake(name string) bool {
	for {
		name = path.Dir(name)
		fi, err := os.Stat(name)
		if err == nil {
			return fi.IsDir() && unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
}

// MakePlaces makes working directories again that are gone: before anything is opened in them. A
// restart that fails takes them away.
func (r *Restorer) MakePlaces() error {
	places := slices.SortedFunc(slices.Values(r.st.Places), func(a, b PlaceState) int { return cmp.Compare(len(a.Path), len(b.Path)) })
	for _, p := range places {
		made, err := missing.MakeAll(r.Root()+p.Path, missing.Directory{Mode: p.Mode, Owner: &missing.Owner{UID: p.UID, GID: p.GID}})
		r.folders = append(made, r.folders...)
		if err != nil {
			return fmt.Errorf("make the working directory %s again: %w", p.Path, err)
		}
		if len(made) > 0 {
			r.warn("the working directory %s was gone, and is made again", p.Path)
		}
	}
	return nil
}

// setPlace enters the working directory.
func (r *Restorer) setPlace(ctx context.Context, p *Process, ps *ProcessState) error {
	cwd := ps.Cwd
	if ps.CwdGone != nil {
		made, dir, err := r.makeGone(ps)
		defer missing.Remove(made)
		if err != nil {
			return fmt.Errorf("pid %d: working directory %s, which was deleted: %w", ps.PID, ps.Cwd, err)
		}
		cwd = dir
	}
	b := newArgs(p)
	return b.flush(ctx, p.threads[0], []call{sys(unix.SYS_CHDIR, b.str(cwd)).as("chdir %s", cwd)})
}

// setRoot enters the root directory. That comes when nothing is opened by its
// path in the process any more, and before its credentials go.
func (r *Restorer) setRoot(ctx context.Context, p *Process, ps *ProcessState) error {
	if ps.Root == "" {
		return nil
	}
	b := newArgs(p)
	return b.flush(ctx, p.threads[0], []call{sys(unix.SYS_CHROOT, b.str(ps.Root)).as("chroot %s", ps.Root)})
}

// makeGone makes a working directory again that was deleted, in its old place
// if possible. The caller removes all that was made, in that order.
func (r *Restorer) makeGone(ps *ProcessState) (made []string, cwd string, err error) {
	root := r.Root()
	for _, cwd := range []string{ps.Cwd, path.Join("/tmp", path.Base(ps.Cwd))} {
		if made, err = r.makeDirectory(root + cwd); err == nil {
			if cwd != ps.Cwd {
				r.warn("pid %d: its working directory %s, which was deleted, is made in %s", ps.PID, ps.Cwd, cwd)
			}
			return made, cwd, unix.Chmod(root+cwd, *ps.CwdGone)
		}
		missing.Remove(made)
	}
	return nil, "", err
}

// makeDirectory makes dir, which must not be there, with what is missing on the way to it, and
// lists what it has made, the innermost first.
func (r *Restorer) makeDirectory(dir string) (made []string, err error) {
	if made, err = missing.MakeAll(path.Dir(dir), missing.Directory{Mode: 0o700, Owner: &missing.Owner{UID: r.st.Uid, GID: r.st.Gid}}); err != nil {
		return made, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return made, err
	}
	return append([]string{dir}, made...), nil
}
