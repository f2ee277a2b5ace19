package proc

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
)

// noUserfaultError says why there is none to be had, though the process is well.
type noUserfaultError struct{ error }

func (e noUserfaultError) Unwrap() error { return e.error }

// takeUserfault makes a userfaultfd(2) of the memory of p, takes it away from it,
// and starts it. It is called on the tracer's thread.
func (p *Process) takeUserfault(ctx context.Context, start func(fd int) error) (int, error) {
	made := []call{sys(unix.SYS_USERFAULTFD, linux.UserfaultFlags).may().as("userfaultfd")}
	if err := p.run(ctx, p.threads[0], made); err != nil {
		return -1, err
	}
	if err := made[0].err(); err != nil {
		return -1, noUserfaultError{err}
	}
	fd, err := linux.DupFrom(p.liveTID(), int(made[0].ret))
	// Not with ctx: the program must not keep it.
	cerr := p.run(context.WithoutCancel(ctx), p.threads[0], []call{sys(unix.SYS_CLOSE, uint64(made[0].ret))})
	if err == nil {
		if err = errors.Join(cerr, start(fd)); err != nil {
			unix.Close(fd)
		}
	}
	switch {
	case cerr != nil:
		return -1, cerr
	case err != nil:
		return -1, noUserfaultError{err}
	}
	return fd, nil
}
