package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
)

// Sums knows the sums of the files that a tree has mapped, so that in the pause
// nothing of them is read: stat(2) tells there whether they are still the same.
type Sums struct {
	known map[fileStamp]fileSum
}

type fileSum struct {
	sum uint64
	// sure: the stamp was old enough to tell later changes.
	sure bool
}

// fileStamp changes whenever a file does: nobody can set a time of change.
type fileStamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Time
}

func stampOf(st *unix.Stat_t) fileStamp {
	return fileStamp{st.Dev, st.Ino, st.Size, timeOf(st.Mtim), timeOf(st.Ctim)}
}

const (
	// Of larger files only size and time are compared: they take long to read.
	maxSummedCode = 256 << 20 // programs and libraries
	maxSummedData = 16 << 20
	// settled is the age from which a time of change tells later ones apart, on
	// any file system.
	settled = 2 * time.Second
)

// LookBeside begins to Look. The caller ends it with done.
func (s *Sums) LookBeside(root int, pids []int) (done func()) {
	var looking sync.WaitGroup
	looking.Go(func() { s.Look(root, pids) })
	return looking.Wait
}

// Look reads the files that processes have mapped, but for those that it knows.
// root is a process whose root directory is the tree's. What cannot be read is
// left out: its time is compared instead.
func (s *Sums) Look(root int, pids []int) {
	sizes := map[string]int64{} // which are read, by path
	for _, pid := range pids {
		vmas, err := procfs.ReadMaps(pid)
		if err != nil { // it has ended
			continue
		}
		for i := range vmas {
			v := &vmas[i]
			if v.Ino == 0 || v.Deleted || v.Shared && v.Write || !strings.HasPrefix(v.Path, "/") {
				continue
			}
			most := int64(maxSummedData)
			if v.Exec {
				most = maxSummedCode
			}
			sizes[v.Path] = max(sizes[v.Path], most)
		}
	}
	leases := sync.OnceValues(leasedInodes)
	before := s.known
	s.known = map[fileStamp]fileSum{}
	for path, most := range sizes {
		path = rootedAt(root, path)
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > most {
			continue
		}
		stamp := stampOf(&st)
		known := before[stamp]
		if !known.sure {
			if leased, err := leases(); err != nil || leased[st.Ino] {
				continue
			}
			var err error
			known.sure = time.Since(stamp.ctime) > settled
			if known.sum, err = sumFile(path, stamp); err != nil {
				continue
			}
		}
		s.known[stamp] = known
	}
}

// Learn takes the sums of files that are as they were when the image of st was made, on this host
// and since this boot: the first checkpoint need not read them again.
func (s *Sums) Learn(st *State) {
	if st.BootID == "" || st.BootID != bootID() {
		return
	}
	s.known = map[fileStamp]fileSum{}
	for i := range st.Refs {
		if f := &st.Refs[i]; f.Sure {
			s.known[f.stamp()] = fileSum{f.Sum, true}
		}
	}
}

// UseFiles tells the tree the sums of files that it may have mapped, and whether
// its image is to carry the files. remake has a restart make working directories again that are gone.
func (t *Tree) UseFiles(s *Sums, carry, remake bool) { t.sums, t.carry, t.remake = s, carry, remake }

// rootedAt is the path of a file of the tree's.
func rootedAt(root int, path string) string { return fmt.Sprintf("/proc/%d/root%s", root, path) }

// leasedInodes lists the inodes with leases, fcntl(2), which an opening would
// break. The kernel takes some 10 ms for it (see plugins/file, saveLocks).
func leasedInodes() (map[uint64]bool, error) {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil, err
	}
	out := map[uint64]bool{}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line)) // 1: LEASE ACTIVE WRITE PID MAJOR:MINOR:INODE 0 EOF
		if len(f) < 6 || f[1] != "LEASE" {
			continue
		}
		var major, minor uint32
		var ino uint64
		if _, err := fmt.Sscanf(f[5], "%x:%x:%d", &major, &minor, &ino); err == nil {
			out[ino] = true
		}
	}
	return out, nil
}

var errChanging = errors.New("it changes while it is read")

// sumFile sums the content of the file that had the stamp before and has it
// still.
func sumFile(path string, stamp fileStamp) (uint64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	sum, err := image.HashFile(f)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if stampOf(&st) != stamp {
		return 0, fmt.Errorf("%s: %w", path, errChanging)
	}
	return sum, nil
}

// newMappedFile describes a file that is not written to through memory.
func (s *Sums) newMappedFile(path string, st *unix.Stat_t) MappedFile {
	f := MappedFile{Path: path, Size: st.Size, Mtime: timeOf(st.Mtim), Ctime: timeOf(st.Ctim), Dev: st.Dev, Ino: st.Ino}
	if s != nil {
		known := s.known[stampOf(st)]
		f.Sum, f.Sure = known.sum, known.sure
	}
	return f
}

// stamp is that of the file when the image was made.
func (f *MappedFile) stamp() fileStamp { return fileStamp{f.Dev, f.Ino, f.Size, f.Mtime, f.Ctime} }

// same says whether the file at f's path, which is st now, has the bytes that it
// had when an image was made; here: since this boot of the machine.
func (f *MappedFile) same(st *unix.Stat_t, here bool) (bool, error) {
	stamp := stampOf(st)
	switch {
	case stamp.size != f.Size:
		return false, nil
	case here && stamp == f.stamp():
		return true, nil
	case f.Sum == 0:
		return stamp.mtime.Equal(f.Mtime), nil
	}
	// Another link to the file, or other permissions, are a change too, and leave the
	// bytes as they are.
	const tries = 5
	for i := 1; ; i++ {
		sum, err := sumFile(f.Path, stamp)
		if !errors.Is(err, errChanging) || i == tries {
			return sum == f.Sum, err
		}
		var now unix.Stat_t
		if err := unix.Stat(f.Path, &now); err != nil {
			return false, &os.PathError{Op: "stat", Path: f.Path, Err: err}
		}
		stamp = stampOf(&now)
	}
}
