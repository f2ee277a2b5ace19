package linux

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UserfaultFlags make a userfaultfd(2) as an ordinary user may have it everywhere:
// without the faults of the kernel (UFFD_USER_MODE_ONLY, Linux 5.11).
const UserfaultFlags = unix.O_CLOEXEC | unix.O_NONBLOCK | 1

// From the kernel's include/uapi/linux/userfaultfd.h.
const (
	uffdAPI     = 0xaa
	uffdioAPI   = 0xc018aa3f // _IOWR(0xaa, 0x3f, struct uffdio_api)
	uffdioReg   = 0xc020aa00 // _IOWR(0xaa, 0x00, struct uffdio_register)
	uffdioCopy  = 0xc028aa03 // _IOWR(0xaa, 0x03, struct uffdio_copy)
	modeMissing = 1          // UFFDIO_REGISTER_MODE_MISSING
	modeWP      = 1 << 1     // UFFDIO_REGISTER_MODE_WP
)

// UserfaultStart shakes hands with a userfaultfd, UFFDIO_API(2const), which
// may be that of another process.
func UserfaultStart(fd int) error { return userfaultHello(fd, 0) }

func userfaultHello(fd int, features uint64) error {
	arg := &struct{ api, features, ioctls uint64 }{uffdAPI, features, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioAPI, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return fmt.Errorf("UFFDIO_API: %w", errno)
	}
	return nil
}

// UserfaultRegister has missing pages in [start, end) filled by UserfaultCopy,
// UFFDIO_REGISTER(2const).
func UserfaultRegister(fd int, start, end uint64) error {
	return userfaultRegister(fd, start, end, modeMissing)
}

func userfaultRegister(fd int, start, end, mode uint64) error {
	arg := &struct{ start, len, mode, ioctls uint64 }{start, end - start, mode, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioReg, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return fmt.Errorf("UFFDIO_REGISTER %#x-%#x: %w", start, end, errno)
	}
	return nil
}

// UserfaultCopy fills the missing pages at addr with src, which is whole pages,
// UFFDIO_COPY(2const): whatever their protection, and without a fault. It
// returns how many bytes were copied; an error is of what comes behind them,
// EEXIST where there is a page already.
func UserfaultCopy(fd int, addr uint64, src []byte) (n int, err error) {
	arg := &struct {
		dst       uint64
		src       unsafe.Pointer // 64 bits wide on all machines that we run on
		len, mode uint64
		copied    int64
	}{dst: addr}
	for n < len(src) {
		arg.dst, arg.src, arg.len, arg.copied = addr+uint64(n), unsafe.Pointer(&src[n]), uint64(len(src)-n), 0
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioCopy, uintptr(unsafe.Pointer(arg)))
		n += int(max(arg.copied, 0))
		if errno != 0 && !errors.Is(errno, unix.EAGAIN) && !errors.Is(errno, unix.EINTR) {
			err = fmt.Errorf("UFFDIO_COPY %#x: %w", addr+uint64(n), errno)
			break
		}
	}
	runtime.KeepAlive(src)
	return n, err
}
