// Package sigio reads and sets to whom an open file description sends SIGIO
// or SIGURG: F_SETOWN_EX, F_SETSIG and O_ASYNC of fcntl(2).
package sigio

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Types of owner, F_SETOWN_EX of fcntl(2).
const (
	Thread  = 0 // F_OWNER_TID
	Process = 1 // F_OWNER_PID
	Group   = 2 // F_OWNER_PGRP
)

// Owner is who gets the signal, and which.
type Owner struct {
	Type   int32 `json:"type"`
	Owner  int   `json:"owner"`  // as the program sees it; 0 for none
	Signal int   `json:"signal"` // 0 is SIGIO
}

// ownerEx is struct f_owner_ex.
type ownerEx struct{ Type, PID int32 }

// Read returns the owner of the description of fd, with the id that the
// caller sees.
func Read(fd int) (Owner, error) {
	var ex ownerEx
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETOWN_EX, uintptr(unsafe.Pointer(&ex)))
	if errno != 0 {
		return Owner{}, fmt.Errorf("fcntl F_GETOWN_EX: %w", errno)
	}
	signal, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	if err != nil {
		return Owner{}, fmt.Errorf("fcntl F_GETSIG: %w", err)
	}
	return Owner{Type: ex.Type, Owner: int(ex.PID), Signal: signal}, nil
}

// Validate refuses what fcntl(2) would not take.
func (o *Owner) Validate() error {
	if o == nil {
		return nil
	}
	if o.Type < Thread || o.Type > Group || o.Owner < 0 || o.Signal < 0 || o.Signal > 64 {
		return fmt.Errorf("owner %d of type %d, signal %d", o.Owner, o.Type, o.Signal)
	}
	return nil
}

// Record is what F_SETOWN_EX takes the address of.
func (o *Owner) Record() []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(o.Type))
	return binary.NativeEndian.AppendUint32(b, uint32(o.Owner))
}

// Commands are the commands of fcntl(2) and their arguments that set the
// owner, whose Record stands at record, and with O_ASYNC among them the
// status flags of the description. A process makes them itself: siginfo
// carries its descriptor.
func (o *Owner) Commands(record uint64, flags int) [][2]uintptr {
	calls := [][2]uintptr{{unix.F_SETSIG, uintptr(o.Signal)}, {unix.F_SETOWN_EX, uintptr(record)}}
	if flags&unix.O_ASYNC != 0 {
		const status = unix.O_APPEND | unix.O_ASYNC | unix.O_DIRECT | unix.O_NOATIME | unix.O_NONBLOCK
		calls = append(calls, [2]uintptr{unix.F_SETFL, uintptr(flags & status)})
	}
	return calls
}
