package proc

// Calls that this architecture does not have.
const (
	sysPoll      = ^uint64(1)
	sysEpollWait = ^uint64(2)
	sysSelect    = ^uint64(3)
)
