package file

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Device numbers, Documentation/admin-guide/devices.txt of the kernel.
const (
	majorMem = 1     // null 3, zero 5, full 7, random 8, urandom 9
	majorPts = 136   // UNIX98_PTY_SLAVE_MAJOR; the minor is the number of the pty
	devTTY   = 0x500 // 5:0, the opener's controlling terminal
	devPtmx  = 0x502 // 5:2
)

// deviceKind tells what a character device is, and refuses those whose state
// is in hardware or in a driver that is not known.
func (p *Plugin) deviceKind(f plugin.OpenFile) (kind, error) {
	rdev := uint64(f.Stat.Rdev)
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	switch {
	case rdev == devPtmx: // TIOCGPGRP of a master would mislead isLaunchTerminal
		return kindPtmx, nil
	case major == majorMem && slices.Contains([]uint32{3, 5, 7, 8, 9}, minor):
		return kindDevice, nil
	case p.isLaunchTerminal(f):
		return kindTerminal, nil
	case rdev == devTTY:
		return ptsBehindTTY(f)
	case major == majorPts:
		return slaveKind(f)
	}
	return "", plugin.Refuse(f, "character device %s is not kept", deviceName(uint64(f.Stat.Rdev)))
}

func deviceName(rdev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
}
