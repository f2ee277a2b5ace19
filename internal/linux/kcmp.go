package linux

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Kcmp compares, kcmp(2).
const (
	KCMP_FILE      = 0 // the open file descriptions of descriptors idx1 and idx2
	KCMP_VM        = 1 // address spaces
	KCMP_FILES     = 2 // tables of descriptors
	KCMP_FS        = 3 // root, working directory and umask
	KCMP_SIGHAND   = 4 // tables of signal dispositions
	KCMP_IO        = 5 // I/O contexts
	KCMP_SYSVSEM   = 6 // lists of System V semaphore undo operations
	KCMP_EPOLL_TFD = 7 // a descriptor with a target of an epoll instance: KcmpEpollTfd
)

// Kcmp compares kernel objects of two threads, kcmp(2). It returns 0 where
// they share one object, 1 or 2 where the first is less or greater in an order
// that stays until the next boot, so that a list can be sorted, and 3 where
// they differ without order. idx1 and idx2 matter to KCMP_FILE only.
//
// The caller needs the permission to trace both. The error is EBADF for a
// descriptor that is not open, ESRCH for a thread that is gone, ENOSYS for a
// kernel without CONFIG_KCMP.
func Kcmp(pid1, pid2, typ int, idx1, idx2 uint64) (int, error) {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(typ), uintptr(idx1), uintptr(idx2), 0)
	if errno != 0 {
		return -1, fmt.Errorf("kcmp: type %d of pid %d (%d) and pid %d (%d): %w", typ, pid1, idx1, pid2, idx2, errno)
	}
	return int(r), nil
}

// EpollSlot names a target of an epoll instance: struct kcmp_epoll_slot.
type EpollSlot struct {
	EFD  uint32 // descriptor of the epoll instance
	TFD  uint32 // number that the target had when it was added
	TOff uint32 // which, of several targets added under that number: 0 for the first
}

// KcmpEpollTfd compares the open file description of descriptor fd of pid1
// with a target of an epoll instance of pid2, which may have been closed under
// its number since. The result is as of Kcmp. The error is ENOENT where the
// instance has no such target.
func KcmpEpollTfd(pid1, fd, pid2 int, slot EpollSlot) (int, error) {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), KCMP_EPOLL_TFD, uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	if errno != 0 {
		return -1, fmt.Errorf("kcmp: pid %d fd %d and target %d of epoll pid %d fd %d: %w", pid1, fd, slot.TFD, pid2, slot.EFD, errno)
	}
	return int(r), nil
}
