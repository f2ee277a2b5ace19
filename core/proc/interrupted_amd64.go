package proc

import "golang.org/x/sys/unix"

// Calls that not every architecture has.
const (
	sysPoll      = unix.SYS_POLL
	sysEpollWait = unix.SYS_EPOLL_WAIT
	sysSelect    = unix.SYS_SELECT
)

// insnAlign is the alignment of instructions.
const insnAlign = 1
