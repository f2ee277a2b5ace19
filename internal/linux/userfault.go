package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
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
	uffdioUnreg = 0x8010aa01 // _IOR(0xaa, 0x01, struct uffdio_range)
	uffdioWake  = 0x8010aa02 // _IOR(0xaa, 0x02, struct uffdio_range)
	uffdioZero  = 0xc020aa04 // _IOWR(0xaa, 0x04, struct uffdio_zeropage)
	uffdioWP    = 0xc018aa06 // _IOWR(0xaa, 0x06, struct uffdio_writeprotect)
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

// UserfaultZero fills the missing pages in [start, end) with zeros,
// UFFDIO_ZEROPAGE(2const), and leaves out those that are there.
func UserfaultZero(fd int, start, end uint64) error {
	arg := &struct {
		start, len, mode uint64
		zeroed           int64
	}{}
	for start < end {
		arg.start, arg.len, arg.zeroed = start, end-start, 0
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioZero, uintptr(unsafe.Pointer(arg)))
		start += uint64(max(arg.zeroed, 0))
		switch errno {
		case 0, unix.EAGAIN, unix.EINTR:
		case unix.EEXIST:
			start += uint64(os.Getpagesize())
		default:
			return fmt.Errorf("UFFDIO_ZEROPAGE %#x: %w", start, errno)
		}
	}
	return nil
}

// UserfaultWake lets threads go on that wait for a page in [start, end),
// UFFDIO_WAKE(2const).
func UserfaultWake(fd int, start, end uint64) error {
	return userfaultRange(fd, uffdioWake, "UFFDIO_WAKE", start, end)
}

// UserfaultUnregister undoes UserfaultRegister, UFFDIO_UNREGISTER(2const).
func UserfaultUnregister(fd int, start, end uint64) error {
	return userfaultRange(fd, uffdioUnreg, "UFFDIO_UNREGISTER", start, end)
}

func userfaultRange(fd int, request uintptr, name string, start, end uint64) error {
	arg := &struct{ start, len uint64 }{start, end - start}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return fmt.Errorf("%s %#x-%#x: %w", name, start, end, errno)
	}
	return nil
}

// UserfaultMessage is the size of what a userfaultfd says: struct uffd_msg.
const UserfaultMessage = 32

// UserfaultAddress returns where the fault is that a message tells of.
func UserfaultAddress(msg []byte) (addr uint64, ok bool) {
	const pagefault = 0x12 // UFFD_EVENT_PAGEFAULT
	if len(msg) < UserfaultMessage || msg[0] != pagefault {
		return 0, false
	}
	return binary.LittleEndian.Uint64(msg[16:]), true
}
