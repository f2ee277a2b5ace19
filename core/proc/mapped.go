package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// inodeID is what names a file while the host is up.
type inodeID struct{ dev, ino uint64 }

// statDev returns the device of a mapped file as stat(2) shows it, by which
// plugins and the image know files. /proc/PID/maps shows that of the whole file
// system instead, and on btrfs each subvolume has one of its own. It matters
// for files that are open too, of which mappings and descriptions stay one.
func (s *mapSaver) statDev(v *procfs.VMA) uint64 {
	shown := inodeID{v.Dev(), v.Ino}
	if shown.ino == 0 || s.t.files == nil {
		return shown.dev
	}
	dev, known := s.devs[shown]
	if !known {
		dev = s.t.files.statDev(shown)
		s.devs[shown] = dev
	}
	return dev
}

// statDev finds the open file that a mapping shows as its own. There is
// something to look at only where a file of the same number, but of another
// device, is open, and none of this one.
func (c *fileCollector) statDev(shown inodeID) uint64 {
	regular := c.regular(shown.ino)
	for _, d := range regular {
		if d.Stat.Dev == shown.dev {
			return shown.dev
		}
	}
	for _, d := range regular {
		if as, err := d.mappedAs(); err == nil && as == shown {
			return d.Stat.Dev
		}
	}
	return shown.dev
}

// regular lists the descriptions of regular files with an inode number. Without a
// collector there are none.
func (c *fileCollector) regular(ino uint64) []*description {
	if c == nil {
		return nil
	}
	if c.byIno == nil {
		c.byIno = map[uint64][]*description{}
		for _, d := range c.all {
			if d.Stat.Mode&unix.S_IFMT == unix.S_IFREG {
				c.byIno[d.Stat.Ino] = append(c.byIno[d.Stat.Ino], d)
			}
		}
	}
	return c.byIno[ino]
}

// mappedAs returns how a mapping of the file is shown.
func (d *description) mappedAs() (inodeID, error) {
	fd, err := linux.DupFrom(d.tid, d.fd)
	if err != nil {
		return inodeID{}, err
	}
	defer unix.Close(fd)
	as, err := shownAs(fd)
	if errors.Is(err, unix.EACCES) && !bytes.Contains(d.FDInfo, []byte(" LEASE ")) { // it is open for writing only
		if again, e := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); e == nil {
			as, err = shownAs(again)
			unix.Close(again)
		}
	}
	return as, err
}

// isOther says whether a path leads to another file than the one that is mapped.
// Where stat(2) shows other devices than maps do, it is mapped to compare: once for
// each device if the numbers of the files are the same in both. One that cannot be
// opened is taken for the mapped one.
func (s *mapSaver) isOther(path string, st *unix.Stat_t, v *procfs.VMA) bool {
	if st.Dev == v.Dev() {
		return st.Ino != v.Ino
	}
	if s.shown[st.Dev] == v.Dev() && st.Ino == v.Ino {
		return false
	}
	as, err := mappedFrom(path)
	if err != nil {
		return false
	}
	s.shown[st.Dev] = as.dev
	return as != inodeID{v.Dev(), v.Ino}
}

// mappedFrom is shownAs for the file at a path.
func mappedFrom(path string) (inodeID, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return inodeID{}, err
	}
	defer unix.Close(fd)
	return shownAs(fd)
}

// shownAs maps a page of a file that can be read, and returns how /proc/self/maps
// shows it.
func shownAs(fd int) (inodeID, error) {
	page, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return inodeID{}, fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(page) }()
	at := uint64(uintptr(unsafe.Pointer(&page[0])))
	var as inodeID
	err = procfs.VisitMaps(os.Getpid(), func(v *procfs.VMA) bool {
		if v.Start <= at && at < v.End {
			as = inodeID{v.Dev(), v.Ino}
		}
		return v.End <= at
	})
	return as, err
}
