package file

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// pty is a pair of master and slave, pty(7), of which the tree has the master.
type pty struct {
	Number     uint32  `json:"number"` // N of /dev/pts/N
	Opened     bool    `json:"opened"` // the slave has been open; else a read of the master waits for it
	Locked     bool    `json:"locked,omitempty"`
	Packet     bool    `json:"packet,omitempty"`    // TIOCPKT
	Exclusive  bool    `json:"exclusive,omitempty"` // TIOCEXCL
	Termios    termios `json:"termios"`
	Rows       uint16  `json:"rows"`
	Cols       uint16  `json:"cols"`
	XPixel     uint16  `json:"xpixel,omitempty"`
	YPixel     uint16  `json:"ypixel,omitempty"`
	Session    int     `json:"session,omitempty"`    // whose controlling terminal it is
	Foreground int     `json:"foreground,omitempty"` // process group
	Input      ptyIn   `json:"input"`                // not yet read from the slave
	Output     []byte  `json:"output,omitempty"`     // not yet read from the master
}

func (t *pty) validate() error {
	if t == nil {
		return errors.New("null")
	}
	switch {
	case t.Number >= maxIndex:
		return fmt.Errorf("number %d, below %d", t.Number, maxIndex)
	case t.Session < 0 || t.Foreground < 0:
		return fmt.Errorf("session %d, foreground group %d", t.Session, t.Foreground)
	case t.Termios.Line != 0:
		return fmt.Errorf("line discipline %d", t.Termios.Line)
	case len(t.Output) > maxPtyData || len(t.Input.Rest) > maxPtyData:
		return errors.New("more unread data than a pty holds")
	case len(t.Input.Data) > lineBuffer:
		return fmt.Errorf("%d bytes of input, at most %d", len(t.Input.Data), lineBuffer)
	case !t.Opened && (len(t.Output) > 0 || len(t.Input.Data) > 0 || len(t.Input.Rest) > 0):
		return errors.New("data in a pty that was never open")
	}
	return nil
}

// ptyClaim is a pty of which descriptions have been claimed.
type ptyClaim struct {
	index  int
	master int               // a duplicate, -1 where none was claimed
	slave  int               // likewise
	of     plugin.OpenFile   // the master, or the first slave
	slaves []plugin.OpenFile // all, to refuse or to change them
}

func (p *Plugin) ptyClaim(number uint32, f plugin.OpenFile) *ptyClaim {
	c := p.saving.ptys[number]
	if c == nil {
		c = &ptyClaim{index: len(p.state.Ptys), master: -1, slave: -1, of: f}
		p.saving.ptys[number] = c
		p.saving.ptyOrder = append(p.saving.ptyOrder, c)
		p.state.Ptys = append(p.state.Ptys, &pty{Number: number})
	}
	return c
}

// claimMaster notes the master. Its queues are read when all is claimed.
func (p *Plugin) claimMaster(f plugin.OpenFile, s *file, fd int) error {
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return plugin.Refuse(f, "ioctl TIOCGPTN: %v", err)
	}
	c := p.ptyClaim(uint32(number), f)
	if c.master >= 0 {
		return plugin.Refuse(f, "the tree has two terminals with the name /dev/pts/%d", number)
	}
	if c.master, err = dup(fd); err != nil {
		return err
	}
	p.saving.held.add(c.master)
	c.of, s.Index = f, c.index
	return p.state.Ptys[c.index].readSettings(f, fd, p)
}

