package proc

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// gateHere says that the calls of this machine are known.
const gateHere = true

// auditArch is AUDIT_ARCH_X86_64: other numbers mean other calls.
const auditArch = 0xc000003e

func stackPointer(r *Regs) uint64 { return r.Rsp }

// access tells the memory that a call accesses, by its arguments.
type access func(a [6]uint64) []span

// none is of calls whose arguments are numbers.
func none([6]uint64) []span { return nil }

// at is a structure of n bytes that argument i points to. A pointer that is not
// one, or NULL, does no harm: it leads to no memory that comes late.
func at(i int, n uint64) access { return func(a [6]uint64) []span { return []span{{a[i], n}} } }

// buffer is at argument i, as many units as argument n says.
func buffer(i, n int, unit uint64) access {
	return func(a [6]uint64) []span {
		over, size := bits.Mul64(a[n], unit)
		if over != 0 {
			size = ^uint64(0)
		}
		return []span{{a[i], size}}
	}
}

// count is buffer of argument n as an int.
func count(i, n int, unit uint64) access {
	return func(a [6]uint64) []span { return []span{{a[i], uint64(uint32(a[n])) * unit}} }
}

// name is a string at argument i.
func name(i int) access { return at(i, unix.PathMax) }

// all is several of them.
func all(list ...access) access {
	return func(a [6]uint64) (spans []span) {
		for _, f := range list {
			spans = append(spans, f(a)...)
		}
		return spans
	}
}

// bitmaps are the three sets of select(2), of the first argument's bits.
func bitmaps(a [6]uint64) (spans []span) {
	n := (uint64(uint32(a[0])) + 63) / 64 * 8
	return []span{{a[1], n}, {a[2], n}, {a[3], n}}
}

// Sizes of structures of this machine, some rounded up.
const (
	sizeAddr     = 128 // sockaddr_storage
	sizeTimespec = 16
	sizeMask     = 8
	sizeSiginfo  = 128
	sizeRusage   = 144
	sizeStat     = 144
	sizeStatx    = 256
	sizeTimer    = 32 // itimerval, itimerspec
)

