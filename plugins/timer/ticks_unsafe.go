package timer

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tfdIOCSetTicks is TFD_IOC_SET_TICKS of timerfd_create(2). The kernel has it
// with CONFIG_CHECKPOINT_RESTORE.
const tfdIOCSetTicks = 0x40085400

func setTicks(fd int, ticks uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), tfdIOCSetTicks, uintptr(unsafe.Pointer(&ticks)))
	if errno != 0 {
		return os.NewSyscallError("ioctl TFD_IOC_SET_TICKS", errno)
	}
	return nil
}
