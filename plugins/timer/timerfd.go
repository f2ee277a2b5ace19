package timer

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// ClaimFile saves a timerfd.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	if f.Link != "anon_inode:[timerfd]" {
		return plugin.ErrNotMine
	}
	fd, err := f.Dup()
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	defer unix.Close(fd)
	t, read, err := readTimerFD(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	if t.Absolute {
		now, err := timeOfDay()
		if err != nil {
			return plugin.Refuse(f, "%v", err)
		}
		t.setDeadline(now)
	} else {
		t.later(read - p.began)
	}
	p.state.addTimerFD(f.ID, t)
	return nil
}

// readTimerFD reads what a timerfd is set to, and when that was. The kernel says 0 of
// what remains both where a timer is not armed and where it expires in this moment, or
// has, and nobody has looked at it since (fs/timerfd.c, timerfd_get_remaining).
func readTimerFD(fd int) (t timerFD, read time.Duration, err error) {
	const tries = 10
	for range tries {
		steady := false
		read, err = closely(func() (err error) {
			t, steady, err = lookAtTimerFD(fd)
			return err
		})
		switch {
		case err != nil:
			return t, read, err
		case !steady:
		case t.Value > 0, t.Interval == 0 && t.Ticks > 0:
			return t, read, nil
		case t.Ticks == 0 && !expires(fd):
			return t, read, nil
		}
	}
	if t.Ticks > 0 { // each time before it could be read; timerfd_settime(2) would have cleared them
		t.Value = t.Interval
	}
	return t, read, nil
}

// expires says whether a timer does so just now.
func expires(fd int) bool {
	const moment = 1 // in milliseconds: the interrupt is due already
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, moment)
	return n > 0 || err == unix.EINTR
}

// lookAtTimerFD has the ticks that have passed counted, which the kernel does for an
// interval timer only when it is looked at, and reads fdinfo. That shows the ticks of a
// later moment than what remains (fs/timerfd.c, timerfd_show): both belong together,
// steady, where the ticks were the same before.
func lookAtTimerFD(fd int) (t timerFD, steady bool, err error) {
	var now unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &now); err != nil {
		return timerFD{}, false, os.NewSyscallError("timerfd_gettime", err)
	}
	before, err := timerFDInfo(fd)
	if err == nil {
		t, err = timerFDInfo(fd)
	}
	return t, t.Ticks == before.Ticks, err
}

// timerFDInfo reads fdinfo.
func timerFDInfo(fd int) (timerFD, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return timerFD{}, err
	}
	info, err := procparse.ParseFDInfo(raw)
	if err != nil {
		return timerFD{}, err
	}
	t, err := parseTimerFD(&info)
	if err != nil {
		return timerFD{}, fmt.Errorf("fdinfo: %w", err)
	}
	return t, nil
}

// parseTimerFD reads the fields of a timerfd, proc_pid_fdinfo(5). The value
// is what remains, whatever the flags.
func parseTimerFD(info *procparse.FDInfo) (t timerFD, err error) {
	if t.Clock, err = strconv.Atoi(info.Field("clockid")); err != nil {
		return timerFD{}, fmt.Errorf("clockid: %w", err)
	}
	if t.Ticks, err = strconv.ParseUint(info.Field("ticks"), 10, 64); err != nil {
		return timerFD{}, fmt.Errorf("ticks: %w", err)
	}
	flags, err := strconv.ParseUint(info.Field("settime flags"), 8, 32)
	if err != nil {
		return timerFD{}, fmt.Errorf("settime flags: %w", err)
	}
	if t.Value, err = parseTime(info.Field("it_value")); err != nil {
		return timerFD{}, fmt.Errorf("it_value: %w", err)
	}
	if t.Interval, err = parseTime(info.Field("it_interval")); err != nil {
		return timerFD{}, fmt.Errorf("it_interval: %w", err)
	}
	ofDay := t.Clock == unix.CLOCK_REALTIME || t.Clock == unix.CLOCK_REALTIME_ALARM
	t.Absolute = ofDay && flags&unix.TFD_TIMER_ABSTIME != 0
	t.CancelOnSet = t.Absolute && flags&unix.TFD_TIMER_CANCEL_ON_SET != 0
	return t, t.validate()
}

// parseTime parses "(SECONDS, NANOSECONDS)".
func parseTime(s string) (time.Duration, error) {
	inner, ok := strings.CutPrefix(s, "(")
	inner, closed := strings.CutSuffix(inner, ")")
	sec, nsec, comma := strings.Cut(inner, ", ")
	if !ok || !closed || !comma {
		return 0, fmt.Errorf("%q is not (seconds, nanoseconds)", s)
	}
	sn, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return 0, err
	}
	nn, err := strconv.ParseInt(nsec, 10, 64)
	if err != nil {
		return 0, err
	}
	return duration(sn, nn), nil
}

// duration saturates, as ktime_t does in the kernel.
func duration(sec, nsec int64) time.Duration {
	if sec >= math.MaxInt64/int64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(sec)*time.Second + time.Duration(nsec)
}

// setDeadline turns what remains into a time of day; a timer that is not
// armed has none.
func (t *timerFD) setDeadline(now int64) {
	switch {
	case t.Value == 0:
		t.Deadline = 0
	case int64(t.Value) > math.MaxInt64-now:
		t.Deadline = math.MaxInt64
	default:
		t.Deadline = now + int64(t.Value)
	}
}

func timeOfDay() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return now.Nano(), nil
}

// ReopenFile makes a timerfd, which is armed when the tree is about to run.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	saved, ok := p.state.TimerFDs[f.ID]
	if !ok {
		return -1, fmt.Errorf("open file %d (%s): not in the image", f.ID, f.Link)
	}
	fd, err := unix.TimerfdCreate(saved.Clock, unix.TFD_CLOEXEC|f.Flags&unix.TFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("open file %d (%s): timerfd_create of clock %d: %w", f.ID, f.Link, saved.Clock, err)
	}
	mine, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open file %d (%s): duplicate: %w", f.ID, f.Link, err)
	}
	if p.made == nil {
		p.made = make(map[int]int)
	}
	p.made[f.ID] = mine
	return fd, nil
}

// restore arms the timer.
func (t timerFD) restore(fd int, clock restartClock) error {
	_, err := closely(func() error { return t.arm(fd, clock.passed()) })
	return err
}

// arm sets the timer, from whose value so much has passed, and then the ticks,
// which timerfd_settime clears. A relative value is the same in every time
// namespace.
func (t timerFD) arm(fd int, passed time.Duration) error {
	flags, value := unix.TFD_TIMER_ABSTIME, t.Deadline
	if !t.Absolute {
		t.Ticks += t.forward(passed)
		flags, value = 0, int64(t.Value)
	}
	if t.CancelOnSet {
		flags |= unix.TFD_TIMER_CANCEL_ON_SET
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(value), Interval: unix.NsecToTimespec(int64(t.Interval))}
	if err := unix.TimerfdSettime(fd, flags, &spec, nil); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	if t.Ticks == 0 {
		return nil
	}
	return setTicks(fd, t.Ticks)
}
