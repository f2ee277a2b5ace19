package file

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isNotificationPipe asks for a buffer of no notes, which is EINVAL for a
// notification pipe without a buffer, EBUSY for one with, ENODEV for any other
// pipe (kernel/watch_queue.c, watch_queue_set_size), and ENOTTY where the kernel
// has no notifications. Nothing else tells: the flag is not kept.
func isNotificationPipe(fd int) bool {
	const setSize = 0x5760 // IOC_WATCH_QUEUE_SET_SIZE
	err := unix.IoctlSetInt(fd, setSize, 0)
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY)
}

// givenPipes lists the pipes that the supervisor has inherited above its
// standard descriptors, by their links.
func givenPipes() (map[string]bool, error) {
	fds, err := inheritedFDs()
	if err != nil {
		return nil, fmt.Errorf("inherited pipes: %w", err)
	}
	given := map[string]bool{}
	for _, fd := range fds {
		if link, err := os.Readlink(procSelf(fd)); fd > 2 && err == nil && strings.HasPrefix(link, "pipe:") {
			given[link] = true
		}
	}
	return given, nil
}

// inheritedFDs lists the descriptors that the supervisor has from whoever started it. Its own would
// be closed by execve(2), as the Go runtime opens them.
func inheritedFDs() (fds []int, err error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}
