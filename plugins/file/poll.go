package file

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// pollNow returns what poll(2) says at once. POLLERR and POLLHUP need not be
// asked for.
func pollNow(fd int, events int16) (int16, error) { return poll(fd, events, 0) }

func poll(fd int, events int16, timeout int) (int16, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		_, err := unix.Poll(fds, timeout)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("poll: %w", err)
		}
		return fds[0].Revents, nil
	}
}

// waitReadable waits for data. It looks at ctx several times a second, which
// poll(2) cannot do.
func waitReadable(ctx context.Context, fd int) error {
	const slice = 100 // ms
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for a terminal: %w", err)
		}
		events, err := poll(fd, unix.POLLIN, slice)
		if err != nil || events&unix.POLLIN != 0 {
			return err
		}
	}
}
