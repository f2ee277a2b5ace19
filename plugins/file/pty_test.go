package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// newPty opens a pty and its slave.
func newPty(t testing.TB) (master, slave int) {
	t.Helper()
	master = open(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := openPeer(master, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(slave) })
	return master, slave
}

// change sets a terminal.
func change(t testing.TB, fd int, set func(*termios)) termios {
	t.Helper()
	tio, err := getTermios(fd)
	if err != nil {
		t.Fatal(err)
	}
	set(&tio)
	if err := tio.set(fd); err != nil {
		t.Fatal(err)
	}
	return tio
}

func rawMode(tio *termios) { tio.Lflag, tio.Iflag, tio.Oflag = 0, 0, 0; tio.Cc[unix.VMIN] = 1 }
func noEcho(tio *termios)  { tio.Lflag &^= unix.ECHO }

// settled waits until the kernel has brought to the slave what was written to
// the master: a marker behind it has come back as an echo, which is taken.
func settled(t testing.TB, slave, want int) {
	t.Helper()
	for {
		n, err := unix.IoctlGetInt(slave, unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n >= want {
			return
		}
	}
}

// take reads what is there now, and shows each read.
func take(t testing.TB, fd int) string {
	t.Helper()
	var reads []string
	for {
		events, err := pollNow(fd, unix.POLLIN)
		if err != nil {
			t.Fatal(err)
		}
		if events&unix.POLLIN == 0 {
			return strings.Join(reads, "|")
		}
		reads = append(reads, read(t, fd, 4096))
	}
}

// ptyCases are pairs of mode and data. input is read from the slave as read,
// one part for each read(2).
var ptyCases = map[string]struct {
	mode   func(*termios)
	typed  string // to the master
	lines  int    // what TIOCINQ comes to say
	output string // of the slave
	read   string
	finish string // typed after the restart
	rest   string // read then
}{
	"empty":            {noEcho, "", 0, "", "", "x\n", "x\n"},
	"lines":            {noEcho, "one\ntwo\n", 8, "out\n", "one\n|two\n", "x\n", "x\n"},
	"a line begun":     {noEcho, "one\nbegin", 4, "", "one\n", "end\n", "beginend\n"},
	"only a beginning": {noEcho, "begin", 0, "", "", "end\n", "beginend\n"},
	"erased":           {noEcho, "one\nbegix", 4, "", "one\n", "\x7fn\n", "begin\n"},
	"end of file":      {noEcho, "one\n\x04two\n", 8, "", "one\n||two\n", "x\n", "x\n"},
	"text and end":     {noEcho, "one\x04", 3, "", "one", "x\n", "x\n"},
	"zero byte":        {noEcho, "a\x00b\n", 4, "", "a\x00b\n", "x\n", "x\n"},
	"all bytes, raw":   {rawMode, allBytes(), 256, "out\n", allBytes(), "x", "x"},
	"line end":         {func(tio *termios) { noEcho(tio); tio.Cc[unix.VEOL] = ';' }, "a;b;c", 4, "", "a;|b;", ";", "c;"},
	"much":             {noEcho, strings.Repeat("0123456789abcde\n", 200), 3200, strings.Repeat("y", 3000), strings.TrimSuffix(strings.Repeat("0123456789abcde\n|", 200), "|"), "x\n", "x\n"},
}

func allBytes() string {
	var b []byte
	for i := range 256 {
		b = append(b, byte(i))
	}
	return string(b)
}

func TestPty(t *testing.T) {
	for name, c := range ptyCases {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted %t", name, restarted), func(t *testing.T) {
				master, slave := newPty(t)
				tio := change(t, slave, c.mode)
				size := unix.Winsize{Row: 33, Col: 77, Xpixel: 5, Ypixel: 6}
				if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size); err != nil {
					t.Fatal(err)
				}
				write(t, slave, c.output)
				if c.typed != "" {
					write(t, master, c.typed)
				}
				settled(t, slave, c.lines)
				number, _ := unix.IoctlGetInt(master, unix.TIOCGPTN)

				h := plugintest.NewHost(t)
				files := plugintest.OpenFiles(t, slave, master)
				state := checkpoint(t, h, files...)
				if restarted {
					unix.Close(slave)
					unix.Close(master)
					fds := restart(t, h, state, nil, files...)
					slave, master = fds[0], fds[1]
				}

				if got, _ := unix.IoctlGetInt(master, unix.TIOCGPTN); got != number {
					t.Errorf("number %d, want %d", got, number)
				}
				if got, err := getTermios(slave); err != nil || got != tio {
					t.Errorf("settings %+v, %v\nwant %+v", got, err, tio)
				}
				if got, err := unix.IoctlGetWinsize(slave, unix.TIOCGWINSZ); err != nil || *got != size {
					t.Errorf("size %+v, %v, want %+v", got, err, size)
				}
				if got, want := strings.ReplaceAll(take(t, master), "|", ""), throughOutput(tio, c.output); got != want {
					t.Errorf("output %.100q, want %.100q", got, want)
				}
				if got := take(t, slave); got != c.read {
					t.Errorf("input %.200q, want %.200q", got, c.read)
				}
				write(t, master, c.finish)
				settled(t, slave, len(c.rest))
				if got := take(t, slave); got != c.rest {
					t.Errorf("further input %q, want %q", got, c.rest)
				}
			})
		}
	}
}

