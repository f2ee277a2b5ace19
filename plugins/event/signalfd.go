package event

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

func claimSignalFD(f plugin.OpenFile, info procparse.FDInfo) (file, error) {
	mask, err := strconv.ParseUint(info.Field("sigmask"), 16, 64)
	if err != nil {
		return file{}, plugin.Refuse(f, "fdinfo sigmask: %v", err)
	}
	return file{SignalFD: &signalFD{Mask: mask}}, nil
}

// reopen needs no process: a signalfd reads the signals of whoever reads it.
func (s *signalFD) reopen() (int, error) {
	var set unix.Sigset_t
	set.Val[0] = s.Mask
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("signalfd4: %w", err)
	}
	return fd, nil
}
