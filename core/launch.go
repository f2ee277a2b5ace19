package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

const archName = runtime.GOARCH

// Launch runs a command below this process, which becomes its agent, and
// returns when the whole tree has ended: with the command's exit code, or 128
// and the number of the signal that ended it. An error is the agent's own: the
// command has not run.
func Launch(ctx context.Context, o LaunchOptions) (code int, err error) {
	path, err := exec.LookPath(o.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) { // a PATH with "." is the user's wish
		return 0, err
	}
	a, err := newAgent(o.Options)
	if err != nil {
		return 0, err
	}
	defer a.close()
	a.command = o.Args
	if !o.Join {
		a.computation = newComputation()
	}
	if a.cwd, err = os.Getwd(); err != nil { // it was removed
		a.cwd, _ = os.Readlink("/proc/self/cwd")
	}
	// Orphans of the tree become children of the agent.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("become a child subreaper: %w", err)
	}
	if err := a.enter(ctx, "", 0); err != nil {
		return 0, err
	}
	if err := a.plugins.Dispatch(ctx, plugin.Event{Kind: plugin.Launch}); err != nil {
		return 0, err
	}
	l := newLoop(a)
	defer l.stop()
	l.listenAll()
	a.sequence.Lock()
	err = a.start(path, o)
	a.sequence.Unlock()
	if err != nil {
		return 0, err
	}
	a.stay(ctx)
	return l.run(ctx)
}

// start executes the command, in a process group of its own: in the
// foreground if the agent is, in a session of its own if there is no terminal
// by intention.
func (a *agent) start(path string, o LaunchOptions) error {
	sysattr := &syscall.SysProcAttr{Setpgid: true}
	switch {
	case o.Detached:
		sysattr = &syscall.SysProcAttr{Setsid: true}
	case a.term != nil && a.term.inFront():
		if a.sharesGroup = sharesGroup(); a.sharesGroup {
			// A pipeline or a script: in the background the others could
			// not read from the terminal.
			sysattr.Setpgid = false
		} else {
			sysattr.Foreground, sysattr.Ctty = true, a.term.fd
		}
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return fmt.Errorf("getsid: %w", err)
	}
	inside := o.UserNamespace && os.Geteuid() != 0
	if inside {
		proc.InUserNamespace(sysattr)
	}
	return a.tr.Do(func() error {
		pid, err := syscall.ForkExec(path, o.Args, &syscall.ProcAttr{Env: o.Env, Files: []uintptr{0, 1, 2}, Sys: sysattr})
		if inside && err != nil {
			err = proc.ExplainNamespace(err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if inside {
			if a.userNS, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid)); err != nil {
				return err
			}
		}
		a.adopt(treeRoots{parent: os.Getpid(), reaper: os.Getpid(), session: session, main: pid, mainPID: pid})
		return nil
	})
}

// sharesGroup says whether another process has the agent's process group.
func sharesGroup() bool {
	pids, err := procfs.PIDs()
	if err != nil {
		return true
	}
	for _, pid := range pids {
		if pgrp, err := unix.Getpgid(pid); err == nil && pgrp == unix.Getpgrp() && pid != os.Getpid() {
			return true
		}
	}
	return false
}
