package proc

import "golang.org/x/sys/unix"

// vdsoCalls are the functions of vdsos that system calls can stand in for.
var vdsoCalls = map[string]uint32{
	"clock_gettime": unix.SYS_CLOCK_GETTIME, "clock_getres": unix.SYS_CLOCK_GETRES, "gettimeofday": unix.SYS_GETTIMEOFDAY,
	"time": unix.SYS_TIME, "getcpu": unix.SYS_GETCPU, "getrandom": unix.SYS_GETRANDOM,
}

// jumpCode goes on at addr.
func jumpCode(addr uint64) []byte {
	c := le.AppendUint64([]byte{0x48, 0xb8}, addr) // mov rax, imm64
	return append(c, 0xff, 0xe0)                   // jmp rax
}

// callCode makes a system call of up to three arguments.
func callCode(nr uint32) []byte {
	c := le.AppendUint32([]byte{0xb8}, nr) // mov eax, imm32
	return append(c, 0x0f, 0x05, 0xc3)     // syscall; ret
}

// failCode returns -ENOSYS.
func failCode() []byte {
	enosys := int32(unix.ENOSYS)
	c := le.AppendUint32([]byte{0x48, 0xc7, 0xc0}, uint32(-enosys)) // mov rax, imm32
	return append(c, 0xc3)                                          // ret
}
