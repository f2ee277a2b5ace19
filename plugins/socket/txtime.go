package socket

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// txTime is struct sock_txtime of linux/net_tstamp.h: when to send is told with
// each message.
type txTime struct {
	Clock int32  `json:"clock"`
	Flags uint32 `json:"flags,omitempty"`
}

// getTxTime returns nil where none was set, which reads as CLOCK_REALTIME
// without flags.
func getTxTime(fd int) (*txTime, error) {
	raw, err := getBytes(fd, unix.SOL_SOCKET, unix.SO_TXTIME)
	if err != nil && !unsupported(err) {
		return nil, os.NewSyscallError("getsockopt SO_TXTIME", err)
	}
	if err != nil || len(raw) < 8 {
		return nil, nil
	}
	e := binary.NativeEndian
	t := txTime{int32(e.Uint32(raw)), e.Uint32(raw[4:])}
	if t == (txTime{}) {
		return nil, nil
	}
	return &t, nil
}

func (t *txTime) apply(fd int) error {
	if t == nil {
		return nil
	}
	e := binary.NativeEndian
	raw := e.AppendUint32(e.AppendUint32(nil, uint32(t.Clock)), t.Flags)
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_TXTIME, string(raw)); err != nil {
		return fmt.Errorf("setsockopt SO_TXTIME to clock %d, flags %#x: %w", t.Clock, t.Flags, err)
	}
	return nil
}
