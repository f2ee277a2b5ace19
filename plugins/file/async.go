package file

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/sigio"
	"github.com/hiatus-project/hiatus/plugin"
)

// claimAsync saves what is not as after open(2). The owner is resolved when
// the processes are shown.
func (p *Plugin) claimAsync(f plugin.OpenFile, s *file, fd int) error {
	owner, err := sigio.Read(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	if owner.Owner == 0 && owner.Signal == 0 && s.Flags&unix.O_ASYNC == 0 && s.lease() == unix.F_UNLCK {
		return nil
	}
	if len(f.Refs) == 0 {
		return plugin.Refuse(f, "its signals were set up, and no process has it open")
	}
	if owner.Owner != 0 && s.Kind == kindDirectory {
		// Nothing else makes use of it: a directory has no O_ASYNC.
		return plugin.Refuse(f, "it has an owner for signals, as F_NOTIFY of fcntl(2) sets it, of which the kernel tells nothing more")
	}
	s.Async = &sigio.Owner{Type: owner.Type, Signal: owner.Signal}
	if owner.Owner == 0 {
		return nil
	}
	p.saving.resolve(reference{
		group:   owner.Type == sigio.Group,
		thread:  owner.Type == sigio.Thread,
		host:    owner.Owner,
		dst:     &s.Async.Owner,
		missing: plugin.Refuse(f, "its signals go to pid %d of the host, which is no process of the computation", owner.Owner),
	})
	return nil
}

// restoreAsync makes the calls in the first process that has the description,
// for siginfo carries the descriptor (si_fd) of the one who set O_ASYNC.
func (p *Plugin) restoreAsync(ctx context.Context, proc plugin.Process) error {
	for _, s := range p.making.async[proc.PID()] {
		if err := s.restore(ctx, proc); err != nil {
			return fmt.Errorf("pid %d fd %d: owner, signal, lease and O_ASYNC: %w", proc.PID(), s.fd, err)
		}
	}
	return nil
}

func (s asyncFile) restore(ctx context.Context, proc plugin.Process) error {
	a := s.file.Async
	addr, _ := proc.Scratch()
	if _, err := proc.WriteAt(a.Record(), int64(addr)); err != nil {
		return err
	}
	var calls []plugin.Call
	add := func(cmd, arg uintptr) {
		calls = append(calls, plugin.Call{Nr: unix.SYS_FCNTL, Args: [6]uintptr{uintptr(s.fd), cmd, arg}})
	}
	if lease := s.file.lease(); lease != unix.F_UNLCK {
		add(unix.F_SETLEASE, uintptr(lease)) // first: it sets an owner
	}
	for _, c := range a.Commands(addr, s.file.Flags) {
		add(c[0], c[1])
	}
	return proc.Batch(ctx, calls)
}
