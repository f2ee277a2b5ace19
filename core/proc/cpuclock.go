package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// The clock id of a CPU clock, clock_getcpuclockid(3), is the inverted id of a
// process or thread, 0 for the caller's own, above three bits.
const (
	cpuClockWhich  = 3 // what is counted; 3: the clock of a device
	cpuClockSched  = 2 // all CPU time
	cpuClockThread = 4
)

// cpuClock returns the agent's id of a CPU clock on which p, one of all,
// sleeps, and false for a clock that counts time. A clock that the agent
// cannot read is 0.
func cpuClock(all func() []*Process, p *Process, clock int32) (host int32, ok bool) {
	if clock == unix.CLOCK_PROCESS_CPUTIME_ID {
		clock = ^0<<3 | cpuClockSched
	}
	if clock >= 0 || clock&cpuClockWhich == cpuClockWhich {
		return 0, false
	}
	pid := int(^(clock >> 3))
	if clock&cpuClockThread != 0 { // readable in its process only
		return 0, true
	}
	if pid == 0 || pid == p.pid {
		return processClock(p, clock), true
	}
	for _, q := range all() {
		if q.pid == pid {
			return processClock(q, clock), true
		}
	}
	return 0, true
}

func processClock(p *Process, clock int32) int32 { return ^int32(p.host)<<3 | clock&cpuClockWhich }

// cpuTime reads a CPU clock of the agent's.
func cpuTime(clock int32) (time.Duration, bool) {
	var ts unix.Timespec
	if clock == 0 || unix.ClockGettime(clock, &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}