// readSettings asks the master: the kernel answers for the slave.
func (t *pty) readSettings(f plugin.OpenFile, fd int, p *Plugin) (err error) {
	if t.Termios, err = getTermios(fd); err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	if t.Termios.Line != 0 {
		return plugin.Refuse(f, "line discipline %d is not kept", t.Termios.Line)
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return plugin.Refuse(f, "ioctl TIOCGWINSZ: %v", err)
	}
	t.Rows, t.Cols, t.XPixel, t.YPixel = size.Row, size.Col, size.Xpixel, size.Ypixel
	locked, err1 := unix.IoctlGetInt(fd, unix.TIOCGPTLCK)
	packet, err2 := unix.IoctlGetInt(fd, unix.TIOCGPKT)
	if err := errors.Join(err1, err2); err != nil {
		return plugin.Refuse(f, "ioctl TIOCGPTLCK, TIOCGPKT: %v", err)
	}
	t.Locked, t.Packet = locked != 0, packet != 0
	events, err := pollNow(fd, 0)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	// POLLHUP: the slave was open and is closed.
	t.Opened = t.Opened || events&unix.POLLHUP != 0
	t.readSession(f, fd, p)
	return nil
}

// readSession notes the session and the foreground group, by the host's ids.
// Asked on the master, TIOCGSID and TIOCGPGRP work for everybody.
func (t *pty) readSession(f plugin.OpenFile, fd int, p *Plugin) {
	session, err := unix.IoctlGetInt(fd, unix.TIOCGSID)
	if err != nil || session == 0 {
		return // no session's
	}
	p.saving.resolve(reference{
		host:    session,
		dst:     &t.Session,
		missing: plugin.Refuse(f, "/dev/pts/%d is the controlling terminal of session %d of the host, which is not of the computation", t.Number, session),
	})
	// A group whose last process has ended may still be the foreground one.
	// The terminal is then its session leader's.
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && group > 0 {
		p.saving.resolve(reference{group: true, host: group, dst: &t.Foreground})
	}
}

// claimSlave notes a slave, for whose pty the tree must have the master.
func (p *Plugin) claimSlave(f plugin.OpenFile, s *file, fd int) error {
	rdev, err := unix.IoctlGetInt(fd, unix.TIOCGDEV) // of an open /dev/tty, too
	if err != nil {
		return plugin.Refuse(f, "ioctl TIOCGDEV: %v", err)
	}
	c := p.ptyClaim(unix.Minor(uint64(uint32(rdev))), f)
	s.Index = c.index
	c.slaves = append(c.slaves, f)
	t := p.state.Ptys[c.index]
	t.Opened = true
	exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
	if err != nil {
		return plugin.Refuse(f, "ioctl TIOCGEXCL: %v", err)
	}
	t.Exclusive = exclusive != 0
	if c.slave >= 0 {
		return nil
	}
	if c.slave, err = dup(fd); err != nil {
		return err
	}
	p.saving.held.add(c.slave)
	return nil
}

// slaveKind tells a slave whose master has been closed, of which the kernel
// lets nothing be asked any more, tty_ioctl(4).
func slaveKind(f plugin.OpenFile) (kind, error) {
	fd, err := duplicate(f)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if _, err := unix.IoctlGetInt(fd, unix.TIOCGDEV); errors.Is(err, unix.EIO) {
		return kindHungUp, nil
	}
	return kindPts, nil
}

// reopenHungUp makes a slave and closes its master.
func (p *Plugin) reopenHungUp(s *file) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	master, err := unix.Open(p.ptmx(), flags, 0)
	if errors.Is(err, unix.EACCES) { // the host's instance, where the tree has no master
		master, err = unix.Open(p.host.Root()+"/dev/ptmx", flags, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open of a master: %w", err)
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, fmt.Errorf("ioctl TIOCSPTLCK: %w", err)
	}
	fd, err := openPeer(master, s.access()|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("ioctl TIOCGPTPEER: %w", err)
	}
	return withStatus(fd, s)
}

// ptmx is where masters are opened.
func (p *Plugin) ptmx() string {
	if root := p.host.Root(); root != "" {
		return root + "/dev/pts/ptmx" // of the instance that the namespace has mounted
	}
	return "/dev/ptmx"
}

// peekPtys refuses slaves without a master, and saves what is unread.
func (p *Plugin) peekPtys(ctx context.Context) error {
	for _, c := range p.saving.ptyOrder {
		t := p.state.Ptys[c.index]
		if c.master < 0 {
			return plugin.Refuse(c.of, "the master of /dev/pts/%d is held by a process outside the computation", t.Number)
		}
		if err := c.peek(ctx, t); err != nil {
			return plugin.Refuse(c.of, "/dev/pts/%d: %v", t.Number, err)
		}
	}
	return nil
}

