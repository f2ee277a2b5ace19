package core

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/plugin"
)

// loop is the agent's life while its tree runs: it waits for the children,
// passes signals on, and stops and continues with the program.
type loop struct {
	a       *agent
	signals chan os.Signal
	child   chan os.Signal
	reports chan proc.Exit // of a restored tree, by inner pid; closed at its end
}

// passedOn are the signals that the program gets in place of the agent: those
// of a terminal go to its process group, others to the command itself.
var passedOn = map[os.Signal]bool{unix.SIGHUP: true, unix.SIGINT: true, unix.SIGQUIT: true, unix.SIGTSTP: true,
	unix.SIGTERM: false, unix.SIGUSR1: false, unix.SIGUSR2: false, unix.SIGALRM: false, unix.SIGWINCH: false}

// untold are those of passedOn of which Go tells nobody, where they are not asked for
// (os/signal): they wait for the program. The others end an agent that has none yet.
var untold = []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM}

// newLoop listens to what must not be lost before there is a program.
func newLoop(a *agent) *loop {
	l := &loop{a: a, signals: make(chan os.Signal, 64), child: make(chan os.Signal, 1)}
	l.listen(slices.Values(untold))
	signal.Notify(l.child, unix.SIGCHLD)
	return l
}

// listenAll is for when the program is about to run: signals are for it.
func (l *loop) listenAll() {
	l.listen(maps.Keys(passedOn))
	signal.Notify(l.signals, unix.SIGCONT)
}

func (l *loop) listen(signals iter.Seq[os.Signal]) {
	for s := range signals {
		// One that is ignored, as by nohup(1), must stay so in the program.
		if !signal.Ignored(s) {
			signal.Notify(l.signals, s)
		}
	}
}

// takeErrors has write(2) fail with EFBIG and EPIPE, where it would end the
// agent by a signal: one whose standard error nobody reads any more must not
// leave its program alone. The signals are not ignored, which the program would
// inherit (execve(2)), but received by nobody.
func takeErrors() (stop func()) {
	nobody := make(chan os.Signal, 1)
	for _, s := range []os.Signal{unix.SIGXFSZ, unix.SIGPIPE} {
		if !signal.Ignored(s) {
			signal.Notify(nobody, s)
		}
	}
	return func() { signal.Stop(nobody) }
}

func (l *loop) stop() {
	signal.Stop(l.signals)
	signal.Stop(l.child)
}

// run returns the exit code when the whole tree has ended.
func (l *loop) run(ctx context.Context) (int, error) {
	a := l.a
	if a.tree.reports != nil {
		l.reports = make(chan proc.Exit)
		go readReports(a.tree.reports, l.reports)
	}
	if a.opts.Ready != nil {
		a.opts.Ready(a.name)
	}
	a.log.Info().Str("name", a.name).Int("pid", a.tree.main).Msg("running")
	for {
		exits, more := a.tr.Reap()
		for _, e := range exits {
			if a.tree.reports == nil && e.HostPID == a.tree.main {
				l.changed(e.Status)
			}
		}
		if !more && l.reports == nil {
			break
		}
		select {
		case <-l.child:
		case <-a.released: // a stop that the freeze met was told to nobody
		case s := <-l.signals:
			l.signal(s)
		case e, ok := <-l.reports:
			if !ok {
				l.reports = nil
			} else if e.HostPID == a.tree.mainPID {
				l.changed(e.Status)
			}
		}
	}
	// A generation whose memory is a snapshot's is committed without the program.
	a.sequence.Lock()
	defer a.sequence.Unlock()
	err := a.plugins.Dispatch(context.WithoutCancel(ctx), plugin.Event{Kind: plugin.Exit})
	if err != nil {
		a.log.Warn().Err(err).Msg("at the end of the tree")
	}
	a.log.Info().Msg("the tree has ended")
	return l.code(), nil
}

// readReports reads what the reaper of a restored tree writes: 8 bytes of pid
// and 4 of wait status, then 4 that do not count.
func readReports(r io.Reader, out chan<- proc.Exit) {
	defer close(out)
	var b [16]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return
		}
		out <- proc.Exit{HostPID: int(binary.LittleEndian.Uint64(b[:])), Status: unix.WaitStatus(binary.LittleEndian.Uint32(b[8:]))}
	}
}

// changed handles a change of state of the command's own process.
func (l *loop) changed(ws unix.WaitStatus) {
	a := l.a
	switch {
	case a.ended() != nil: // the id has gone to another
	case ws.Exited() || ws.Signaled():
		status := int(ws)
		a.mu.Lock()
		a.tree.ended = &status
		a.mu.Unlock()
		l.takeTerminal()
	case ws.Stopped() && a.term != nil:
		l.suspend()
	}
}

// takeTerminal puts the agent's group in the foreground again where the tree,
// or a group of it that has ended, is: not where the user's shell is.
func (l *loop) takeTerminal() {
	a := l.a
	if a.term == nil {
		return
	}
	front, err := a.term.front()
	if err != nil || front == unix.Getpgrp() {
		return
	}
	ours := errors.Is(unix.Kill(-front, 0), unix.ESRCH)
	pids, _ := a.all()
	for _, pid := range pids {
		pgrp, err := unix.Getpgid(pid)
		ours = ours || err == nil && pgrp == front
	}
	if ours {
		_ = a.term.give(unix.Getpgrp()) // EIO, ENOTTY: the terminal is gone
	}
}

// suspend stops the agent's own process group with the program, so that the
// shell gets its terminal back. SIGCONT continues both. Not in the pause
// of a checkpoint: other processes of the tree would stay frozen.
func (l *loop) suspend() {
	a := l.a
	a.standing.Lock()
	defer a.standing.Unlock()
	l.takeTerminal()
	if err := unix.Kill(0, unix.SIGSTOP); err != nil {
		a.log.Warn().Err(err).Msg("cannot stop with the program")
	}
}

// signal passes a signal on: to the command, or to all that it has left.
func (l *loop) signal(s os.Signal) {
	a := l.a
	sig := s.(syscall.Signal)
	if a.ended() != nil {
		if sig != unix.SIGCONT {
			if err := a.Kill(context.Background(), sig); err != nil {
				a.log.Warn().Err(err).Stringer("signal", sig).Msg("not passed on")
			}
		}
		return
	}
	pgrp, err := unix.Getpgid(a.tree.main)
	if err != nil {
		return // it has just ended
	}
	if sig == unix.SIGCONT && a.term != nil && a.term.inFront() {
		if err := a.term.give(pgrp); err != nil {
			a.log.Warn().Err(err).Msg("cannot give the terminal to the program")
		}
	}
	target := a.tree.main
	if passedOn[s] || sig == unix.SIGCONT {
		if a.sharesGroup {
			return
		}
		target = -pgrp
	}
	if err := unix.Kill(target, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		a.log.Warn().Err(err).Stringer("signal", sig).Msg("not passed on")
	}
}

// code is the exit code by the shell's convention.
func (l *loop) code() int {
	ended := l.a.ended()
	if ended == nil {
		return 0
	}
	ws := unix.WaitStatus(*ended)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
