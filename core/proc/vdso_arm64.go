package proc

import "golang.org/x/sys/unix"

// vdsoCalls are the functions of vdsos that system calls can stand in for.
var vdsoCalls = map[string]uint32{
	"clock_gettime": unix.SYS_CLOCK_GETTIME, "clock_getres": unix.SYS_CLOCK_GETRES, "gettimeofday": unix.SYS_GETTIMEOFDAY,
	"getrandom": unix.SYS_GETRANDOM,
}

func code32(insns ...uint32) (c []byte) {
	for _, i := range insns {
		c = le.AppendUint32(c, i)
	}
	return c
}

// btiC is where an indirect call may land (bti c).
const btiC = 0xd503245f

// jumpCode goes on at addr.
func jumpCode(addr uint64) []byte {
	return le.AppendUint64(code32(btiC, 0x58000050, 0xd61f0200), addr) // ldr x16, .+8; br x16
}

// callCode makes a system call.
func callCode(nr uint32) []byte {
	return code32(btiC, 0xd2800008|nr<<5, 0xd4000001, 0xd65f03c0) // movz x8, nr; svc #0; ret
}

// failCode returns -ENOSYS.
func failCode() []byte {
	return code32(btiC, 0x92800000|uint32(unix.ENOSYS-1)<<5, 0xd65f03c0) // movn x0, #(ENOSYS-1); ret
}
