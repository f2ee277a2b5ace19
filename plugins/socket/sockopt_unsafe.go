package socket

import (
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
