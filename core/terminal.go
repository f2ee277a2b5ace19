package core

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal of the command that launched or
// restarted the tree. The agent hands it to the program as a job-control shell
// does: the program has a process group of its own in the foreground.
type terminal struct {
	fd  int
	own *os.File // the file behind fd, if the agent opened it
	dev uint64   // its device, as in tty_nr of /proc/PID/stat
}

// openTerminal returns nil where there is no controlling terminal.
func openTerminal() *terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	dev, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGDEV)
	if err != nil {
		f.Close()
		return nil
	}
	t := &terminal{fd: int(f.Fd()), own: f, dev: uint64(uint32(dev))}
	for fd := range 3 {
		if d, err := unix.IoctlGetInt(fd, unix.TIOCGDEV); err == nil && d == dev {
			t.fd = fd
			break
		}
	}
	return t
}

func (t *terminal) close() { t.own.Close() }

// front returns the process group in the foreground.
func (t *terminal) front() (int, error) { return unix.IoctlGetInt(t.fd, unix.TIOCGPGRP) }

// inFront says whether the agent's own process group is in the foreground.
func (t *terminal) inFront() bool {
	pgrp, err := t.front()
	return err == nil && pgrp == unix.Getpgrp()
}

// give puts the process group pgrp in the foreground. The agent may be in the
// background itself: SIGTTOU, which would stop it, is blocked on this thread
// (tcsetpgrp(3)).
func (t *terminal) give(pgrp int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (uint(unix.SIGTTOU) - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		return err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, pgrp)
}
