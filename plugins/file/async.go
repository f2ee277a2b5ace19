package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Types of owner, F_SETOWN_EX of fcntl(2).
const (
	ownerTID  = 0
	ownerPID  = 1
	ownerPGRP = 2
)

// async says to whom a description sends signals: F_SETOWN_EX, F_SETSIG and
// O_ASYNC of fcntl(2).
type async struct {
	Type   int32 `json:"type"`
	Owner  int   `json:"owner"`  // as the program sees it; 0 for none
	Signal int   `json:"signal"` // 0 is SIGIO
}

func (a *async) validate() error {
	if a == nil {
		return nil
	}
	if a.Type < ownerTID || a.Type > ownerPGRP || a.Owner < 0 || a.Signal < 0 || a.Signal > 64 {
		return fmt.Errorf("owner %d of type %d, signal %d", a.Owner, a.Type, a.Signal)
	}
	return nil
}

// ownerEx is struct f_owner_ex.
type ownerEx struct {
	Type int32
	PID  int32
}

// claimAsync saves what is not as after open(2). The owner is resolved when
// the processes are shown.
func (p *Plugin) claimAsync(f plugin.OpenFile, s *file, fd int) error {
	owner, err := getOwner(fd)
	if err != nil {
		return plugin.Refuse(f, "fcntl F_GETOWN_EX: %v", err)
	}
	signal, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	if err != nil {
		return plugin.Refuse(f, "fcntl F_GETSIG: %v", err)
	}
	if owner.PID == 0 && signal == 0 && s.Flags&unix.O_ASYNC == 0 && s.lease() == unix.F_UNLCK {
		return nil
	}
	if len(f.Refs) == 0 {
		return plugin.Refuse(f, "its signals were set up, and no process has it open")
	}
	if owner.PID != 0 && s.Kind == kindDirectory {
		// Nothing else makes use of it: a directory has no O_ASYNC.
		return plugin.Refuse(f, "it has an owner for signals, as F_NOTIFY of fcntl(2) sets it, of which the kernel tells nothing more")
	}
	s.Async = &async{Type: owner.Type, Signal: signal}
	if owner.PID == 0 {
		return nil
	}
	p.saving.resolve(reference{
		group:   owner.Type == ownerPGRP,
		thread:  owner.Type == ownerTID,
		host:    int(owner.PID),
		dst:     &s.Async.Owner,
		missing: plugin.Refuse(f, "its signals go to pid %d of the host, which is no process of the computation", owner.PID),
	})
	return nil
}

// restoreAsync makes the calls in the first process that has the description,
// for siginfo carries the descriptor (si_fd) of the one who set O_ASYNC. Those
// whose owner is a thread come late, when the threads are there.
func (p *Plugin) restoreAsync(ctx context.Context, proc plugin.Process, late bool) error {
	for _, s := range p.making.async[proc.PID()] {
		if s.file.Async.late() != late {
			continue
		}
		if err := s.restore(ctx, proc); err != nil {
			return fmt.Errorf("pid %d fd %d: owner, signal, lease and O_ASYNC: %w", proc.PID(), s.fd, err)
		}
	}
	return nil
}

func (a *async) late() bool { return a.Type == ownerTID && a.Owner != 0 }

// restoreLate is restoreAsync for all processes.
func (p *Plugin) restoreLate(ctx context.Context, procs []plugin.Process) error {
	for _, proc := range procs {
		if err := p.restoreAsync(ctx, proc, true); err != nil {
			return err
		}
	}
	return nil
}

func (s asyncFile) restore(ctx context.Context, proc plugin.Process) error {
	a := s.file.Async
	addr, _ := proc.Scratch()
	var owner bytes.Buffer
	if err := binary.Write(&owner, binary.NativeEndian, ownerEx{a.Type, int32(a.Owner)}); err != nil {
		return err
	}
	if _, err := proc.WriteAt(owner.Bytes(), int64(addr)); err != nil {
		return err
	}
	fd := uintptr(s.fd)
	var calls []plugin.Call
	add := func(cmd int, arg uintptr) {
		calls = append(calls, plugin.Call{Nr: unix.SYS_FCNTL, Args: [6]uintptr{fd, uintptr(cmd), arg}})
	}
	if lease := s.file.lease(); lease != unix.F_UNLCK {
		add(unix.F_SETLEASE, uintptr(lease)) // first: it sets an owner
	}
	add(unix.F_SETSIG, uintptr(a.Signal))
	add(unix.F_SETOWN_EX, uintptr(addr))
	if s.file.Flags&unix.O_ASYNC != 0 {
		add(unix.F_SETFL, uintptr(s.file.Flags&(statusFlags|unix.O_ASYNC)))
	}
	return proc.Batch(ctx, calls)
}