// accesses are the calls that begin as soon as their memory is there. What is
// not among them begins when all memory is: so a call may only be here if it
// accesses nothing else, at once or later, and changes no mapping.
var accesses = map[uint64]access{
	unix.SYS_GETPID: none, unix.SYS_GETTID: none, unix.SYS_GETPPID: none, unix.SYS_GETUID: none, unix.SYS_GETEUID: none,
	unix.SYS_GETGID: none, unix.SYS_GETEGID: none, unix.SYS_GETPGRP: none, unix.SYS_GETPGID: none, unix.SYS_GETSID: none,
	unix.SYS_SCHED_YIELD: none, unix.SYS_PAUSE: none, unix.SYS_ALARM: none, unix.SYS_CLOSE: none, unix.SYS_DUP: none,
	unix.SYS_DUP2: none, unix.SYS_DUP3: none, unix.SYS_LSEEK: none, unix.SYS_FSYNC: none, unix.SYS_FDATASYNC: none,
	unix.SYS_FTRUNCATE: none, unix.SYS_KILL: none, unix.SYS_TKILL: none, unix.SYS_TGKILL: none, unix.SYS_UMASK: none,
	unix.SYS_EPOLL_CREATE1: none, unix.SYS_EVENTFD2: none, unix.SYS_TIMERFD_CREATE: none, unix.SYS_SOCKET: none,
	unix.SYS_LISTEN: none, unix.SYS_SHUTDOWN: none, unix.SYS_MEMBARRIER: none, unix.SYS_TIMER_GETOVERRUN: none,
	unix.SYS_RESTART_SYSCALL: none, // goes on with a call that began with its memory

	unix.SYS_READ: buffer(1, 2, 1), unix.SYS_PREAD64: buffer(1, 2, 1), unix.SYS_WRITE: buffer(1, 2, 1), unix.SYS_PWRITE64: buffer(1, 2, 1),
	unix.SYS_READV: count(1, 2, sizeIovec), unix.SYS_WRITEV: count(1, 2, sizeIovec), // and what they lead to
	unix.SYS_RECVFROM: all(buffer(1, 2, 1), at(4, sizeAddr), at(5, 4)),
	unix.SYS_SENDTO:   all(buffer(1, 2, 1), at(4, sizeAddr)),
	unix.SYS_ACCEPT:   all(at(1, sizeAddr), at(2, 4)), unix.SYS_ACCEPT4: all(at(1, sizeAddr), at(2, 4)),
	unix.SYS_CONNECT: at(1, sizeAddr), unix.SYS_PIPE2: at(0, 8), unix.SYS_GETRANDOM: buffer(0, 1, 1),

	unix.SYS_POLL: count(0, 1, 8), unix.SYS_PPOLL: all(count(0, 1, 8), at(2, sizeTimespec), at(3, sizeMask)),
	unix.SYS_SELECT:     all(bitmaps, at(4, sizeTimespec)),
	unix.SYS_PSELECT6:   all(bitmaps, at(4, sizeTimespec), at(5, 16)), // and the mask that the last leads to
	unix.SYS_EPOLL_WAIT: count(1, 2, 12), unix.SYS_EPOLL_PWAIT: all(count(1, 2, 12), at(4, sizeMask)),
	unix.SYS_EPOLL_PWAIT2: all(count(1, 2, 12), at(3, sizeTimespec), at(4, sizeMask)), unix.SYS_EPOLL_CTL: at(3, 12),
	unix.SYS_FUTEX: all(at(0, 4), at(3, sizeTimespec), at(4, 4)),

	unix.SYS_NANOSLEEP: all(at(0, sizeTimespec), at(1, sizeTimespec)), unix.SYS_CLOCK_NANOSLEEP: all(at(2, sizeTimespec), at(3, sizeTimespec)),
	unix.SYS_CLOCK_GETTIME: at(1, sizeTimespec), unix.SYS_CLOCK_GETRES: at(1, sizeTimespec), unix.SYS_GETTIMEOFDAY: all(at(0, 16), at(1, 8)),
	unix.SYS_TIME: at(0, 8), unix.SYS_TIMES: at(0, 32), unix.SYS_GETRUSAGE: at(1, sizeRusage), unix.SYS_GETCPU: all(at(0, 4), at(1, 4)),
	unix.SYS_SETITIMER: all(at(1, sizeTimer), at(2, sizeTimer)), unix.SYS_GETITIMER: at(1, sizeTimer),
	unix.SYS_TIMER_SETTIME: all(at(2, sizeTimer), at(3, sizeTimer)), unix.SYS_TIMER_GETTIME: at(1, sizeTimer),
	unix.SYS_TIMERFD_SETTIME: all(at(2, sizeTimer), at(3, sizeTimer)), unix.SYS_TIMERFD_GETTIME: at(1, sizeTimer),

	unix.SYS_RT_SIGPROCMASK: all(at(1, sizeMask), at(2, sizeMask)), unix.SYS_RT_SIGACTION: all(at(1, 32), at(2, 32)),
	unix.SYS_RT_SIGPENDING: at(0, sizeMask), unix.SYS_RT_SIGSUSPEND: at(0, sizeMask),
	unix.SYS_RT_SIGTIMEDWAIT: all(at(0, sizeMask), at(1, sizeSiginfo), at(2, sizeTimespec)),
	unix.SYS_WAIT4:           all(at(1, 4), at(3, sizeRusage)), unix.SYS_WAITID: all(at(2, sizeSiginfo), at(4, sizeRusage)),
	unix.SYS_SCHED_GETAFFINITY: buffer(2, 1, 1), unix.SYS_UNAME: at(0, 390),
	unix.SYS_PRLIMIT64: all(at(2, 16), at(3, 16)), unix.SYS_GETRLIMIT: at(1, 16),

	unix.SYS_OPEN: name(0), unix.SYS_OPENAT: name(1), unix.SYS_PIPE: at(0, 8), unix.SYS_STAT: all(name(0), at(1, sizeStat)), unix.SYS_LSTAT: all(name(0), at(1, sizeStat)),
	unix.SYS_FSTAT: at(1, sizeStat), unix.SYS_NEWFSTATAT: all(name(1), at(2, sizeStat)), unix.SYS_STATX: all(name(1), at(4, sizeStatx)),
	unix.SYS_ACCESS: name(0), unix.SYS_FACCESSAT: name(1), unix.SYS_FACCESSAT2: name(1),
	unix.SYS_READLINK: all(name(0), buffer(1, 2, 1)), unix.SYS_READLINKAT: all(name(1), buffer(2, 3, 1)), unix.SYS_GETCWD: buffer(0, 1, 1),
	unix.SYS_MKDIR: name(0), unix.SYS_MKDIRAT: name(1), unix.SYS_RMDIR: name(0), unix.SYS_UNLINK: name(0), unix.SYS_UNLINKAT: name(1),
	unix.SYS_RENAME: all(name(0), name(1)), unix.SYS_RENAMEAT: all(name(1), name(3)), unix.SYS_RENAMEAT2: all(name(1), name(3)),
	unix.SYS_CHDIR: name(0), unix.SYS_FCHDIR: none, unix.SYS_GETDENTS64: buffer(1, 2, 1),
	unix.SYS_FCNTL: at(2, 32), // of all its commands, struct flock has the most
}