func throughOutput(tio termios, s string) string {
	if tio.Oflag&unix.ONLCR != 0 {
		return strings.ReplaceAll(s, "\n", "\r\n")
	}
	return s
}

func TestPtyFlags(t *testing.T) {
	master, slave := newPty(t)
	second := open(t, procSelf(slave), unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCPKT, 1); err != nil {
		t.Fatal(err)
	}
	if err := ioctlNone(slave, unix.TIOCEXCL); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(master, true); err != nil {
		t.Fatal(err)
	}
	write(t, slave, "out")
	h := plugintest.NewHost(t)
	files := plugintest.OpenFiles(t, slave, second, master)
	state := checkpoint(t, h, files...)
	check := func(slave, second, master int) {
		t.Helper()
		if got, err := unix.IoctlGetInt(slave, unix.TIOCGEXCL); got != 1 || err != nil {
			t.Errorf("TIOCGEXCL: %d, %v", got, err)
		}
		if got := status(t, second); got != unix.O_WRONLY|unix.O_NONBLOCK {
			t.Errorf("flags of the second slave: %#o", got)
		}
		if got := status(t, master); got != unix.O_RDWR|unix.O_NONBLOCK {
			t.Errorf("flags of the master: %#o", got)
		}
		if got := take(t, master); got != "\x00out" { // a status byte first
			t.Errorf("packet %q", got)
		}
	}
	check(slave, second, master)
	for _, fd := range []int{slave, second, master} {
		unix.Close(fd)
	}
	fds := restart(t, h, state, nil, files...)
	check(fds[0], fds[1], fds[2])
}

// The slave of a new pty has never been open: its master waits. When it was
// closed, its master reads EIO.
func TestPtyWithoutSlave(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed %t", closed), func(t *testing.T) {
			master := open(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
			if closed {
				if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
					t.Fatal(err)
				}
				slave, err := openSlave(master)
				if err != nil {
					t.Fatal(err)
				}
				write(t, slave, "left")
				unix.Close(slave)
			}
			h := plugintest.NewHost(t)
			f := plugintest.OpenFile(t, 1, master)
			state := checkpoint(t, h, f)
			check := func(master int) {
				t.Helper()
				locked, _ := unix.IoctlGetInt(master, unix.TIOCGPTLCK)
				events, _ := pollNow(master, unix.POLLIN)
				if hup := events&unix.POLLHUP != 0; hup != closed || (locked == 0) != closed {
					t.Errorf("events %#x, locked %d", events, locked)
				}
				if closed {
					if got := read(t, master, 10) + read(t, master, 10); got != "left(input/output error)" {
						t.Errorf("read %q", got)
					}
				}
			}
			if !closed {
				check(master)
			}
			unix.Close(master)
			check(restart(t, h, state, nil, f)[0])
		})
	}
}

