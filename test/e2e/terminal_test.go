package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pty is a terminal with someone who types and reads.
type pty struct {
	master *os.File
	slave  *os.File
	text   transcript
	done   chan struct{}
}

// newPTY opens a terminal, pty(7), that belongs to the identity.
func newPTY(tr *trial) *pty {
	tr.Helper()
	// Not blocking, so that closing it ends a read.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		tr.Fatalf("/dev/ptmx: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		tr.Fatalf("pty: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	name := fmt.Sprintf("/dev/pts/%d", n)
	slave, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		tr.Fatal(err)
	}
	tr.own(name)
	p := &pty{master: master, slave: slave, done: make(chan struct{})}
	go p.read()
	tr.Cleanup(func() {
		p.slave.Close()
		p.master.Close()
		<-p.done
	})
	return p
}

// read collects what the terminal shows until it is closed.
func (p *pty) read() {
	defer close(p.done)
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		// A transcript takes everything.
		_, _ = p.text.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// onTerminal starts hiatus as a shell on the terminal would: leader of a
// session that has it as its controlling terminal.
func (tr *trial) onTerminal(p *pty, args ...string) *front {
	tr.Helper()
	f := &front{cmd: tr.command(context.Background(), tr.suite.hiatus(), args...), stdout: &transcript{}}
	f.cmd.Stdin, f.cmd.Stdout, f.cmd.Stderr = p.slave, p.slave, p.slave
	f.cmd.SysProcAttr.Setctty = true
	tr.begin(f)
	return f
}

// typed types a line, and waits until the terminal shows an answer.
func (tr *trial) typed(p *pty, line, answer string) {
	tr.Helper()
	from := len(p.text.String())
	if _, err := p.master.WriteString(line); err != nil {
		tr.Fatal(err)
	}
	tr.await(fmt.Sprintf("%q on the terminal", answer), func() bool { return strings.Contains(p.text.String()[from:], answer) })
}

// terminal has an interactive shell on a terminal; restarted, it is on
// another one, and ^C and job control work as before.
func terminal(tr *trial) {
	first := newPTY(tr)
	tr.front = tr.onTerminal(first, "launch", "--name", tr.name, "--ckptdir", tr.images(), "--",
		"bash", "--norc", "--noprofile", "-i")
	tr.typed(first, "PS1='> '; kept=$((6 * 7))\n", "> ")
	tr.typed(first, "echo is $kept\n", "is 42")
	useShell(tr, first)
	stopJob(tr, first)
	tr.checkpoint()
	continueJob(tr, first)
	stopJob(tr, first)
	tr.suspend()

	second := newPTY(tr)
	tr.front = tr.onTerminal(second, "restart", tr.images())
	tr.running()
	tr.typed(second, "echo still $kept\n", "still 42")
	continueJob(tr, second)
	useShell(tr, second)
	if _, err := second.master.WriteString("exit 6\n"); err != nil {
		tr.Fatal(err)
	}
	tr.ends(tr.front, 6)
	tr.gone()
	if tr.Failed() {
		tr.Logf("first terminal: %q\nsecond terminal: %q", first.text.String(), second.text.String())
	}
}

// resize gives the terminal a size.
func (p *pty) resize(tr *trial, rows, cols uint16) {
	tr.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		tr.Fatal(err)
	}
}

// resized is restarted on a terminal of another size, of which SIGWINCH tells, and on one
// of the same.
func resized(tr *trial) {
	p := newPTY(tr)
	p.resize(tr, 30, 100)
	tr.front = tr.onTerminal(p, "launch", "--name", tr.name, "--ckptdir", tr.images(), "--",
		"perl", "-e", "$| = 1; $SIG{WINCH} = sub { print \"win\" . \"ch\\n\" }; print 40 + 2, \"\\n\"; while (<STDIN>) { print \"go\" . \"t $_\" }")
	tr.await("the program", func() bool { return strings.Contains(p.text.String(), "42") })
	for _, c := range []struct {
		rows uint16
		told int
	}{{30, 0}, {31, 1}, {31, 0}} {
		tr.suspend()
		p = newPTY(tr)
		p.resize(tr, c.rows, 100)
		tr.front = tr.onTerminal(p, "restart", tr.images())
		tr.running()
		tr.typed(p, "line\n", "got line") // behind a signal of the restart
		if text := p.text.String(); strings.Count(text, "winch") != c.told {
			tr.Errorf("with %d rows: %q, want SIGWINCH %d times", c.rows, text, c.told)
		}
	}
	tr.must("kill", tr.name)
	tr.wait(tr.front)
	tr.gone()
}

// suspended stops the program from the keyboard, and the agent with it: a
// command says so until they run on.
func suspended(tr *trial) {
	p := newPTY(tr)
	tr.front = tr.onTerminal(p, "launch", "--name", tr.name, "--ckptdir", tr.images(), "--", tr.suite.fixture("threads"))
	tr.advance(2)
	if _, err := p.master.WriteString("\x1a"); err != nil {
		tr.Fatal(err)
	}
	for _, command := range []string{"status", "checkpoint"} {
		tr.await("the agent stops", func() bool {
			o := tr.hiatus(command, tr.name)
			return o.code == 1 && strings.Contains(o.stderr, "suspended")
		})
	}
	tr.signal(syscall.SIGCONT)
	tr.checkpoint()
	tr.advance(2)
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	tr.gone()
}

// useShell interrupts, stops and continues commands from the keyboard. The
// commands speak first, when they are in the foreground.
func useShell(tr *trial, p *pty) {
	tr.Helper()
	tr.typed(p, "sh -c 'echo $((40 + 1)); exec sleep 1000'\n", "41")
	tr.typed(p, "\x03", "> ")
	tr.typed(p, "echo code $?\n", "code 130")
	stopJob(tr, p)
	continueJob(tr, p)
}

// stopJob leaves a stopped command behind, which starts no other: a shell that is in
// vfork(2) when ^Z stops its child waits for ever, without us too.
func stopJob(tr *trial, p *pty) {
	tr.Helper()
	tr.typed(p, "perl -e '$| = 1; $SIG{CONT} = sub { print \"go\" . \"on\\n\" }; print 40 + 2, \"\\n\"; select undef, undef, undef, 0.02 while 1'\n", "42")
	tr.typed(p, "\x1a", "Stopped")
}

// continueJob looks at that command, has it go on in the foreground, and ends it.
func continueJob(tr *trial, p *pty) {
	tr.Helper()
	tr.typed(p, "jobs -l\n", "Stopped    ")
	tr.typed(p, "fg\n", "goon")
	tr.typed(p, "\x03", "> ")
	tr.typed(p, "echo code $?\n", "code 130")
}
