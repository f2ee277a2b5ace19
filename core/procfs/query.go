package procfs

import (
	"bytes"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procmapQuery is struct procmap_query of the kernel's include/uapi/linux/fs.h.
type procmapQuery struct {
	size, queryFlags, queryAddr uint64
	start, end, flags           uint64
	pageSize, offset, inode     uint64
	devMajor, devMinor          uint32
	nameSize, buildIDSize       uint32
	name                        *byte // a pointer is 64 bits wide on all machines that we run on
	buildID                     uint64
}

const (
	procmapQueryIoctl = 0xc0686611 // _IOWR('f', 17, struct procmap_query)

	queryReadable   = 1 << 0 // PROCMAP_QUERY_VMA_*
	queryWritable   = 1 << 1
	queryExecutable = 1 << 2
	queryShared     = 1 << 3
)

// MappingAt returns the mapping that holds an address, by the ioctl PROCMAP_QUERY of
// Linux 6.11: ENOTTY on an older one, ENOENT where nothing is mapped. To read maps is
// faster where more than a few of the mappings are asked for.
func MappingAt(pid int, addr uint64) (VMA, error) {
	f, err := os.Open(path(pid, "maps"))
	if err != nil {
		return VMA{}, err
	}
	defer f.Close()
	var name [4096]byte // PATH_MAX: what is longer gives ENAMETOOLONG
	q := procmapQuery{queryAddr: addr, nameSize: uint32(len(name)), name: &name[0]}
	q.size = uint64(unsafe.Sizeof(q))
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), procmapQueryIoctl, uintptr(unsafe.Pointer(&q)))
	runtime.KeepAlive(&q)
	if e != 0 {
		return VMA{}, os.NewSyscallError("PROCMAP_QUERY", e)
	}
	v := VMA{Start: q.start, End: q.end, Offset: q.offset, Ino: q.inode, DevMajor: q.devMajor, DevMinor: q.devMinor,
		Read: q.flags&queryReadable != 0, Write: q.flags&queryWritable != 0, Exec: q.flags&queryExecutable != 0,
		Shared: q.flags&queryShared != 0}
	b, _, _ := bytes.Cut(name[:min(int(q.nameSize), len(name))], []byte{0})
	v.setPath(b, "")
	return v, nil
}
