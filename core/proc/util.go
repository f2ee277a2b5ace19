package proc

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// le is the byte order of both architectures.
var le = binary.LittleEndian

func timeOf(t unix.Timespec) time.Time {
	if t.Nano() == 0 {
		return time.Time{}
	}
	return time.Unix(t.Unix()).UTC()
}
