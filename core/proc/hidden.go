package proc

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/linux"
)

// hidden asks a thread for what no restart brings back and nothing in /proc shows: keyrings
// of its own, keyrings(7), registered rings, io_uring(7), a Landlock domain, landlock(7), and
// entries of the LDT.
type hidden struct {
	p        *Process
	th       *Thread
	at       uint64 // in the scratch memory, of hiddenRoom bytes, and 8 for the LDT
	session  int    // id of the agent's session keyring
	calls    []call
	landlock bool // the last call asks for it
}

const (
	hiddenRoom       = 128
	keyctlDescribe   = 6          // KEYCTL_DESCRIBE
	specThread       = ^uint64(0) // KEY_SPEC_THREAD_KEYRING, -1
	specProcess      = specThread - 1
	specSession      = specThread - 2
	registeredRings  = 16          // IO_RINGFD_REG_MAX of the kernel's include/linux/io_uring_types.h
	byRegistered     = 1 << 4      // IORING_ENTER_REGISTERED_RING
	userSessionNames = "_uid_ses." // what a process without a session keyring of its own has
)

// askHidden makes the calls, which are to be run in th, whose status is s. Of a process only
// its first thread is asked for what all have.
func askHidden(b *args, p *Process, th *Thread, s *procfs.Status) *hidden {
	h := &hidden{p: p, th: th, at: b.put(make([]byte, hiddenRoom+8))}
	h.session, _ = unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false) // 0: a kernel without keys
	h.calls = []call{
		sys(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, specThread, 0).may(),
		sys(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, specProcess, 0).may(),
		sys(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, specSession, 0).may(),
		sys(unix.SYS_KEYCTL, keyctlDescribe, specSession, h.at, hiddenRoom).may(),
	}
	for i := range uint64(registeredRings) {
		h.calls = append(h.calls, sys(unix.SYS_IO_URING_ENTER, i, 0, 0, byRegistered, 0, 0).may())
	}
	if th == p.threads[0] && sysModifyLDT != 0 {
		h.calls = append(h.calls, sys(sysModifyLDT, 0, h.at+hiddenRoom, 8).may())
	}
	if h.landlock = canShowLandlock(s) && p.isNearby(); h.landlock {
		h.calls = append(h.calls, sys(unix.SYS_KCMP, uint64(p.pid), uint64(os.Getpid()), linux.KCMP_VM, 0, 0).may())
	}
	return h
}

// isNearby says whether a process is in the pid and user namespaces of the agent.
func (p *Process) isNearby() bool {
	if p.nearby == nil {
		theirs, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", p.liveTID()))
		ours, err2 := os.Readlink("/proc/self/ns/user")
		near := len(p.status.NSpid) == 1 && err1 == nil && err2 == nil && theirs == ours
		p.nearby = &near
	}
	return *p.nearby
}

// ownCapabilities are those that the agent may have.
var ownCapabilities = sync.OnceValue(func() uint64 {
	own, err := procfs.ReadStatus(os.Getpid())
	if err != nil {
		return ^uint64(0)
	}
	return own.CapPrm
})

// canShowLandlock says whether nothing but a security module can keep a thread that is
// nearby from looking at the agent, ptrace(2), PTRACE_MODE_READ: Landlock lets nobody look
// out of a domain. Only who has given up new privileges, or has some, can be in one.
func canShowLandlock(s *procfs.Status) bool {
	uid, gid := os.Geteuid(), os.Getegid()
	return (s.NoNewPrivs || s.CapEff != 0) && ownCapabilities()&^s.CapPrm == 0 &&
		s.Uid == [4]int{uid, uid, uid, uid} && s.Gid == [4]int{gid, gid, gid, gid}
}

// refusal tells what was found, calls being h.calls as they were run.
func (h *hidden) refusal(calls []call) error {
	name := fmt.Sprintf("thread %d", h.th.TID)
	switch {
	case calls[0].ret > 0:
		return refuse(h.p, name, "it has a thread keyring (keyrings(7)), whose keys cannot be read")
	case calls[1].ret > 0:
		return refuse(h.p, "process keyring", "its keys (keyrings(7)) cannot be read")
	case calls[2].ret > 0 && h.session > 0 && int(calls[2].ret) != h.session && h.named(calls[3]):
		return refuse(h.p, name, "it has joined another session keyring (keyrings(7)) than hiatus, which a restart cannot")
	}
	if slices.ContainsFunc(calls[4:][:registeredRings], isRing) {
		return refuse(h.p, name, "it has registered an io_uring (io_uring_register(2), IORING_REGISTER_RING_FDS), whose requests cannot be read")
	}
	rest := calls[4+registeredRings:]
	if h.landlock {
		last := &rest[len(rest)-1]
		if last.ret == -int64(syscall.EPERM) {
			return refuse(h.p, name, "it has restricted itself by Landlock (landlock(7)), or is confined by another security module, which no restart could do again")
		}
		rest = rest[:len(rest)-1]
	}
	if len(rest) > 0 && rest[0].ret > 0 {
		return refuse(h.p, "local descriptor table", "it has entries (modify_ldt(2))")
	}
	return nil
}

// isRing says whether the place that was asked for has a ring: nothing was to be done there,
// and without one it fails in one of these ways (io_uring/io_uring.c), also by a filter.
func isRing(enter call) bool {
	none := []syscall.Errno{syscall.EINVAL, syscall.EBADF, syscall.ENOSYS, syscall.EPERM, syscall.EACCES}
	return !slices.Contains(none, syscall.Errno(-enter.ret))
}

// named says whether the session keyring that was described is none that every process
// of the user has.
func (h *hidden) named(describe call) bool {
	b := make([]byte, hiddenRoom)
	if describe.ret <= 0 || h.p.readMem(h.at, b) != nil {
		return false
	}
	description, _, _ := bytes.Cut(b, []byte{0}) // type;uid;gid;permissions;name
	return !strings.Contains(string(description), ";"+userSessionNames)
}
