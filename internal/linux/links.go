package linux

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// LinkSearch looks for names of files whose inodes are known: only the file
// system knows them, so directories are read. It reads each one once.
type LinkSearch struct {
	Left int // how many names it may look at still
	read map[string][]link
}

type link struct {
	name string
	stat unix.Stat_t
}

// In returns the path of an entry of dir that is the file in question, "" where
// it finds none. With below it goes on in the directories of the file system
// dev that are below dir.
func (s *LinkSearch) In(dir string, dev uint64, below bool, is func(name string, st *unix.Stat_t) bool) string {
	links := s.list(dir)
	for i := range links {
		if name := path.Join(dir, links[i].name); is(name, &links[i].stat) {
			return name
		}
	}
	for i := range links {
		st := &links[i].stat
		if !below || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Dev != dev {
			continue
		}
		if found := s.In(path.Join(dir, links[i].name), dev, below, is); found != "" {
			return found
		}
	}
	return ""
}

// list returns what dir has; nothing of one that is gone, or not readable.
func (s *LinkSearch) list(dir string) []link {
	if known, ok := s.read[dir]; ok || s.Left <= 0 {
		return known
	}
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(s.Left) // what was read before an error counts
	s.Left -= len(entries)
	if s.read == nil {
		s.read = map[string][]link{}
	}
	s.read[dir] = statAll(int(f.Fd()), entries)
	return s.read[dir]
}

func statAll(dir int, entries []fs.DirEntry) []link {
	out := make([]link, 0, len(entries))
	for _, e := range entries {
		l := link{name: e.Name()}
		if unix.Fstatat(dir, l.name, &l.stat, unix.AT_SYMLINK_NOFOLLOW) == nil {
			out = append(out, l)
		}
	}
	return out
}
