package socket

import "golang.org/x/sys/unix"

// pollReady is poll(2) without a time-out, which a signal ends where nothing is
// ready: Go's runtime sends some to its own threads.
func pollReady(fds []unix.PollFd) error {
	for {
		if _, err := unix.Poll(fds, 0); err != unix.EINTR {
			return err
		}
	}
}