const (
	sizeIovec = 16
	fionbio   = 0x5421 // FIONBIO
)

// terminalIoctls are requests with at most a struct termios: of others nothing
// is known.
var terminalIoctls = map[uint64]bool{unix.TCGETS: true, unix.TCSETS: true, unix.TCSETSW: true, unix.TCSETSF: true,
	unix.TIOCGWINSZ: true, unix.TIOCGPGRP: true, unix.TIOCSPGRP: true, unix.TIOCINQ: true, fionbio: true}

// accessed is the memory that a call accesses that is known.
func accessed(nr uint64, args [6]uint64) []span {
	if f := accesses[nr]; f != nil {
		return f(args)
	}
	return nil
}

// needs is what must be there for a call to begin. It is false where only all
// memory will do.
func (x *gated) needs(c *syscallInfo) (needed, bool) {
	a := c.args
	if c.arch != auditArch {
		return needed{}, false
	}
	untouched := func(start, end uint64) bool { return x.m == nil || end >= start && !x.m.touches(start, end) }
	switch c.nr {
	case unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE:
		return needed{}, untouched(a[0], a[0]+a[1])
	case unix.SYS_MMAP: // elsewhere, or where nothing comes late
		fixed := a[3]&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) != 0
		return needed{}, !fixed || untouched(a[0], a[0]+a[1])
	case unix.SYS_BRK: // which gives nothing back
		return needed{}, a[0] == 0 || a[0] >= x.brk || untouched(a[0], x.brk)
	case unix.SYS_SIGALTSTACK:
		return needed{spans: []span{{a[1], 24}}}, a[0] == 0
	case unix.SYS_IOCTL:
		return needed{spans: []span{{a[2], 64}}}, terminalIoctls[uint64(uint32(a[1]))]
	case unix.SYS_RT_SIGRETURN:
		return x.sigreturn(c.sp), true
	case unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV:
		if !x.plainFile(a[0]) {
			return needed{}, false
		}
	}
	f := accesses[c.nr]
	if f == nil {
		return needed{}, false
	}
	need := needed{spans: f(a)}
	switch c.nr {
	case unix.SYS_READV, unix.SYS_WRITEV:
		need.more = func(p *Process) []span { return vectors(p, a[1], min(a[2], 1024)) } // UIO_MAXIOV
	case unix.SYS_PSELECT6:
		if a[5] != 0 {
			need.more = func(p *Process) []span { return vectors(p, a[5], 1) } // a pointer and a length too
		}
	}
	return need, true
}

// vectors are what n structures iovec lead to.
func vectors(p *Process, addr, n uint64) (spans []span) {
	b := make([]byte, n*sizeIovec)
	if p.readMem(addr, b) != nil {
		return nil // the call fails too
	}
	for ; len(b) > 0; b = b[sizeIovec:] {
		spans = append(spans, span{le.Uint64(b), le.Uint64(b[8:])})
	}
	return spans
}

// sigreturn is the frame that the kernel takes back, arch/x86/kernel/signal_64.c:
// a struct ucontext at sp, and what its fpstate points to. The stack for signals
// that it names is set again (restore_altstack).
func (x *gated) sigreturn(sp uint64) needed {
	const (
		stack   = 2 * 8        // uc_stack, behind uc_flags and uc_link
		fpstate = 5*8 + 23*8   // in struct sigcontext
		size    = fpstate + 16 // of what is looked at
	)
	return needed{spans: []span{{sp - 8, 1024}}, more: func(p *Process) []span {
		b := make([]byte, size)
		if p.readMem(sp, b) != nil {
			return nil
		}
		x.altStack = stackOf(b[stack:])
		return []span{{le.Uint64(b[fpstate:]), signalRoom}}
	}}
}

// plainFile says whether reading and writing a descriptor accesses no memory but
// the buffer: files of proc(5) show that of processes, and drivers take pointers.
func (x *gated) plainFile(fd uint64) bool {
	link := fmt.Sprintf("/proc/%d/fd/%d", x.th.HostTID, int32(fd))
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(link, &fs) != nil || unix.Stat(link, &st) != nil || fs.Type == unix.PROC_SUPER_MAGIC {
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return true
	}
	switch major := unix.Major(st.Rdev); { // Documentation/admin-guide/devices.txt
	case major == 1, major == 4, major == 5: // null, zero and their like; terminals
		return true
	default:
		return 136 <= major && major <= 143 // pts(4)
	}
}
