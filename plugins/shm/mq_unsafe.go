package shm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mqAttr is struct mq_attr, mq_getattr(3).
type mqAttr struct {
	Flags, Maximum, Size, Count int64
	_                           [4]int64
}

func mqGetattr(fd int) (a mqAttr, err error) {
	if _, _, errno := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return a, errno
	}
	return a, nil
}

// mqSend sends without waiting: its deadline has passed.
func mqSend(fd int, m posixMessage) error {
	var past unix.Timespec
	data := append([]byte(nil), m.Data...)
	data = append(data, 0) // an address for no bytes
	_, _, errno := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(m.Data)),
		uintptr(m.Priority), uintptr(unsafe.Pointer(&past)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// mqExists returns nil where the supervisor's IPC namespace has a queue of
// that name, ENOENT where it has none.
func mqExists(name string) error {
	b, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(b)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func mqUnlink(name string) error {
	b, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(b)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
