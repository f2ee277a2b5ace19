package proc

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// stoppers are the signals that stop a process, signal(7).
const stoppers = 1<<(unix.SIGSTOP-1) | 1<<(unix.SIGTSTP-1) | 1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1)

// Codes and places in the siginfo_t of waitid(2).
const (
	cldStopped   = 5  // CLD_STOPPED
	cldContinued = 6  // CLD_CONTINUED
	siStatusOff  = 24 // si_status
	waitedSize   = 32 // the part that waitid(2) writes
)

// askChildren finds out which of a process's children have stopped or gone on without its
// having waited for that: only a parent is told.
func (p *Process) askChildren(ctx context.Context, ps *ProcessState) error {
	const most = blobScratch / waitedSize
	for list := ps.children; len(list) > 0; {
		some := list[:min(len(list), most)]
		list = list[len(some):]
		calls := make([]call, len(some))
		for i, c := range some {
			calls[i] = sys(unix.SYS_WAITID, unix.P_PID, uint64(c.PID), p.inj.scratch()+uint64(i*waitedSize),
				unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0).as("waitid(%d)", c.PID)
		}
		if err := p.run(ctx, p.threads[0], calls); err != nil {
			return err
		}
		buf := make([]byte, len(some)*waitedSize)
		if err := p.readMem(p.inj.scratch(), buf); err != nil {
			return err
		}
		for i, c := range some {
			c.waited(buf[i*waitedSize:])
		}
	}
	return nil
}

// waited takes in what the parent of a process would be told.
func (ps *ProcessState) waited(si []byte) {
	code := le.Uint32(si[siCodeOff:])
	ps.Continued = code == cldContinued
	if ps.Stopped {
		ps.ExitCode = 0
		if code == cldStopped {
			ps.ExitCode = int(le.Uint32(si[siStatusOff:]))
		}
	}
}

// validStop says whether the image tells of a stop as there can be.
func (ps *ProcessState) validStop() bool {
	if !ps.Stopped {
		return ps.StopSignal == 0 && !(ps.Continued && ps.Zombie)
	}
	return !ps.Continued && (ps.StopSignal == 0 || isStopper(ps.StopSignal))
}

func isStopper(sig int) bool {
	return sig > 0 && sig <= nsig && stoppers&sigBit(syscall.Signal(sig)) != 0
}

// stopSignal is the signal by which a process is stopped that is to be restored. Images
// of old have it only where the parent has not waited for the stop.
func (ps *ProcessState) stopSignal() syscall.Signal {
	sig := ps.StopSignal
	if sig == 0 {
		sig = ps.ExitCode
	}
	if !isStopper(sig) || le.Uint64(ps.Actions[sig-1]) != 0 { // its action is not the default, SIG_DFL
		return unix.SIGSTOP
	}
	return syscall.Signal(sig)
}

// setStops stops processes as they were, and lets those go on that had. What their parents
// had waited for, they wait for here; SIGCHLD for it is taken away with the other signals
// that a restart causes, see queueShared.
func (r *Restorer) setStops(ctx context.Context) error {
	for i := range r.st.Processes {
		ps := &r.st.Processes[i]
		p := r.byPID[ps.PID]
		var err error
		switch {
		case ps.Stopped:
			err = p.stop(ctx, ps.stopSignal())
		case ps.Continued:
			if err = p.stop(ctx, unix.SIGSTOP); err == nil {
				err = p.goOn(ctx)
			}
		}
		if parent := r.byPID[ps.PPID]; err == nil && ps.Stopped && ps.ExitCode == 0 && parent != nil {
			wait := sys(unix.SYS_WAITID, unix.P_PID, uint64(ps.PID), 0, unix.WSTOPPED|unix.WNOHANG|unix.WALL, 0)
			_, err = parent.single(ctx, parent.threads[0], wait.as("waitid(%d)", ps.PID))
		}
		if err != nil {
			return fmt.Errorf("pid %d: stop: %w", ps.PID, err)
		}
	}
	return nil
}

// stop has a process stopped by sig when it is let go. The tracer puts sig in the place of
// SIGSTOP, which nothing blocks. Where the kernel does not stop it by another, as in a
// process group that is orphaned here (kernel/signal.c, get_signal), SIGSTOP does.
func (p *Process) stop(ctx context.Context, sig syscall.Signal) error {
	th := p.threads[0]
	if err := setSigmask(th.HostTID, allSignals&^sigBit(sig)); err != nil {
		return err
	}
	for {
		if err := unix.Tgkill(p.host, th.HostTID, unix.SIGSTOP); err != nil {
			return fmt.Errorf("tgkill: %w", err)
		}
		ws, err := p.next(ctx, th, 0)
		if err == nil && (event(ws) != 0 || ws.StopSignal() != unix.SIGSTOP) {
			err = fmt.Errorf("unexpected stop %#x", uint32(ws))
		}
		if err == nil {
			err = ptrace(ptraceInterrupt, th.HostTID, 0, 0)
		}
		if err == nil {
			ws, err = p.next(ctx, th, sig)
		}
		if err != nil {
			return err
		}
		if event(ws) == eventStop && ws.StopSignal() == sig {
			break
		}
		if sig == unix.SIGSTOP {
			return fmt.Errorf("unexpected stop %#x", uint32(ws))
		}
		sig = unix.SIGSTOP
	}
	if err := p.own(th); err != nil {
		return err
	}
	return p.trap(ctx, p.threads[1:])
}

// goOn lets a process that has stopped go on. Its SIGCONT is taken away as SIGCHLD is.
func (p *Process) goOn(ctx context.Context) error {
	if err := unix.Kill(p.host, unix.SIGCONT); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return p.trap(ctx, p.threads)
}

// trap takes threads to the trap by which a tracer is told that the state of their process
// has changed (kernel/signal.c, ptrace_trap_notify): only then has it.
func (p *Process) trap(ctx context.Context, threads []*Thread) error {
	for _, th := range threads {
		ws, err := p.next(ctx, th, 0)
		if err != nil {
			return err
		}
		if event(ws) != eventStop {
			return fmt.Errorf("tid %d: unexpected stop %#x", th.TID, uint32(ws))
		}
	}
	return nil
}

// next continues a thread with a signal, 0 for none, to its next stop.
func (p *Process) next(ctx context.Context, th *Thread, sig syscall.Signal) (unix.WaitStatus, error) {
	if err := cont(th.HostTID, sig); err != nil {
		return 0, err
	}
	return p.tr.wait(ctx, th.HostTID)
}
