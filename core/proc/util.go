package proc

import (
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// le is the byte order of both architectures.
var le = binary.LittleEndian

// scratch has room for what ptrace(2) reads at most, in the pause: a page of fresh memory
// costs a fault.
var scratch = sync.Pool{New: func() any { return new([scratchSize]byte) }}

const scratchSize = 64 << 10

func timeOf(t unix.Timespec) time.Time {
	if t.Nano() == 0 {
		return time.Time{}
	}
	return time.Unix(t.Unix()).UTC()
}
