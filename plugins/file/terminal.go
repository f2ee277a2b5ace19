package file

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// termios is struct termios2, ioctl_tty(2).
type termios struct {
	Iflag  uint32    `json:"iflag"`
	Oflag  uint32    `json:"oflag"`
	Cflag  uint32    `json:"cflag"`
	Lflag  uint32    `json:"lflag"`
	Line   uint8     `json:"line"`
	Cc     [19]uint8 `json:"cc"`
	Ispeed uint32    `json:"ispeed"` // baud
	Ospeed uint32    `json:"ospeed"`
}

func getTermios(fd int) (termios, error) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return termios{}, fmt.Errorf("ioctl TCGETS2: %w", err)
	}
	return termios(*t), nil
}

func (t termios) set(fd int) error {
	u := unix.Termios(t)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, &u); err != nil {
		return fmt.Errorf("ioctl TCSETS2: %w", err)
	}
	return nil
}

func isTTY(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	return err == nil
}

// launchTTYs returns the terminals of the launching command, which the core
// owns.
func (p *Plugin) launchTTYs() []int {
	var fds []int
	if t, ok := p.host.Terminal(); ok {
		fds = append(fds, t)
	}
	for n := range 3 {
		if fd := p.host.Stdio(n); isTTY(fd) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// isLaunchTerminal says whether f is a terminal of the launching command. The
// device number alone does not tell: each instance of devpts counts from 0.
func (p *Plugin) isLaunchTerminal(f plugin.OpenFile) bool {
	for _, fd := range p.launchTTYs() {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && uint64(st.Dev) == uint64(f.Stat.Dev) && st.Ino == f.Stat.Ino &&
			uint64(st.Rdev) != devTTY {
			return true
		}
	}
	return isOwnTTY(f)
}

// isOwnTTY says whether f is the supervisor's controlling terminal, by
// whatever name: TIOCGPGRP works on no other, but for masters.
func isOwnTTY(f plugin.OpenFile) bool {
	fd, err := f.Dup()
	if err != nil {
		return false // claimOpen tells
	}
	defer unix.Close(fd)
	_, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil
}

// ptsBehindTTY makes sure that an open /dev/tty is a pty: it stands for what
// was the controlling terminal when it was opened, which TIOCGDEV tells.
func ptsBehindTTY(f plugin.OpenFile) (kind, error) {
	fd, err := duplicate(f)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	rdev, err := unix.IoctlGetInt(fd, unix.TIOCGDEV)
	if err != nil {
		return "", plugin.Refuse(f, "ioctl TIOCGDEV: %v", err)
	}
	if unix.Major(uint64(uint32(rdev))) != majorPts {
		return "", plugin.Refuse(f, "terminal %s is not kept", deviceName(uint64(uint32(rdev))))
	}
	return kindPts, nil
}

// stdioOf returns n where f is another description of what the launching
// command has as descriptor n, and -1 elsewhere.
func (p *Plugin) stdioOf(f plugin.OpenFile) int {
	for n := range 3 {
		var st unix.Stat_t
		if unix.Fstat(p.host.Stdio(n), &st) == nil &&
			uint64(st.Dev) == uint64(f.Stat.Dev) && st.Ino == f.Stat.Ino {
			return n
		}
	}
	return -1
}

// claimTerminal saves which of the standard descriptors takes the place of f,
// and the settings of the terminal, which an editor has changed.
func (p *Plugin) claimTerminal(f plugin.OpenFile, s *file, fd int) {
	switch {
	case f.Inherited > 0:
		s.Stdio = f.Inherited - 1
	case s.Kind == kindStdio:
		s.Stdio, s.Reopened = p.stdioOf(f), true
	default:
		s.Stdio = terminalNumber(f, s)
	}
	if p.state.Terminal != nil {
		return
	}
	if t, err := getTermios(fd); err == nil {
		p.state.Terminal = &t
	}
}

// terminalNumber chooses the standard descriptor for a terminal where the
// restarting command has none: the lowest number by which the program knows
// it, or the one for its direction.
func terminalNumber(f plugin.OpenFile, s *file) int {
	lowest := 3
	for _, r := range f.Refs {
		lowest = min(lowest, r.FD)
	}
	switch {
	case lowest < 3:
		return lowest
	case s.access() == unix.O_RDONLY:
		return 0
	}
	return 1
}

// reopenStdio gives the program what the restarting command has.
func (p *Plugin) reopenStdio(f plugin.OpenFile, s *file) (int, error) {
	from := p.chooseStdio(f, s)
	if err := p.applyTerminal(from); err != nil {
		return -1, err
	}
	if s.Reopened {
		return reopenOrDup(from, s)
	}
	return dupNonblock(from, s)
}

// reopenTerminal gives the program a description of its own of the terminal
// of the restarting command, or one of its standard descriptors.
func (p *Plugin) reopenTerminal(f plugin.OpenFile, s *file) (int, error) {
	from, ok := p.host.Terminal()
	if !ok {
		from = p.chooseStdio(f, s)
		p.host.Log().Info().Str("link", string(s.Path)).Interface("descriptors", f.Refs).
			Msg("no terminal here: a standard descriptor takes its place")
	}
	if err := p.applyTerminal(from); err != nil {
		return -1, err
	}
	return reopenOrDup(from, s)
}

// chooseStdio chooses for a description that may stand for several standard
// descriptors: a shell has its terminal once, as 0, 1 and 2. Here they may be
// files of their own, so that the first is taken that can be read and written
// as the old one, then the first that can be written: output is not lost.
func (p *Plugin) chooseStdio(f plugin.OpenFile, s *file) int {
	numbers := []int{s.Stdio}
	for _, r := range f.Refs {
		if r.FD < 3 && r.FD != s.Stdio {
			numbers = append(numbers, r.FD)
		}
	}
	for _, n := range numbers {
		if access(p.host.Stdio(n)).covers(s.access()) {
			return p.host.Stdio(n)
		}
	}
	for _, n := range numbers {
		if s.writable() && access(p.host.Stdio(n)).covers(unix.O_WRONLY) {
			return p.host.Stdio(n)
		}
	}
	return p.host.Stdio(s.Stdio)
}

// accessMode is O_RDONLY, O_WRONLY, O_RDWR, or -1 where it is not known.
type accessMode int

func access(fd int) accessMode {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return -1
	}
	return accessMode(flags & unix.O_ACCMODE)
}

func (a accessMode) covers(wanted int) bool {
	return a == unix.O_RDWR || a >= 0 && int(a) == wanted
}

// applyTerminal puts the settings in force that the program had made, once,
// where the supervisor is in the foreground: elsewhere the terminal is not the
// program's to set, and the kernel would stop the supervisor (SIGTTOU).
func (p *Plugin) applyTerminal(fd int) error {
	if p.making.terminal || p.state.Terminal == nil || !isTTY(fd) {
		return nil
	}
	foreground, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || foreground != unix.Getpgrp() {
		return nil // not the controlling terminal, or in the background
	}
	p.making.terminal = true
	return p.state.Terminal.set(fd)
}

// reopenOrDup makes a description of its own where that shares nothing but
// the object: two descriptions of a regular file would overwrite each other.
func reopenOrDup(from int, s *file) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return -1, fmt.Errorf("fstat of fd %d: %w", from, err)
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFIFO || t == unix.S_IFCHR {
		if fd, err := reopenAnchor(from, s); err == nil {
			return fd, nil
		}
	}
	return dupNonblock(from, s)
}

// dupNonblock duplicates from. O_NONBLOCK is set as the program had set it,
// for whoever shares the description, as the program would do itself; the
// other flags stay those of the restarting command.
func dupNonblock(from int, s *file) (int, error) {
	fd, err := dup(from)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, s.Flags&unix.O_NONBLOCK != 0); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("fcntl O_NONBLOCK: %w", err)
	}
	return fd, nil
}
