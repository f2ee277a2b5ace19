package socket

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// job is one socket that the child makes, in memory shared with it.
type job struct {
	family, kind, protocol uintptr // in
	fd, errno              uintptr // out
}

// socketsInNewNamespace makes a network namespace and sockets in it, which
// keep it alive. socket(2) makes sockets in the namespace of its caller, and
// no thread of the supervisor can go to another and come back without
// privileges (setns(2)). So a child is cloned that shares the table of
// descriptors, makes them there and ends.
func socketsInNewNamespace(kinds []kind) ([]int, error) {
	size := len(kinds) * int(unsafe.Sizeof(job{}))
	if size == 0 {
		return nil, errors.New("a network namespace without a socket")
	}
	shared, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(shared)
	jobs := unsafe.Slice((*job)(unsafe.Pointer(unsafe.SliceData(shared))), len(kinds))
	for i, k := range kinds {
		jobs[i] = job{family: uintptr(k.family), kind: uintptr(k.kind | unix.SOCK_CLOEXEC), protocol: uintptr(k.protocol), errno: uintptr(unix.ECHILD)}
	}
	if err := runJobs(jobs); err != nil {
		return nil, err
	}
	return collect(jobs)
}

// runJobs makes the namespace in a user namespace of its own, of which the
// supervisor's user is the owner, unless it has the privilege without.
func runJobs(jobs []job) error {
	err := unix.EPERM
	if os.Geteuid() == 0 {
		err = cloneAndWait(unix.CLONE_NEWNET, jobs)
	}
	if err == unix.EPERM {
		err = cloneAndWait(unix.CLONE_NEWNET|unix.CLONE_NEWUSER, jobs)
	}
	if err != 0 {
		return fmt.Errorf("clone of a process in a network namespace of its own (clone(2), CLONE_NEWUSER, CLONE_NEWNET): %w", err)
	}
	return nil
}

func collect(jobs []job) ([]int, error) {
	var fds []int
	var failed unix.Errno
	for _, j := range jobs {
		if j.errno != 0 {
			failed = unix.Errno(j.errno)
			continue
		}
		fds = append(fds, int(j.fd))
	}
	if failed != 0 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("socket in a network namespace of its own: %w", failed)
	}
	return fds, nil
}

// cloneAndWait has no signal reach the child, which is a copy of one thread of
// a Go program and may run nothing of the runtime.
func cloneAndWait(namespaces uintptr, jobs []job) unix.Errno {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return err.(unix.Errno)
	}
	pid, errno := cloneChild(namespaces|unix.CLONE_FILES, unsafe.SliceData(jobs), uintptr(len(jobs)))
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if errno != 0 {
		return errno
	}
	for { // ECHILD: whoever waits for all children of the supervisor was faster
		if _, err := unix.Wait4(int(pid), nil, unix.WALL, nil); err != unix.EINTR {
			return 0
		}
	}
}

// cloneChild is vfork(2) by hand, as in package syscall of the standard
// library: the child makes system calls only, on a copy of this stack.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func cloneChild(flags uintptr, jobs *job, n uintptr) (pid uintptr, errno unix.Errno) {
	pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	for i := uintptr(0); i < n; i++ {
		j := (*job)(unsafe.Add(unsafe.Pointer(jobs), i*unsafe.Sizeof(job{})))
		fd, _, err := unix.RawSyscall(unix.SYS_SOCKET, j.family, j.kind, j.protocol)
		j.fd, j.errno = fd, uintptr(err)
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
}

// inet6Ifreq is in6_ifreq of linux/ipv6.h.
type inet6Ifreq struct {
	addr      [16]byte
	prefixLen uint32
	ifindex   int32
}

// addInet6Address gives the interface another address (SIOCSIFADDR, netdevice(7)).
func addInet6Address(fd int, addr [16]byte, ifindex int32) error {
	r := inet6Ifreq{addr: addr, prefixLen: 128, ifindex: ifindex}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return os.NewSyscallError("ioctl SIOCSIFADDR", errno)
	}
	return nil
}
