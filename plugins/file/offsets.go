package file

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func (s *file) seek(fd int) error {
	if _, err := unix.Seek(fd, s.Pos, unix.SEEK_SET); err != nil {
		return fmt.Errorf("%s: lseek to %d: %w", s.Path, s.Pos, err)
	}
	return nil
}

// offsets are those of files of /proc, by duplicates of their descriptors, which are set when the tree
// is complete: at an lseek(2) the kernel makes what the next read(2) shows (fs/seq_file.c, traverse).
type offsets map[int]*file

func (o *offsets) later(fd int, s *file) error {
	held, err := dup(fd)
	if err != nil {
		return err
	}
	if *o == nil {
		*o = offsets{}
	}
	(*o)[held] = s
	return nil
}

func (o *offsets) close() {
	for fd := range *o {
		unix.Close(fd)
	}
	*o = nil
}
