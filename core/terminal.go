package core

import (
	"cmp"
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

// winsize is the size of a terminal, TIOCGWINSZ(2const).
type winsize struct {
	Row    uint16 `json:"rows"`
	Col    uint16 `json:"cols"`
	Xpixel uint16 `json:"x_pixels,omitempty"`
	Ypixel uint16 `json:"y_pixels,omitempty"`
}

// size returns nil where there is no terminal, or it tells none.
func (t *terminal) size() *winsize {
	if t == nil {
		return nil
	}
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil {
		return nil
	}
	return (*winsize)(size)
}

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

// giveTerminal gives the tree the terminal, and tells its process group in the foreground,
// before that runs, if it has another size than at the checkpoint (tty_ioctl(4)).
func (r *restart) giveTerminal() {
	term, log := r.a.term, r.a.log
	group := r.front()
	if term == nil || group == 0 {
		return
	}
	if term.inFront() {
		if err := term.give(group); err != nil {
			log.Warn().Err(err).Msg("cannot give the terminal to the program")
		}
	}
	was, is := r.core.Size, term.size()
	if was == nil || is == nil || *was == *is {
		return
	}
	if err := unix.Kill(-group, unix.SIGWINCH); err != nil {
		log.Warn().Err(err).Msg("cannot tell the program of the size of the terminal")
	}
}

// front returns the host's id of the process group that is to be in the foreground, 0 for
// none. A tree saved in the background comes to the front with its agent.
func (r *restart) front() int {
	front := cmp.Or(r.state.Front, r.state.GroupOf(r.core.Main))
	for _, p := range r.tree.Procs() {
		group, err := unix.Getpgid(p.HostPID())
		if err == nil && r.state.GroupOf(p.PID()) == front {
			return group
		}
	}
	return 0
}