// peek takes the unread data and puts it back.
func (c *ptyClaim) peek(ctx context.Context, t *pty) (err error) {
	if !t.Opened {
		events, err := pollNow(c.master, unix.POLLIN)
		if err == nil && events&unix.POLLIN != 0 {
			err = errors.New("unread output of a terminal that was never open")
		}
		return err
	}
	if t.Exclusive && c.slave >= 0 {
		if err := ioctlNone(c.slave, unix.TIOCNXCL); err != nil {
			return fmt.Errorf("ioctl TIOCNXCL: %w", err)
		}
		defer func() {
			if e := ioctlNone(c.slave, unix.TIOCEXCL); e != nil {
				err = errors.Join(err, fmt.Errorf("ioctl TIOCEXCL: %w", e))
			}
		}()
	}
	slave, err := openSlave(c.master)
	if err != nil {
		return err
	}
	defer unix.Close(slave)
	return queues{c.master, slave}.peek(ctx, t)
}

// openSlave opens the slave for the supervisor itself.
func openSlave(master int) (int, error) {
	fd, err := openPeer(master, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("ioctl TIOCGPTPEER: %w", err)
	}
	return fd, nil
}

// ptyAnchors are the supervisor's own descriptors of a pty that it has made.
type ptyAnchors struct{ master, slave int } // slave is -1 where it was never open

// close closes the slave first: the last close of one hangs up the other end.
func (a *ptyAnchors) close() {
	if a.slave >= 0 {
		unix.Close(a.slave)
	}
	unix.Close(a.master)
}

// ptyAt makes a pty once.
func (p *Plugin) ptyAt(ctx context.Context, index int) (*ptyAnchors, error) {
	if a := p.making.ptys[index]; a != nil {
		return a, nil
	}
	t := p.state.Ptys[index]
	master, err := p.openNumber(t.Number)
	if err != nil {
		return nil, fmt.Errorf("/dev/pts/%d: %w", t.Number, err)
	}
	a := &ptyAnchors{master: master, slave: -1}
	p.making.ptys[index] = a
	if err := p.setUp(ctx, a, t); err != nil {
		return nil, fmt.Errorf("/dev/pts/%d: %w", t.Number, err)
	}
	return a, nil
}

// openNumber opens masters until the kernel, which gives the lowest free
// number, gives the wanted one.
func (p *Plugin) openNumber(want uint32) (int, error) {
	path := p.ptmx()
	var others closers
	defer others.close()
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("open of %s: %w", path, err)
		}
		got, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err == nil && uint32(got) == want {
			return fd, nil
		}
		others.add(fd)
		if err != nil {
			return -1, fmt.Errorf("ioctl TIOCGPTN: %w", err)
		}
		if uint32(got) > want {
			return -1, errors.New("the number is in use")
		}
	}
}

// setUp brings a new pty to the saved state, but for what would hinder the
// opening of its slaves: finishPty does that.
func (p *Plugin) setUp(ctx context.Context, a *ptyAnchors, t *pty) error {
	size := unix.Winsize{Row: t.Rows, Col: t.Cols, Xpixel: t.XPixel, Ypixel: t.YPixel}
	if err := unix.IoctlSetWinsize(a.master, unix.TIOCSWINSZ, &size); err != nil {
		return fmt.Errorf("ioctl TIOCSWINSZ: %w", err)
	}
	if !t.Opened {
		return t.Termios.set(a.master)
	}
	if err := unix.IoctlSetPointerInt(a.master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("ioctl TIOCSPTLCK: %w", err)
	}
	slave, err := openSlave(a.master)
	if err != nil {
		return err
	}
	a.slave = slave
	return queues{a.master, slave}.refill(ctx, t)
}

// finishPtys finishes all that restoreTTY has left.
func (p *Plugin) finishPtys() error {
	for index := range p.making.ptys {
		if err := p.finishPty(index); err != nil {
			return err
		}
	}
	return nil
}

