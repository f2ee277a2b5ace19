package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/image"
)

// passedToAgents are the signals that all agents of a restart get in place of
// the command that started them.
func passedToAgents() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM}
}

// together restarts a generation of several agents, each in a process of its
// own: the first in front, the others without a terminal. It returns when all
// have ended, as the first did.
func (a *app) together(ctx context.Context, opts core.Options, gen string, agents []image.AgentManifest, flags []string) error {
	name, end, err := a.engine.Together(ctx, opts, gen)
	if err != nil {
		return err
	}
	defer end()
	opts.Name, opts.UniqueName = name, false
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, passedToAgents()...)
	defer signal.Stop(signals)
	t := &troupe{signals: signals}
	for i, agent := range agents {
		command := slices.Concat([]string{os.Args[0], "restart", "--join", "--name", name, "--agent", agent.ID}, flags, []string{"--", gen})
		if err := a.startAgent(t, opts, agent.ID, i == 0, command); err != nil {
			a.endAll(t, name)
			return fmt.Errorf("agent %s: %w", agent.ID, err)
		}
	}
	if err := t.ready(); err != nil {
		a.endAll(t, name)
		return err
	}
	if opts.Ready != nil {
		opts.Ready(name)
	}
	return t.wait()
}

// startAgent runs this binary again as an agent: in front as this command is, or
// in a session of its own, where a file has the place of a terminal.
func (a *app) startAgent(t *troupe, opts core.Options, id string, front bool, command []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Args = command
	cmd.Stdout, cmd.Stderr = a.stdout, a.stderr
	if front {
		cmd.Stdin = a.stdin
		return t.start(cmd, id)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if isTerminal(a.stdout) || isTerminal(a.stderr) {
		output, err := outputFile(opts, "output-"+id+".log", 0)
		if err != nil {
			return err
		}
		defer output.Close()
		a.inPlaceOfTerminal(cmd, output)
	}
	return t.start(cmd, id)
}

// troupe are the agents of a restart.
type troupe struct {
	signals <-chan os.Signal
	all     []*agentProcess
}

// agentProcess is one agent.
type agentProcess struct {
	cmd   *exec.Cmd
	ready chan error    // holds one value: nil when its tree runs
	ended chan struct{} // closed when it has ended
}

// start starts the agent id.
func (t *troupe) start(cmd *exec.Cmd, id string) error {
	p := &agentProcess{cmd: cmd, ready: make(chan error, 1), ended: make(chan struct{})}
	told, err := startTelling(cmd)
	if err != nil {
		return err
	}
	go func() {
		m, err := readMessage(told)
		if err == nil && m.Error != "" {
			err = errors.New(m.Error)
		}
		if errors.Is(err, io.EOF) {
			_ = cmd.Wait()
			err = fmt.Errorf("agent %s ended before its tree ran: %s", id, cmd.ProcessState)
		}
		p.ready <- err
		_ = cmd.Wait() // how it ended stands in cmd.ProcessState
		close(p.ended)
	}()
	t.all = append(t.all, p)
	return nil
}

// ready waits until the trees of all agents run; the first failure counts.
func (t *troupe) ready() error {
	outcome := make(chan error, len(t.all))
	for _, p := range t.all {
		go func() { outcome <- <-p.ready }()
	}
	for range t.all {
		if err := <-outcome; err != nil {
			return err
		}
	}
	return nil
}

// wait passes signals on until all have ended, and returns as the first did.
func (t *troupe) wait() error {
	for _, p := range t.all {
		for running := true; running; {
			select {
			case <-p.ended:
				running = false
			case s := <-t.signals:
				t.signal(s)
			}
		}
	}
	state := t.all[0].cmd.ProcessState
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitCode(128 + int(status.Signal()))
	}
	return programEnd(state.ExitCode(), nil)
}

func (t *troupe) signal(s os.Signal) {
	for _, p := range t.all {
		_ = p.cmd.Process.Signal(s) // os.ErrProcessDone
	}
}

// leavePatience is how long an agent may take to give its half-built tree up.
const leavePatience = 2 * time.Second

// endAll ends agents whose trees do not all run: a half-built one goes with its agent. Where one
// was lost when others ran already, these may go on in spite of the signal: they are killed.
func (a *app) endAll(t *troupe, name string) {
	t.signal(syscall.SIGTERM)
	for _, p := range t.all {
		for !p.hasEnded(leavePatience) {
			a.killTrees(name)
		}
	}
}

// killTrees kills all processes of a computation, if it still is one.
func (a *app) killTrees(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	c, err := a.connect(ctx, name)
	if err != nil {
		return // another agent is about to be the coordinator, or all have ended
	}
	defer c.Close()
	_ = c.Kill(ctx, syscall.SIGKILL) // what does not end is killed again
}

func (p *agentProcess) hasEnded(patience time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(patience):
		return false
	}
}

// flagsFor writes the flags that were given on this command line, but those of
// leave, as another command line has them.
func flagsFor(given *pflag.FlagSet, leave ...string) []string {
	var list []string
	given.Visit(func(f *pflag.Flag) {
		if slices.Contains(leave, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if several, ok := f.Value.(pflag.SliceValue); ok {
			values = several.GetSlice()
		}
		for _, v := range values {
			list = append(list, "--"+f.Name+"="+v)
		}
	})
	return list
}