func TestRefusedPtys(t *testing.T) {
	h := plugintest.NewHost(t)
	t.Run("no master", func(t *testing.T) {
		master, slave := newPty(t)
		n, _ := unix.IoctlGetInt(master, unix.TIOCGPTN)
		f := plugintest.OpenFile(t, 1, slave)
		requireReason(t, refused(t, h, f), f, fmt.Sprintf("the master of /dev/pts/%d is held by a process outside the computation", n))
	})
	t.Run("stopped", func(t *testing.T) {
		master, slave := newPty(t)
		n, _ := unix.IoctlGetInt(master, unix.TIOCGPTN)
		if err := unix.IoctlSetInt(slave, unix.TCXONC, 0); err != nil { // TCOOFF
			t.Fatal(err)
		}
		files := plugintest.OpenFiles(t, master, slave)
		requireReason(t, refused(t, h, files...), files[0], fmt.Sprintf("/dev/pts/%d: its output is stopped (^S), or full", n))
	})
	t.Run("packet status", func(t *testing.T) {
		master, slave := newPty(t)
		n, _ := unix.IoctlGetInt(master, unix.TIOCGPTN)
		if err := unix.IoctlSetPointerInt(master, unix.TIOCPKT, 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetInt(slave, unix.TCFLSH, unix.TCIOFLUSH); err != nil {
			t.Fatal(err)
		}
		files := plugintest.OpenFiles(t, master, slave)
		requireReason(t, refused(t, h, files...), files[0], fmt.Sprintf("/dev/pts/%d: an unread status byte of packet mode", n))
	})
}

// More than the line discipline holds: the rest must wait unedited.
func TestPtyOverflow(t *testing.T) {
	line := strings.Repeat("0123456789abcde\r", 300) // ICRNL makes it newlines
	master, slave := newPty(t)
	change(t, slave, noEcho)
	write(t, master, line)
	settled(t, slave, 4080)
	h := plugintest.NewHost(t)
	files := plugintest.OpenFiles(t, master, slave)
	state := checkpoint(t, h, files...)
	want := strings.ReplaceAll(line, "\r", "\n")
	if got := strings.ReplaceAll(take(t, slave), "|", ""); got != want {
		t.Errorf("in place: %d bytes, want %d; or they differ", len(got), len(want))
	}
	unix.Close(master)
	unix.Close(slave)
	fds := restart(t, h, state, nil, files...)
	if got := strings.ReplaceAll(take(t, fds[1]), "|", ""); got != want {
		t.Errorf("restarted: %d bytes, want %d; or they differ", len(got), len(want))
	}
}

func TestPtyNumberInUse(t *testing.T) {
	master, _ := newPty(t)
	n, _ := unix.IoctlGetInt(master, unix.TIOCGPTN)
	h := plugintest.NewHost(t)
	f := plugintest.OpenFile(t, 1, master)
	p := newTestPlugin(t, h)
	handle(t, p, plugin.PreCheckpoint)
	claim(t, p, f)
	_, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
	if want := fmt.Sprintf("/dev/pts/%d: the number is in use", n); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// A session gets its controlling terminal and its foreground group again.
func TestControllingTerminal(t *testing.T) {
	if !runAlone(t, "HIATUS_TEST_CONTROLLING_TERMINAL") {
		return
	}
	signal.Ignore(unix.SIGHUP, unix.SIGTTOU)
	master, slave := newPty(t)
	h := plugintest.NewHost(t)
	files := plugintest.OpenFiles(t, slave, master)
	p := newTestPlugin(t, h)
	handle(t, p, plugin.PreCheckpoint)
	// The slave is claimed before it controls, for the supervisor of a real
	// checkpoint is not the leader of the program's session.
	claim(t, p, files[0])
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		t.Fatal(err)
	}
	claim(t, p, files[1])
	saveProcess(t, p)
	if got := p.state.Ptys[0]; got.Session != os.Getpid() || got.Foreground != unix.Getpgrp() {
		t.Errorf("session %d, foreground %d; want %d and %d", got.Session, got.Foreground, os.Getpid(), unix.Getpgrp())
	}
	var state bytes.Buffer
	if err := p.Save(t.Context(), &state); err != nil {
		t.Fatal(err)
	}
	handle(t, p, plugin.Resume)

	tty := open(t, "/dev/tty", unix.O_RDWR)
	for fd, want := range map[int]kind{master: kindPtmx, slave: kindTerminal, tty: kindTerminal} {
		if k, err := p.kindOf(plugintest.OpenFile(t, 1, fd)); k != want || err != nil {
			t.Errorf("the supervisor's own terminal, fd %d: kind %q, %v, want %s", fd, k, err, want)
		}
	}
	if err := ioctlNone(tty, unix.TIOCNOTTY); err != nil {
		t.Fatal(err)
	}
	if k, err := p.kindOf(plugintest.OpenFile(t, 1, tty)); k != kindPts || err != nil {
		t.Errorf("/dev/tty of another session: kind %q, %v, want pts", k, err)
	}
	for _, fd := range []int{master, slave, tty} {
		unix.Close(fd)
	}
	fds := restart(t, h, state.Bytes(), func(p *Plugin) {
		if err := p.RestoreProcess(t.Context(), plugintest.Self(t)); err != nil {
			t.Fatal(err)
		}
	}, files...)
	if got, err := unix.IoctlGetInt(fds[0], unix.TIOCGPGRP); err != nil || got != unix.Getpgrp() {
		t.Errorf("foreground group %d, %v, want %d", got, err, unix.Getpgrp())
	}
	open(t, "/dev/tty", unix.O_RDWR)
}

// givenUpSoon is the context of a checkpoint that is given up behind the first look at it.
type givenUpSoon struct {
	context.Context
	looked bool
}

func (c *givenUpSoon) Err() error {
	if c.looked {
		return context.Canceled
	}
	c.looked = true
	return nil
}

// TestPtyOfGivenUp: unread input stays where it is, also what is longer than a step of the refill,
// when a checkpoint is given up before it is taken, and after.
func TestPtyOfGivenUp(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		want error
	}{{"before", ended, context.Canceled}, {"meanwhile", &givenUpSoon{Context: t.Context()}, nil}} {
		t.Run(tt.name, func(t *testing.T) {
			master, slave := newPty(t)
			tio := change(t, slave, noEcho)
			line := strings.Repeat("typed ahead ", 40) + "\n"
			write(t, master, line)
			settled(t, slave, len(line))
			own, err := openSlave(master)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(own)
			if err := (queues{master, own}).peek(tt.ctx, &pty{Termios: tio}); !errors.Is(err, tt.want) {
				t.Errorf("peek: %v, want %v", err, tt.want)
			}
			if got := take(t, slave); got != line {
				t.Errorf("then there is %q, want %q", got, line)
			}
			if got := take(t, master); got != "" {
				t.Errorf("it was echoed: %q", got)
			}
		})
	}
}