// finishPty sets what stands in the way of further opens, and closes the
// plugin's own descriptors.
func (p *Plugin) finishPty(index int) error {
	a, t := p.making.ptys[index], p.state.Ptys[index]
	if a == nil {
		return nil
	}
	defer func() {
		a.close()
		delete(p.making.ptys, index)
	}()
	var errs []error
	if t.Packet {
		errs = append(errs, unix.IoctlSetPointerInt(a.master, unix.TIOCPKT, 1))
	}
	if t.Exclusive && a.slave >= 0 {
		errs = append(errs, ioctlNone(a.slave, unix.TIOCEXCL))
	}
	locked := 0
	if t.Locked {
		locked = 1
	}
	errs = append(errs, unix.IoctlSetPointerInt(a.master, unix.TIOCSPTLCK, locked))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("/dev/pts/%d: ioctl TIOCPKT, TIOCEXCL, TIOCSPTLCK: %w", t.Number, err)
	}
	return nil
}

func (p *Plugin) reopenMaster(ctx context.Context, s *file) (int, error) {
	a, err := p.ptyAt(ctx, s.Index)
	if err != nil {
		return -1, err
	}
	fd, err := dup(a.master) // to open it again would make another pty
	if err != nil {
		return -1, err
	}
	return withStatus(fd, s)
}

func (p *Plugin) reopenSlave(ctx context.Context, s *file) (int, error) {
	a, err := p.ptyAt(ctx, s.Index)
	if err != nil {
		return -1, err
	}
	fd, err := openPeer(a.master, s.access()|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("ioctl TIOCGPTPEER: %w", err)
	}
	return withStatus(fd, s)
}

// restoreTTY makes a pty the controlling terminal of the session that proc
// leads, and gives it its foreground group. The leader does so itself, as
// TIOCSCTTY asks for, with SIGTTOU blocked by the engine. Then nobody needs to
// open it any more, and so with those that are of no session.
func (p *Plugin) restoreTTY(ctx context.Context, proc plugin.Process) error {
	for index, t := range p.state.Ptys {
		switch t.Session {
		case proc.PID():
			if err := t.control(ctx, proc); err != nil {
				return fmt.Errorf("pid %d: controlling terminal /dev/pts/%d: %w", proc.PID(), t.Number, err)
			}
		case 0:
		default:
			continue
		}
		if err := p.finishPty(index); err != nil {
			return err
		}
	}
	return nil
}

func (t *pty) control(ctx context.Context, proc plugin.Process) error {
	addr, _ := proc.Scratch()
	path := fmt.Appendf(nil, "/dev/pts/%d\x00", t.Number)
	if _, err := proc.WriteAt(path, int64(addr)); err != nil {
		return err
	}
	at := unix.AT_FDCWD
	fd, err := proc.Syscall(ctx, unix.SYS_OPENAT, uintptr(at), uintptr(addr), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	calls := []plugin.Call{{Nr: unix.SYS_IOCTL, Args: [6]uintptr{fd, unix.TIOCSCTTY, 0}, MayFail: true}}
	if t.Foreground > 0 {
		if _, err := proc.WriteAt(nativeInt32(t.Foreground), int64(addr)); err != nil {
			return err
		}
		calls = append(calls, plugin.Call{Nr: unix.SYS_IOCTL, Args: [6]uintptr{fd, unix.TIOCSPGRP, uintptr(addr)}, MayFail: true})
	}
	calls = append(calls, plugin.Call{Nr: unix.SYS_CLOSE, Args: [6]uintptr{fd}})
	if err := proc.Batch(ctx, calls); err != nil {
		return err
	}
	if calls[0].Err != 0 {
		return fmt.Errorf("ioctl TIOCSCTTY: %w", calls[0].Err)
	}
	if t.Foreground > 0 && calls[1].Err != 0 {
		return fmt.Errorf("ioctl TIOCSPGRP %d: %w", t.Foreground, calls[1].Err)
	}
	return nil
}
