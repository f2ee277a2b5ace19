package socket

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerName returns sun_path of the peer, also of one that has been closed.
// unix.Getpeername would cut an abstract name at its second zero byte.
func peerName(fd int) ([]byte, error) {
	var sa unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.Syscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return nil, os.NewSyscallError("getpeername", errno)
	}
	n := int(size) - int(unsafe.Offsetof(sa.Path))
	name := make([]byte, max(0, min(n, len(sa.Path))))
	for i := range name {
		name[i] = byte(sa.Path[i])
	}
	return trimName(name), nil
}

// hasFilter says whether a program is attached, SO_ATTACH_FILTER or
// SO_ATTACH_BPF of socket(7). Asked with no room, SO_GET_FILTER gives the
// length of a classic one; for the other kind it is EACCES.
func hasFilter(fd int) (bool, error) {
	size := uint32(0)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		0, uintptr(unsafe.Pointer(&size)), 0)
	switch errno {
	case 0:
		return size > 0, nil
	case unix.EACCES:
		return true, nil
	}
	return false, os.NewSyscallError("getsockopt SO_GET_FILTER", errno)
}

// netlinkGroups lists the groups that a netlink socket is a member of:
// NETLINK_LIST_MEMBERSHIPS of netlink(7), which takes a buffer in bytes and
// says how long it should be.
func netlinkGroups(fd int) (groups []int, err error) {
	bits := make([]uint32, maxNetlinkGroup/32)
	size := uint32(len(bits) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS,
		uintptr(unsafe.Pointer(&bits[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("getsockopt NETLINK_LIST_MEMBERSHIPS", errno)
	}
	for i := range min(int(size)*8, maxNetlinkGroup) {
		if bits[i/32]&(1<<(i%32)) != 0 {
			groups = append(groups, i+1)
		}
	}
	return groups, nil
}

// rawMessage is what recvmsg(2) gave.
type rawMessage struct {
	n, flags int
	from     []byte // sockaddr
	control  []byte
}

// recvmsg is unix.Recvmsg with the sender's address as the kernel gives it.
func recvmsg(fd int, buf []byte, controlSize, flags int) (rawMessage, error) {
	var from [unix.SizeofSockaddrAny + 16]byte
	control := make([]byte, controlSize)
	iov := unix.Iovec{Base: unsafe.SliceData(buf)}
	iov.SetLen(len(buf))
	h := unix.Msghdr{Name: &from[0], Namelen: uint32(len(from)), Iov: &iov, Iovlen: 1, Control: unsafe.SliceData(control)}
	h.SetControllen(len(control))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags))
	if errno != 0 {
		return rawMessage{}, errno
	}
	return rawMessage{int(n), int(h.Flags), append([]byte(nil), from[:h.Namelen]...), control[:h.Controllen]}, nil
}

// sendmsg is unix.SendmsgN with the exact address, and without the byte that
// it adds to an empty message with control data.
func sendmsg(fd int, data, control, to []byte, flags int) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(data)}
	iov.SetLen(len(data))
	h := unix.Msghdr{Iov: &iov, Iovlen: 1}
	if len(to) > 0 {
		h.Name, h.Namelen = unsafe.SliceData(to), uint32(len(to))
	}
	if len(control) > 0 {
		h.Control = unsafe.SliceData(control)
		h.SetControllen(len(control))
	}
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// sendUnreadable sends a byte from where nothing is mapped. The error says how
// far the kernel went: EFAULT is the last.
func sendUnreadable(fd int, to []byte) error {
	const unmapped = 1
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), unmapped, 1, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(unsafe.SliceData(to))), uintptr(len(to)))
	if errno != 0 {
		return errno
	}
	return nil
}

var errBPF = errors.New("it has a filter that cannot be read (SO_ATTACH_BPF)")

// maxFilter is BPF_MAXINSNS of linux/bpf_common.h.
const maxFilter = 4096

// getFilter returns the instructions of the classic filter, 8 bytes each.
func getFilter(fd int) ([]byte, error) {
	filter := make([]byte, 8*maxFilter)
	size := uint32(maxFilter) // in instructions
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(unsafe.SliceData(filter))), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno == unix.EACCES:
		return nil, errBPF
	case errno != 0 && !unsupported(errno):
		return nil, os.NewSyscallError("getsockopt SO_GET_FILTER", errno)
	case errno != 0 || size == 0:
		return nil, nil
	}
	return filter[:8*min(size, maxFilter)], nil
}

// attachFilter is the reverse of getFilter.
func attachFilter(fd int, filter []byte) error {
	instructions := make([]unix.SockFilter, len(filter)/8)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(instructions))), len(filter)), filter)
	program := unix.SockFprog{Len: uint16(len(instructions)), Filter: unsafe.SliceData(instructions)}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

// getBytes reads an option whose value is of any length. TCP_REPAIR_WINDOW
// wants to be asked for its exact length.
func getBytes(fd, level, opt int) ([]byte, error) {
	value := make([]byte, maxOptionBytes)
	if level == unix.IPPROTO_TCP && opt == unix.TCP_REPAIR_WINDOW {
		value = value[:20]
	}
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, errno
	}
	return value[:min(int(size), len(value))], nil
}
