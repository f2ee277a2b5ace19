package proc

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

const (
	// maxLinks is how many names are looked at for another link of a file that is
	// known to have one, or else is refused.
	maxLinks = 100_000
	// maxGuesses is how many are in all checkpoint for files that may have one.
	maxGuesses = 10_000
)

// linkSaver finds other names of mapped files.
type linkSaver struct {
	found  map[inodeID]string // "": none
	mapped map[inodeID]string // by which other mappings of the tree know files; nil until it is asked for
	search linux.LinkSearch   // for those that may have one
}

// linkOf returns another name of the file of a shared mapping that shows one
// which is gone: it was linked elsewhere (link(2)), and the mapping must stay the
// file's. So does sem_open(3) of glibc, which gives a new semaphore its name when it
// is complete. "" where the file has no name, as far as can be seen.
func (s *mapSaver) linkOf(p *Process, v *procfs.VMA) (string, error) {
	file := inodeID{v.Dev(), v.Ino}
	found, known := s.links.found[file]
	if known || !s.mountedOn(v) {
		return found, nil
	}
	found, err := s.findLink(p, v)
	if err == nil {
		s.links.found[file] = found
	}
	return found, err
}

// mountedOn says whether v maps a file of a file system that is mounted: what the
// kernel makes for shared memory has no names.
func (s *mapSaver) mountedOn(v *procfs.VMA) bool {
	return v.Ino != 0 && s.filesystems()[v.Dev()] != ""
}

func (s *mapSaver) findLink(p *Process, v *procfs.VMA) (string, error) {
	if d := s.descriptionOf(v); d != nil {
		if s.names(d.Link, v) {
			return d.Link, nil
		}
		if d.Stat.Nlink > 0 && s.written[inodeID{v.Dev(), v.Ino}] {
			return s.searchLink(v, true), nil
		}
		return "", nil // its plugin finds the name, or refuses it
	}
	links, known := p.linksOf(v)
	if known && links == 0 {
		return "", nil
	}
	found := s.searchLink(v, known)
	if found == "" {
		found = s.mappedName(v)
	}
	if found == "" && known {
		return "", refuse(p, describeVMA(v), "the name was removed or replaced, and its other links (%d) are not in %s or below", links, path.Dir(v.Path))
	}
	return found, nil
}

// descriptionOf returns a description of the file that v maps, nil where the
// tree has none.
func (s *mapSaver) descriptionOf(v *procfs.VMA) *description {
	if s.t.files == nil {
		return nil
	}
	dev := s.statDev(v)
	for _, d := range s.t.files.regular(v.Ino) {
		if d.Stat.Dev == dev {
			return d
		}
	}
	return nil
}

// linksOf asks for the number of names of the file that v maps, which may be
// asked with CAP_CHECKPOINT_RESTORE only, proc_pid_map_files(5).
func (p *Process) linksOf(v *procfs.VMA) (n uint64, known bool) {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/map_files/%x-%x", p.liveTID(), v.Start, v.End), &st) != nil || st.Ino != v.Ino {
		return 0, false
	}
	return uint64(st.Nlink), true
}

// searchLink looks in the directory of the name that is gone; and below, where
// there is something to be found.
func (s *mapSaver) searchLink(v *procfs.VMA, certain bool) string {
	root := rootedAt(s.root, "")
	dir := root + path.Dir(v.Path)
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	search := &s.links.search
	if certain {
		search = &linux.LinkSearch{Left: maxLinks}
	}
	found := search.In(dir, st.Dev, certain, func(name string, st *unix.Stat_t) bool { return s.isFile(name, st, v) })
	return strings.TrimPrefix(found, root)
}

// mappedName returns the name by which another mapping of the tree has the file.
func (s *mapSaver) mappedName(v *procfs.VMA) string {
	if s.links.mapped == nil {
		s.links.mapped = s.t.mappedNames()
	}
	name := s.links.mapped[inodeID{v.Dev(), v.Ino}]
	if name == "" || !s.names(name, v) {
		return ""
	}
	return name
}

// mappedNames lists the files that the tree has mapped, shared, by a name that they have.
func (t *Tree) mappedNames() map[inodeID]string {
	names := map[inodeID]string{}
	for _, p := range t.procs {
		if p.zombie {
			continue
		}
		_ = procfs.VisitMaps(p.liveTID(), func(v *procfs.VMA) bool { // one that has ended has no say
			if v.Shared && v.Ino != 0 && !v.Deleted && strings.HasPrefix(v.Path, "/") {
				names[inodeID{v.Dev(), v.Ino}] = v.Path
			}
			return true
		})
	}
	return names
}

// names says whether a path of the tree's names the file that v maps.
func (s *mapSaver) names(name string, v *procfs.VMA) bool {
	name = rootedAt(s.root, name)
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && s.isFile(name, &st, v)
}

// isFile says whether the file st at a path is the one that v maps. On btrfs its
// device tells nothing, see statDev.
func (s *mapSaver) isFile(name string, st *unix.Stat_t, v *procfs.VMA) bool {
	switch {
	case st.Ino != v.Ino || st.Mode&unix.S_IFMT != unix.S_IFREG:
		return false
	case st.Dev == v.Dev():
		return true
	case s.t.leased(st):
		return false
	}
	f, err := openSame(name, st)
	if err != nil {
		return false
	}
	defer f.Close()
	as, err := shownAs(int(f.Fd()))
	return err == nil && as == inodeID{v.Dev(), v.Ino}
}
