package event

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

func claimEventFD(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	count, err := strconv.ParseUint(info.Field("eventfd-count"), 16, 64)
	if err != nil {
		return file{}, plugin.Refuse(f, "fdinfo eventfd-count: %v", err)
	}
	if count == math.MaxUint64 {
		return file{}, plugin.Refuse(f, "its counter has overflowed, which no write can repeat")
	}
	semaphore, err := isSemaphore(f, info, count)
	if err != nil {
		return file{}, plugin.Refuse(f, "cannot tell whether it is a semaphore: %v", err)
	}
	return file{EventFD: &eventFD{Count: count, Semaphore: semaphore}}, nil
}

// isSemaphore says whether EFD_SEMAPHORE is set. Before Linux 6.5 fdinfo does
// not tell.
func isSemaphore(f plugin.OpenFile, info procparse.FDInfo, count uint64) (bool, error) {
	if s := info.Field("eventfd-semaphore"); s != "" {
		return s == "1", nil
	}
	fd, err := f.Dup()
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return probeSemaphore(fd, count)
}

// probeSemaphore finds EFD_SEMAPHORE by its effect: from a counter of two or
// more a semaphore reads 1, any other eventfd the whole. It leaves the counter
// as it was. It never blocks, provided that nobody else uses the eventfd.
func probeSemaphore(fd int, count uint64) (bool, error) {
	before := max(count, 2)
	if err := addEventFD(fd, before-count); err != nil {
		return false, err
	}
	var buf [8]byte
	if _, err := unix.Read(fd, buf[:]); err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	semaphore := binary.NativeEndian.Uint64(buf[:]) == 1
	if !semaphore {
		return false, addEventFD(fd, count)
	}
	for now := before - 1; now > count; now-- {
		if _, err := unix.Read(fd, buf[:]); err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
	}
	if count == before {
		return true, addEventFD(fd, 1)
	}
	return true, nil
}

func addEventFD(fd int, n uint64) error {
	if n == 0 {
		return nil
	}
	if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, n)); err != nil {
		return fmt.Errorf("write of %d: %w", n, err)
	}
	return nil
}

func (e *eventFD) reopen() (int, error) {
	flags := unix.EFD_CLOEXEC
	if e.Semaphore {
		flags |= unix.EFD_SEMAPHORE
	}
	fd, err := unix.Eventfd(0, flags)
	if err != nil {
		return -1, fmt.Errorf("eventfd2: %w", err)
	}
	// The initial value of eventfd2 has 32 bits, the counter 64.
	if err := addEventFD(fd, e.Count); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
