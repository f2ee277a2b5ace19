package event

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl_eventpoll(2).
const (
	epiocSParams = 0x40088a01 // EPIOCSPARAMS
	epiocGParams = 0x80088a02 // EPIOCGPARAMS
)

// epollParams is struct epoll_params. Its last byte must be 0.
type epollParams struct {
	Usecs  uint32 `json:"busy_poll_usecs"`
	Budget uint16 `json:"busy_poll_budget"`
	Prefer uint8  `json:"prefer_busy_poll"`
	pad    uint8
}

func getEpollParams(fd int) (p epollParams, err error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), epiocGParams, uintptr(unsafe.Pointer(&p)))
	if errno != 0 {
		return p, os.NewSyscallError("ioctl EPIOCGPARAMS", errno)
	}
	return p, nil
}

func setEpollParams(fd int, p epollParams) error {
	p.pad = 0
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), epiocSParams, uintptr(unsafe.Pointer(&p)))
	if errno != 0 {
		return os.NewSyscallError("ioctl EPIOCSPARAMS", errno)
	}
	return nil
}
