package file

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/plugin"
)

// maxSearched is how many names are looked at for another link of a file.
const maxSearched = 100_000

// claimOtherLink finds another name of a file that has lost the one by which
// it was opened: it was linked elsewhere (link(2), or linkat(2) through
// /proc/self/fd) before that was removed or replaced. Only the file system
// knows, so the directory of the old name is searched, and what is below it.
func (p *Plugin) claimOtherLink(f plugin.OpenFile, s *file) error {
	dir := path.Dir(strings.TrimSuffix(f.Link, deletedSuffix))
	found := p.findLink(dir, f)
	if found == "" {
		return plugin.Refuse(f, "the name was removed or replaced, and its other links (%d) are not in %s or below", f.Stat.Nlink, dir)
	}
	s.Path = pathname(found)
	f.Link = found
	return p.checkPath(f, s)
}

// findLink returns the path of an entry of dir, or below it on the same file
// system, that is f; "" where there is none among the first maxSearched.
func (p *Plugin) findLink(dir string, f plugin.OpenFile) string {
	root := p.host.Root()
	search := linux.LinkSearch{Left: maxSearched}
	found := search.In(root+dir, uint64(f.Stat.Dev), true, func(_ string, st *unix.Stat_t) bool {
		return uint64(st.Dev) == uint64(f.Stat.Dev) && st.Ino == f.Stat.Ino
	})
	return strings.TrimPrefix(found, root)
}
