package socket

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/internal/sigio"
	"github.com/hiatus-project/hiatus/plugin"
)

// signals says to whom a socket sends SIGIO and SIGURG, socket(7), and where
// to set it.
type signals struct {
	sigio.Owner
	Flags int `json:"flags"` // open(2) flags, with O_ASYNC
	PID   int `json:"pid"`   // a process that has the socket
	FD    int `json:"fd"`    // there
}

// claimSignals saves what is not as after socket(2).
func (p *Plugin) claimSignals(f plugin.OpenFile, fd int) error {
	owner, err := sigio.Read(fd)
	if err != nil {
		return err
	}
	if owner.Owner == 0 && owner.Signal == 0 && f.Flags&unix.O_ASYNC == 0 {
		return nil
	}
	if len(f.Refs) == 0 {
		return fmt.Errorf("its signals were set up, and no process has it open")
	}
	if owner.Owner != 0 {
		host := owner.Owner
		if owner.Owner, err = p.inner(owner); err != nil {
			return fmt.Errorf("its signals go to pid %d of the host: %w", host, err)
		}
	}
	if p.state.Signals == nil {
		p.state.Signals = make(map[int]signals)
	}
	p.state.Signals[f.ID] = signals{Owner: owner, Flags: f.Flags, PID: f.Refs[0].PID, FD: f.Refs[0].FD}
	return nil
}

// inner returns the id of an owner as the program sees it.
func (p *Plugin) inner(o sigio.Owner) (int, error) {
	for _, proc := range p.procs {
		switch o.Type {
		case sigio.Process:
			if proc.HostPID() == o.Owner {
				return proc.PID(), nil
			}
		case sigio.Thread:
			for _, th := range proc.Threads() {
				if th.HostTID == o.Owner {
					return th.TID, nil
				}
			}
		case sigio.Group:
			host, inner, err := procparse.ProcessGroup(proc.HostPID())
			if err != nil {
				return 0, err
			}
			if host == o.Owner {
				return inner, nil
			}
		}
	}
	return 0, fmt.Errorf("which is no process of the computation")
}

func (s signals) validate() error {
	if s.PID <= 0 || s.FD < 0 {
		return fmt.Errorf("signals set by descriptor %d of process %d", s.FD, s.PID)
	}
	return s.Owner.Validate()
}

// restoreSignals sets them when all processes and threads are there.
func (p *Plugin) restoreSignals(ctx context.Context, procs []plugin.Process) error {
	byPID := make(map[int]plugin.Process, len(procs))
	for _, proc := range procs {
		byPID[proc.PID()] = proc
	}
	for _, s := range p.state.Signals {
		proc := byPID[s.PID]
		if proc == nil {
			return fmt.Errorf("no process %d has a socket with signals", s.PID)
		}
		if err := s.restore(ctx, proc); err != nil {
			return fmt.Errorf("pid %d fd %d: owner, signal and O_ASYNC: %w", s.PID, s.FD, err)
		}
	}
	return nil
}

func (s signals) restore(ctx context.Context, proc plugin.Process) error {
	addr, _ := proc.Scratch()
	if _, err := proc.WriteAt(s.Record(), int64(addr)); err != nil {
		return err
	}
	var calls []plugin.Call
	for _, c := range s.Commands(addr, s.Flags) {
		calls = append(calls, plugin.Call{Nr: unix.SYS_FCNTL, Args: [6]uintptr{uintptr(s.FD), c[0], c[1]}})
	}
	return proc.Batch(ctx, calls)
}
