package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// keepWritten sees to what the tree has written to a file through its memory
// (mmap(2), MAP_SHARED), and which may be in the page cache only: the image
// refers to the file, and must not outlive what is in it. It keeps the file
// open until SyncFiles, when the program runs again.
func (s *mapSaver) keepWritten(p *Process, v *procfs.VMA, path string, st *unix.Stat_t) (*os.File, error) {
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	var f *os.File
	if err == nil {
		f, err = openSame(path, st)
	}
	if err != nil {
		return nil, refuse(p, describeVMA(v), "this user may not open its file again: %v", err)
	}
	s.st.written = append(s.st.written, f)
	return f, nil
}

// keepClaimed has a file whose mappings a plugin has claimed made durable too, once: as far as it can be
// opened, for its content is in the image.
func (s *mapSaver) keepClaimed(id inodeID) {
	f := s.others[id]
	if f.kept {
		return
	}
	f.kept = true
	s.others[id] = f
	if open, err := openSame(rootedAt(s.root, f.name), &unix.Stat_t{Dev: f.dev, Ino: id.ino}); err == nil {
		s.st.written = append(s.st.written, open)
	}
}

// leased says whether the tree has a write lease on the file, fcntl(2). An
// opening would break it, and it is given only where nothing but the one
// description has the file open: no mapping either that was made by another.
func (t *Tree) leased(st *unix.Stat_t) bool {
	for _, d := range t.files.regular(st.Ino) {
		if d.Stat.Dev != st.Dev {
			continue
		}
		for line := range bytes.Lines(d.FDInfo) {
			if bytes.Contains(line, []byte(" LEASE ")) && bytes.Contains(line, []byte(" WRITE ")) {
				return true
			}
		}
	}
	return false
}

// mayWrite says whether the tree has the file open for writing.
func (t *Tree) mayWrite(st *unix.Stat_t) bool {
	return slices.ContainsFunc(t.files.regular(st.Ino), func(d *description) bool {
		return d.Stat.Dev == st.Dev && d.Flags&(unix.O_WRONLY|unix.O_RDWR) != 0
	})
}

// openSame opens the file st.
func openSame(path string, st *unix.Stat_t) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	var now unix.Stat_t
	if err = unix.Fstat(fd, &now); err == nil && (now.Dev != st.Dev || now.Ino != st.Ino) {
		err = errors.New("another file has taken its name")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// SyncFiles makes durable what the tree has written to files through its
// memory, fdatasync(2). It needs no stopped tree.
func (st *State) SyncFiles(ctx context.Context) error {
	defer st.CloseFiles()
	for _, f := range st.written {
		if err := ctx.Err(); err != nil {
			return err
		}
		// EINVAL and EROFS: its file system has nothing to write back.
		err := unix.Fdatasync(int(f.Fd()))
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%s, which the program writes to through its memory: fdatasync: %w", f.Name(), err)
		}
	}
	return nil
}

// CloseFiles closes what SyncFiles would write back, and WriteFiles write.
func (st *State) CloseFiles() {
	for _, f := range st.written {
		f.Close()
	}
	for _, c := range st.carried {
		c.file.Close()
	}
	st.written, st.carried = nil, nil
}
