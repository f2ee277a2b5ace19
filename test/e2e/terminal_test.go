package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pty is a terminal with someone who types and reads.
type pty struct {
	master *os.File
	slave  *os.File
	mu     sync.Mutex
	text   bytes.Buffer
	done   chan struct{}
}

// newPTY opens a terminal, pty(7), that belongs to the identity.
func newPTY(tr *trial) *pty {
	tr.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		tr.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		tr.Fatalf("pty: %v", err)
	}
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
		p.mu.Lock()
		p.text.Write(buf[:n])
		p.mu.Unlock()
		// EIO: nobody has the slave open just now (pty(7)).
		if err != nil && !errors.Is(err, syscall.EIO) {
			return
		}
	}
}

func (p *pty) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// onTerminal starts hiatus as a shell on the terminal would: leader of a
// session that has it as its controlling terminal.
func (tr *trial) onTerminal(p *pty, args ...string) *front {
	tr.Helper()
	f := &front{cmd: tr.command(context.Background(), tr.suite.hiatus(), args...), ended: make(chan struct{})}
	f.cmd.Stdin, f.cmd.Stdout, f.cmd.Stderr = p.slave, p.slave, p.slave
	f.cmd.SysProcAttr.Setctty = true
	if err := f.cmd.Start(); err != nil {
		tr.Fatal(err)
	}
	go func() {
		defer close(f.ended)
		// How it ended stands in cmd.ProcessState.
		_ = f.cmd.Wait()
	}()
	return f
}

// typed types a line, and waits until the terminal shows an answer.
func (tr *trial) typed(p *pty, line, answer string) {
	tr.Helper()
	from := len(p.shown())
	if _, err := p.master.WriteString(line); err != nil {
		tr.Fatal(err)
	}
	tr.await(fmt.Sprintf("%q on the terminal", answer), func() bool { return strings.Contains(p.shown()[from:], answer) })
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
	tr.suspend()

	second := newPTY(tr)
	tr.front = tr.onTerminal(second, "restart", tr.images())
	tr.running()
	tr.typed(second, "echo still $kept\n", "still 42")
	useShell(tr, second)
	if _, err := second.master.WriteString("exit 6\n"); err != nil {
		tr.Fatal(err)
	}
	tr.ends(tr.front, 6)
	tr.gone()
	if tr.Failed() {
		tr.Logf("first terminal: %q\nsecond terminal: %q", first.shown(), second.shown())
	}
}

// useShell interrupts and stops a command from the keyboard.
func useShell(tr *trial, p *pty) {
	tr.Helper()
	// The commands speak when they are in the foreground.
	tr.typed(p, "sh -c 'echo $((40 + 1)); exec sleep 1000'\n", "41")
	tr.typed(p, "\x03", "> ")
	tr.typed(p, "echo code $?\n", "code 130")
	tr.typed(p, "sh -c 'echo $((40 + 2)); exec sleep 1001'\n", "42")
	tr.typed(p, "\x1a", "Stopped")
	tr.typed(p, "jobs\n", "sleep 1001")
	tr.typed(p, "kill %1; wait %1; echo end $?\n", "end 143")
}
