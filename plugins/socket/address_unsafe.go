package socket

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketAddress returns the sockaddr that getsockname or getpeername (call)
// gives, empty where there is none.
func socketAddress(call uintptr, fd int) ([]byte, error) {
	var raw [unix.SizeofSockaddrAny + 16]byte
	size := uint32(len(raw))
	_, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&raw[0])), uintptr(unsafe.Pointer(&size)))
	switch {
	case errors.Is(errno, unix.ENOTCONN):
		return nil, nil
	case errno != 0:
		return nil, os.NewSyscallError("getsockname or getpeername", errno)
	}
	return append([]byte(nil), raw[:min(int(size), len(raw))]...), nil
}

func bindRaw(fd int, sockaddr []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sockaddr))), uintptr(len(sockaddr)))
	return callError("bind", errno)
}

func connectRaw(fd int, sockaddr []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sockaddr))), uintptr(len(sockaddr)))
	return callError("connect", errno)
}

// getRaw is getsockopt(2) for a value that also says what is asked for.
func getRaw(fd, level, opt int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&size)), 0)
	return callError("getsockopt", errno)
}

// callError is nil for 0, which is an error value like others.
func callError(call string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(call, errno)
}
