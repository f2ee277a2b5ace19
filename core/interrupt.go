package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/coord"
)

// Interrupted is the error of a restart that was given up for a signal before its
// program ran, as by ^C or `hiatus kill`. Nothing of it is left.
type Interrupted struct{ Signal syscall.Signal }

func (e *Interrupted) Error() string { return "the restart was given up: " + unix.SignalName(e.Signal) }

// ending are the signals that give a restart up, where they are not ignored.
var ending = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}

// interruption has signals give a restart up until its program is about to run.
type interruption struct {
	a      *agent
	ctx    context.Context // ends with an Interrupted
	cancel context.CancelCauseFunc
	disarm func()
}

func (a *agent) interruptible(ctx context.Context) *interruption {
	i := &interruption{a: a}
	i.ctx, i.cancel = context.WithCancelCause(ctx)
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	for _, s := range ending {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals) // the next one acts at once
			i.cancel(&Interrupted{s.(syscall.Signal)})
		case <-over:
		}
	}()
	a.setInterruption(i)
	i.disarm = sync.OnceFunc(func() {
		a.setInterruption(nil)
		signal.Stop(signals)
		close(over)
	})
	return i
}

func (i *interruption) close() {
	i.disarm()
	i.cancel(nil)
}

// why returns the Interrupted for which the restart failed, else err.
func (i *interruption) why(err error) error {
	if e, ok := errors.AsType[*Interrupted](context.Cause(i.ctx)); ok && err != nil {
		return e
	}
	return err
}

func (a *agent) setInterruption(i *interruption) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.interruption = i
}

// killEarly is Kill before there is a program.
func (a *agent) killEarly(sig syscall.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.interruption == nil:
		return errors.New("the program does not run yet")
	case sig != unix.SIGKILL && !slices.Contains(ending, os.Signal(sig)):
		return fmt.Errorf("%w: the program does not run yet", coord.ErrRestarting)
	}
	a.interruption.cancel(&Interrupted{sig})
	return nil
}
