package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// Run lets the whole tree run.
func (r *Restorer) Run(ctx context.Context) error {
	if r.late != nil {
		return r.runLate(ctx)
	}
	return r.tr.Do(func() error {
		defer r.speak()
		reapers, err := r.prepareReapers(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for i := range slices.Backward(r.st.Processes) {
			ps := &r.st.Processes[i]
			if ps.Zombie {
				continue
			}
			_ = faultpoint.At(faultpoint.RestartReleasing)
			p := r.byPID[ps.PID]
			p.closeMem()
			for _, th := range p.threads {
				errs = append(errs, r.letGo(p, th))
			}
			if ps.Stopped {
				p.awaitStopped()
			}
		}
		return errors.Join(append(errs, r.letReapersGo(reapers))...)
	})
}

// letGo lets a thread run, if its process has not ended meanwhile: by what another of its
// threads does, which runs already, or by a signal.
func (r *Restorer) letGo(p *Process, th *Thread) error {
	err := r.shorten(p, th)
	await, err2 := p.letGo(th)
	if await != nil {
		await()
	}
	err = errors.Join(err, err2)
	if errors.Is(err, unix.ESRCH) {
		r.tr.letGoLate(th.HostTID)
		return nil
	}
	return err
}

// shorten takes what the restart has taken off the time-out of a call that is made again.
func (r *Restorer) shorten(p *Process, th *Thread) error {
	if th.until.IsZero() {
		return nil
	}
	if err := p.catchUp(th); err != nil && !isKilled(err) {
		r.warn("pid %d tid %d: its call ends late, by the time that the restart took: %v", p.pid, th.TID, err)
	}
	th.until = time.Time{}
	return setRegs(th.HostTID, th.Regs)
}

// letReapersGo lets go of the first process last.
func (r *Restorer) letReapersGo(reapers []*Process) error {
	var errs []error
	for _, p := range reapers {
		if p == r.stub {
			_ = faultpoint.At(faultpoint.RestartLastHold)
		}
		errs = append(errs, detach(p.threads[0].HostTID))
	}
	return errors.Join(errs...)
}

// releaseReapers lets go of them when they need hold nothing any more.
func (r *Restorer) releaseReapers(ctx context.Context) error {
	drop := sys(unix.SYS_CLOSE_RANGE, 0, uint64(r.sockFD)-1, 0).as("close_range")
	if err := r.stub.run(ctx, r.stub.threads[0], []call{drop}); err != nil {
		return err
	}
	reapers, err := r.prepareReapers(ctx)
	if err != nil {
		return err
	}
	return r.letReapersGo(reapers)
}

// prepareReapers makes the reaper and the first process wait for children as
// soon as they are let go, and outlive the agent from then on. The first process
// must be the last: as long as it is held it ends with the agent, and with it
// its whole pid namespace, pid_namespaces(7).
func (r *Restorer) prepareReapers(ctx context.Context) ([]*Process, error) {
	list := []*Process{r.reaper}
	if r.stub != r.reaper {
		list = append(list, r.stub)
	}
	for _, p := range list {
		calls := []call{
			sys(unix.SYS_CLOSE, uint64(r.sockFD)),
			sys(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0).as("PR_SET_PDEATHSIG"),
		}
		th := p.threads[0]
		if err := p.run(ctx, th, calls); err != nil {
			return nil, err
		}
		th.Regs.atReaper(p.inj.base+blobReaper, p.inj.base+blobReportOff, r.sockFD+1)
		err := p.own(th)
		p.closeMem()
		if err != nil {
			return nil, fmt.Errorf("prepare the reaper: %w", err)
		}
	}
	return list, nil
}

// Ended returns where the tree's ends are reported: the host pids of the
// first process and of the reaper, and the reports.
func (r *Restorer) Ended() (stub, reaper int, reports *os.File) {
	return r.stub.host, r.reaper.host, r.report
}

// HostPID returns the host's id of a process, 0 for none.
func (r *Restorer) HostPID(pid int) int {
	if p := r.byPID[pid]; p != nil {
		return p.host
	}
	return 0
}
