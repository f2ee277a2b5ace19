package event

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kcmpEpollTFD is KCMP_EPOLL_TFD of kcmp(2).
const kcmpEpollTFD = 7

// epollSlot is struct kcmp_epoll_slot: the toff'th registration of the number
// tfd in the epoll efd.
type epollSlot struct {
	efd, tfd, toff uint32
}

// isTarget says whether descriptor slot.tfd of the process with the given host
// pid is the very file that is registered. A number that is not open is EBADF,
// and not an error.
func (s epollSlot) isTarget(host int) (bool, error) {
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(host), uintptr(host), kcmpEpollTFD,
		uintptr(s.tfd), uintptr(unsafe.Pointer(&s)), 0)
	switch errno {
	case 0:
		return order == 0, nil
	case unix.EBADF:
		return false, nil
	}
	return false, os.NewSyscallError("kcmp KCMP_EPOLL_TFD", errno)
}
