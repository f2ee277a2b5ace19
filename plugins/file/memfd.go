package file

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/sys/unix"
)

// memfdPrefix begins the link of a memfd, memfd_create(2).
const memfdPrefix = "/memfd:"

// secretLink is the link of a memfd_secret(2), and the path of its mappings.
const secretLink = "/secretmem"

// memfdSeals are the seals that F_ADD_SEALS of fcntl(2) takes; F_SEAL_EXEC is
// of Linux 6.3.
const memfdSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE |
	unix.F_SEAL_FUTURE_WRITE | sealExec

const sealExec = 0x20 // F_SEAL_EXEC

const (
	maxMemfdName = 249 // MFD_NAME_MAX_LEN of the kernel
	maxHugePage  = 1 << 40
)

func (d *inode) validateMemfd() error {
	name, ok := strings.CutPrefix(string(d.Path), memfdPrefix)
	if !ok || len(name) > maxMemfdName {
		return fmt.Errorf("memfd of path %.300q", string(d.Path))
	}
	if d.Seals&^memfdSeals != 0 {
		return fmt.Errorf("seals %#x", d.Seals)
	}
	if d.Huge < 0 || d.Huge > maxHugePage || bits.OnesCount64(uint64(d.Huge)) > 1 || d.Huge > 0 && d.Size%d.Huge != 0 {
		return fmt.Errorf("%d bytes in huge pages of %d", d.Size, d.Huge)
	}
	return nil
}

// readMemfd asks for the seals, and for the size of pages.
func (d *inode) readMemfd(fd int) (err error) {
	if d.Seals, err = unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil {
		return fmt.Errorf("fcntl F_GET_SEALS: %w", err)
	}
	if unknown := d.Seals &^ memfdSeals; unknown != 0 {
		return fmt.Errorf("seals %#x are not known", unknown)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("fstatfs: %w", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		d.Huge = fs.Bsize
	}
	return nil
}

// makeMemfd makes it open to seals and sets F_SEAL_SEAL in the end, which is
// how one without MFD_ALLOW_SEALING looks.
func (d *inode) makeMemfd() (int, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | d.execFlag()
	if d.Huge > 0 {
		flags |= unix.MFD_HUGETLB | bits.TrailingZeros64(uint64(d.Huge))<<unix.MFD_HUGE_SHIFT
	}
	name := strings.TrimPrefix(string(d.Path), memfdPrefix)
	fd, err := unix.MemfdCreate(name, flags)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3, where there are no such flags
		fd, err = unix.MemfdCreate(name, flags&^(unix.MFD_EXEC|unix.MFD_NOEXEC_SEAL))
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	return fd, nil
}

// execFlag says whether it may be executed, so that vm.memfd_noexec does not decide that: with
// F_SEAL_EXEC its mode could not be as it was (memfd_create(2), mm/memfd.c).
func (d *inode) execFlag() int {
	if d.Mode&0o111 == 0 && d.Seals&sealExec != 0 {
		return unix.MFD_NOEXEC_SEAL
	}
	return unix.MFD_EXEC
}

// seal sets the seals. Mappings that they would forbid cannot be there:
// ReopenMap maps as the program did.
func (d *inode) seal(fd int) error {
	if d.Origin != originMemfd {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, d.Seals); err != nil {
		return fmt.Errorf("fcntl F_ADD_SEALS %#x: %w", d.Seals, err)
	}
	return nil
}
