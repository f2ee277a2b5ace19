package timer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Run(t, Definition(), plugintest.Suite{
		Fill: func(t *testing.T, p plugin.Plugin, _ *plugintest.Host) {
			fd := newTimerFD(t, unix.CLOCK_MONOTONIC, 0, spec{Value: time.Hour, Interval: time.Second})
			if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), plugintest.OpenFile(t, 1, fd)); err != nil {
				t.Fatal(err)
			}
			self := plugintest.Self(t)
			create(t, self, posixTimer{Clock: unix.CLOCK_BOOTTIME, Signal: 40, Value: 1<<63 + 1, Spec: spec{Value: time.Hour}})
			if err := p.(plugin.ProcessSaver).SaveProcess(t.Context(), self); err != nil {
				t.Fatal(err)
			}
		},
		Invalid: map[string]string{
			"overrun":               `{"processes":{"1":{"timers":[{"id":0,"clock":1,"signal":10,"sigev_value":"0","notify":0,"tid":0,"spec":{"value_ns":1,"interval_ns":1},"overrun":-1}]}}}`,
			"now":                   `{"now_ns":-1}`,
			"timerfd clock":         `{"timerfds":{"1":{"clock":2,"ticks":"0"}}}`,
			"timerfd value":         `{"timerfds":{"1":{"clock":1,"ticks":"0","value_ns":-1}}}`,
			"timerfd deadline":      `{"timerfds":{"1":{"clock":0,"ticks":"0","absolute":true,"deadline_ns":-1}}}`,
			"timerfd absolute":      `{"timerfds":{"1":{"clock":1,"ticks":"0","absolute":true}}}`,
			"itimer":                `{"processes":{"1":{"itimers":{"3":{"value_ns":1,"interval_ns":0}}}}}`,
			"itimer value":          `{"processes":{"1":{"itimers":{"0":{"value_ns":1,"interval_ns":-5}}}}}`,
			"timer id":              `{"processes":{"1":{"timers":[{"id":-1,"sigev_value":"0"}]}}}`,
			"timer id above int":    `{"processes":{"1":{"timers":[{"id":2147483648,"sigev_value":"0"}]}}}`,
			"timer twice":           `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0"},{"id":1,"sigev_value":"0"}]}}}`,
			"timer clock":           `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","clock":4294967296}]}}}`,
			"timer signal":          `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","signal":65}]}}}`,
			"timer notify":          `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","notify":3}]}}}`,
			"timer without thread":  `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","notify":4}]}}}`,
			"timer with a thread":   `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","notify":0,"tid":4}]}}}`,
			"timer remaining below": `{"processes":{"1":{"timers":[{"id":1,"sigev_value":"0","spec":{"value_ns":-1,"interval_ns":0}}]}}}`,
		},
	})
}

func TestTimerFD(t *testing.T) {
	for _, tc := range []struct {
		name         string
		clock, flags int
		spec         spec
	}{
		{"monotonic", unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK, spec{Value: time.Hour, Interval: time.Minute}},
		{"boottime", unix.CLOCK_BOOTTIME, 0, spec{Value: time.Hour}},
		{"realtime", unix.CLOCK_REALTIME, 0, spec{Value: time.Hour}},
		{"not armed", unix.CLOCK_MONOTONIC, 0, spec{}},
		{"for ever", unix.CLOCK_MONOTONIC, 0, spec{Value: 1<<63 - 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before timerFD
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				fd := newTimerFD(t, tc.clock, tc.flags, tc.spec)
				before = read(t, fd)
				return []int{fd}
			}, func(t *testing.T, fds []int) {
				after := read(t, fds[0])
				// Its time stood still in between, but ran on in setup.
				if after.Value > before.Value || (after.Value == 0) != (before.Value == 0) {
					t.Errorf("%v remain, %v did before", after.Value, before.Value)
				}
				after.Value = before.Value
				if after != before {
					t.Errorf("%+v, was %+v", after, before)
				}
				flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0)
				if err != nil || flags&unix.O_NONBLOCK != tc.flags {
					t.Errorf("flags %#o, %v", flags, err)
				}
			})
		})
	}
}

// TestTimerFDExpired checks the ticks that nobody has read, of a timer that
// goes on and of one that does not.
func TestTimerFDExpired(t *testing.T) {
	for name, interval := range map[string]time.Duration{"once": 0, "each hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				fd := newTimerFD(t, unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK, spec{Value: 1, Interval: interval})
				waitReadable(t, fd)
				return []int{fd}
			}, func(t *testing.T, fds []int) {
				var ticks [8]byte
				if _, err := unix.Read(fds[0], ticks[:]); err != nil || binary.NativeEndian.Uint64(ticks[:]) != 1 {
					t.Errorf("read %v, %v, want one tick", ticks, err)
				}
				if after := read(t, fds[0]); (after.Value > 0) != (interval > 0) || after.Interval != interval {
					t.Errorf("%+v", after)
				}
			})
		})
	}
}

func TestTimerFDAbsolute(t *testing.T) {
	now, err := timeOfDay()
	if err != nil {
		t.Fatal(err)
	}
	deadline := now + int64(time.Hour)
	const flags = unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET
	setup := func(t *testing.T) []int {
		fd := newTimerFD(t, unix.CLOCK_REALTIME, 0, spec{})
		s := unix.ItimerSpec{Value: unix.NsecToTimespec(deadline)}
		if err := unix.TimerfdSettime(fd, flags, &s, nil); err != nil {
			t.Fatal(err)
		}
		return []int{fd}
	}
	plugintest.RoundTrip(t, Definition(), setup, func(t *testing.T, fds []int) {
		after := read(t, fds[0])
		if !after.Absolute || !after.CancelOnSet {
			t.Errorf("%+v, want an absolute timer", after)
		}
	})

	t.Run("deadline", func(t *testing.T) {
		p := &Plugin{}
		if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, setup(t)...)); err != nil {
			t.Fatal(err)
		}
		if got := p.state.TimerFDs[1].Deadline; got < deadline {
			t.Errorf("deadline %d, want %d or what it took to look", got, deadline)
		}
	})
	t.Run("saturates", func(t *testing.T) {
		far := timerFD{spec: spec{Value: 1<<63 - 1}}
		far.setDeadline(now)
		if far.Deadline != 1<<63-1 {
			t.Errorf("deadline %d", far.Deadline)
		}
	})
}

func TestITimers(t *testing.T) {
	self := plugintest.Self(t)
	want := map[int]spec{
		unix.ITIMER_REAL:    {Value: time.Hour, Interval: 1500 * time.Microsecond},
		unix.ITIMER_VIRTUAL: {Value: 2 * time.Hour},
		unix.ITIMER_PROF:    {Value: 3 * time.Hour, Interval: time.Hour},
	}
	defer setITimers(t, self, map[int]spec{0: {}, 1: {}, 2: {}})
	setITimers(t, self, want)

	begun := time.Now()
	state := saved(t, self)
	setITimers(t, self, map[int]spec{0: {}, 1: {}, 2: {}})
	restored(t, self, state)

	got, err := saveProcess(t.Context(), self, agentTime(), nil)
	if err != nil {
		t.Fatal(err)
	}
	looking := time.Since(begun)
	for which, w := range want {
		// Of CPU time the kernel counts whole ticks, of 10 ms at most. And a timer
		// ends late by what it took to look at it, never early.
		g := got.ITimers[which]
		if g.Value > w.Value+10*time.Millisecond+looking || g.Value < w.Value-time.Minute || g.Interval != w.Interval {
			t.Errorf("timer %d: %+v, want %+v", which, g, w)
		}
	}
}

func TestPOSIXTimers(t *testing.T) {
	for _, exact := range []bool{true, false} {
		t.Run(map[bool]string{true: "exact ids", false: "counting up"}[exact], func(t *testing.T) {
			self := plugintest.Self(t)
			made := []posixTimer{
				{Clock: unix.CLOCK_MONOTONIC, Signal: 40, Value: 0xdeadbeefcafe, Spec: spec{Value: time.Hour, Interval: time.Minute}},
				{Clock: unix.CLOCK_REALTIME, Notify: sigevNone, Spec: spec{Value: time.Hour}},
				{Clock: unix.CLOCK_BOOTTIME, Notify: sigevThreadID, TID: self.TID(), Signal: int(unix.SIGUSR1)},
				{Clock: unix.CLOCK_PROCESS_CPUTIME_ID, Signal: int(unix.SIGPROF), Spec: spec{Value: time.Hour}},
				{Clock: unix.CLOCK_THREAD_CPUTIME_ID, Notify: sigevThreadID, TID: self.TID(), Signal: int(unix.SIGPROF), Spec: spec{Value: time.Hour}},
			}
			for i := range made {
				made[i].ID = create(t, self, made[i])
			}
			begun := time.Now()
			state := saved(t, self)
			for _, m := range made {
				remove(t, self, m.ID)
			}
			if !exact {
				// A new process counts from 0; this one has passed the ids.
				self.FailCall(unix.SYS_PRCTL, unix.EINVAL)
				moved := state.Processes[os.Getpid()]
				for i := range moved.Timers {
					moved.Timers[i].ID += 2 * len(made)
					made[i].ID += 2 * len(made)
				}
			}
			restored(t, self, state)
			got, err := readTimers(self, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range made {
				g := got[i]
				switch m.Clock { // as the kernel shows them
				case unix.CLOCK_THREAD_CPUTIME_ID:
					m.Clock = ^self.TID()<<3 | cpuClockPerThread | cpuClockSched
				case unix.CLOCK_PROCESS_CPUTIME_ID:
					g.Clock, m.Clock = 0, 0 // 2 or its pid 0 form, by the kernel's version
				}
				m.Spec, g.Spec = spec{}, spec{}
				if g != m {
					t.Errorf("%+v, want %+v", g, m)
				}
			}
			left, looking := remaining(t, self, made[0].ID), time.Since(begun)
			if left.Value > time.Hour+looking || left.Value < 59*time.Minute || left.Interval != time.Minute {
				t.Errorf("remaining %+v, and looking took %v", left, looking)
			}
			for _, g := range got {
				remove(t, self, g.ID)
			}
		})
	}
}

func TestPOSIXTimerErrors(t *testing.T) {
	self := plugintest.Self(t)
	one := process{Timers: []posixTimer{{ID: 1 << 20, Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone}}}
	t.Run("create", func(t *testing.T) {
		self.FailCall(unix.SYS_TIMER_CREATE, unix.EAGAIN)
		defer self.FailCall(unix.SYS_TIMER_CREATE, 0)
		err := one.restore(t.Context(), self, restartClock{})
		if !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "POSIX timer 1048576: timer_create of clock 1") {
			t.Errorf("%v", err)
		}
	})
	t.Run("id in use", func(t *testing.T) {
		used := create(t, self, posixTimer{Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone})
		twice := process{Timers: []posixTimer{{ID: used, Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone}}}
		if err := twice.restore(t.Context(), self, restartClock{}); err == nil {
			t.Error("a second timer got the id of the first")
		}
	})
}

func TestAsSeenBy(t *testing.T) {
	threads := []plugin.Thread{{TID: 2, HostTID: 102}, {TID: 3, HostTID: 103}}
	for _, tc := range []struct {
		name    string
		threads []plugin.Thread
		in      procparse.Timer
		want    posixTimer
		refusal string
	}{
		{name: "process", threads: threads, in: procparse.Timer{Notify: "signal", PID: 102, Signal: 14},
			want: posixTimer{Signal: 14}},
		{name: "thread", threads: threads, in: procparse.Timer{Notify: "signal", TID: 103, Signal: 14},
			want: posixTimer{Signal: 14, Notify: sigevThreadID, TID: 3}},
		{name: "profiler", threads: threads, in: procparse.Timer{Notify: "signal", TID: 103, Signal: 27, Clock: 3},
			want: posixTimer{Signal: 27, Notify: sigevThreadID, TID: 3, Clock: ^3<<3 | 6}},
		{name: "one thread", threads: threads[:1], in: procparse.Timer{Notify: "signal", PID: 102, Clock: 3},
			want: posixTimer{Clock: 3}},
		{name: "one thread, newer kernels", threads: threads[:1], in: procparse.Timer{Notify: "signal", PID: 102, Clock: -2},
			want: posixTimer{Clock: -2}},
		{name: "profiler, newer kernels", threads: threads, in: procparse.Timer{Notify: "signal", TID: 103, Signal: 27, Clock: -2},
			want: posixTimer{Signal: 27, Notify: sigevThreadID, TID: 3, Clock: ^3<<3 | 6}},
		{name: "clock of a named thread", threads: threads, in: procparse.Timer{Notify: "signal", PID: 102, Clock: ^3<<3 | 6},
			want: posixTimer{Clock: ^3<<3 | 6}},
		{name: "clock of the process", threads: threads, in: procparse.Timer{Notify: "signal", PID: 102, Clock: -6},
			want: posixTimer{Clock: -6}},
		{name: "ended thread", threads: threads, in: procparse.Timer{Notify: "signal", TID: 104},
			refusal: "a thread that has ended"},
		{name: "clock of a thread", threads: threads, in: procparse.Timer{Notify: "signal", PID: 102, Clock: 3},
			refusal: "the CPU time of one of several threads"},
		{name: "clock of a thread, for the library", threads: threads, in: procparse.Timer{Notify: "signal", TID: 103, Signal: 32, Clock: 3},
			refusal: "the CPU time of one of several threads"},
		{name: "unknown", threads: threads, in: procparse.Timer{Notify: "letter", PID: 102},
			refusal: "unknown notification"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := asSeenBy(tc.threads, tc.in)
			if tc.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refusal) {
					t.Errorf("%v, want %q", err, tc.refusal)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestReopenUnknown(t *testing.T) {
	f := plugin.OpenFile{ID: 3, Link: "anon_inode:[timerfd]"}
	if _, err := new(Plugin).ReopenFile(t.Context(), f); err == nil || !strings.Contains(err.Error(), "open file 3") {
		t.Errorf("%v", err)
	}
}

func FuzzParseTimerFD(f *testing.F) {
	f.Add([]byte("clockid: 0\nticks: 0\nsettime flags: 01\nit_value: (0, 49406829)\nit_interval: (1, 0)\n"))
	f.Add([]byte("clockid: 1\nticks: 1\nsettime flags: 00\nit_value: (9223372036, 854775807)\nit_interval: (-1, -1)\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := procparse.ParseFDInfo(raw)
		if err != nil {
			return
		}
		if got, err := parseTimerFD(&info); err == nil && got.validate() != nil {
			t.Errorf("%q: %+v is not valid", raw, got)
		}
	})
}

func newTimerFD(t *testing.T, clock, flags int, s spec) int {
	t.Helper()
	fd, err := unix.TimerfdCreate(clock, flags|unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	its := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(s.Value)), Interval: unix.NsecToTimespec(int64(s.Interval))}
	if err := unix.TimerfdSettime(fd, 0, &its, nil); err != nil {
		t.Fatal(err)
	}
	return fd
}

func waitReadable(t *testing.T, fd int) {
	t.Helper()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, fd int) timerFD {
	t.Helper()
	info, err := procparse.ParseFDInfo(plugintest.OpenFile(t, 1, fd).FDInfo)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseTimerFD(&info)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// saved takes the timers of self through Save and Load.
func saved(t *testing.T, self *plugintest.Process) state {
	t.Helper()
	p, second := &Plugin{}, &Plugin{}
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreCheckpoint}); err != nil {
		t.Fatal(err)
	}
	if err := p.SaveProcess(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := p.Save(t.Context(), &image); err != nil {
		t.Fatal(err)
	}
	if err := second.Load(t.Context(), stateFormat, &image); err != nil {
		t.Fatal(err)
	}
	return second.state
}

func restored(t *testing.T, self *plugintest.Process, s state) {
	t.Helper()
	p := &Plugin{state: s}
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.Running, Procs: []plugin.Process{self}}); err != nil {
		t.Fatal(err)
	}
}

// create makes a timer as a program would, and removes it with the test.
func create(t *testing.T, self *plugintest.Process, want posixTimer) int {
	t.Helper()
	m := maker{proc: self}
	m.addr, _ = self.Scratch()
	if _, err := self.WriteAt(want.arguments(), int64(m.addr)); err != nil {
		t.Fatal(err)
	}
	id, err := m.create(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	want.ID = id
	if err := m.arm(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0) })
	return id
}

func remove(t *testing.T, self *plugintest.Process, id int) {
	t.Helper()
	if _, err := self.Syscall(t.Context(), unix.SYS_TIMER_DELETE, uintptr(id)); err != nil {
		t.Fatalf("timer_delete %d: %v", id, err)
	}
}

func remaining(t *testing.T, self *plugintest.Process, id int) spec {
	t.Helper()
	got, err := readEach(t.Context(), self, []plugin.Call{{Nr: unix.SYS_TIMER_GETTIME, Args: [6]uintptr{uintptr(id)}}})
	if err != nil {
		t.Fatal(err)
	}
	return decodeSpec(got[0], time.Nanosecond)
}

func setITimers(t *testing.T, self *plugintest.Process, specs map[int]spec) {
	t.Helper()
	if err := (process{ITimers: specs}).restore(t.Context(), self, restartClock{}); err != nil {
		t.Fatal(err)
	}
}

func TestForward(t *testing.T) {
	for _, tt := range []struct {
		s, want spec
		d       time.Duration
		times   uint64
	}{
		{spec{0, 5}, spec{0, 5}, 7, 0},
		{spec{9, 0}, spec{2, 0}, 7, 0},
		{spec{7, 0}, spec{0, 0}, 7, 1},
		{spec{7, 5}, spec{5, 5}, 7, 1},
		{spec{7, 5}, spec{4, 5}, 8, 1},
		{spec{7, 5}, spec{1, 5}, 16, 2},
		{spec{7, 5}, spec{5, 5}, 17, 3},
		{spec{math.MaxInt64, 1}, spec{math.MaxInt64 - 7, 1}, 7, 0},
	} {
		got := tt.s
		if times := got.forward(tt.d); got != tt.want || times != tt.times {
			t.Errorf("%+v after %d: %+v, %d times; want %+v, %d", tt.s, tt.d, got, times, tt.want, tt.times)
		}
	}
}

// TestMissedWhileRestarting arms a timer that was due since the clock goes on:
// it has expired as often as it would have.
func TestMissedWhileRestarting(t *testing.T) {
	self := plugintest.Self(t)
	began := agentTime() / 2 // the clock has not stood at 0 for long on a fresh machine
	interval := began / 5
	m := maker{proc: self, clock: restartClock{goesOn: true, began: began}}
	id := create(t, self, posixTimer{Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone, Spec: spec{}})
	m.addr, _ = self.Scratch()
	if err := m.arm(t.Context(), posixTimer{ID: id, Clock: unix.CLOCK_MONOTONIC, Notify: sigevNone, Spec: spec{Value: time.Second, Interval: interval}}); err != nil {
		t.Fatal(err)
	}
	left := remaining(t, self, id)
	beat := (m.clock.passed() - time.Second + left.Value) % interval
	if off := min(beat, interval-beat); left.Interval != interval || off > 100*time.Millisecond {
		t.Errorf("%+v is %v off the beat of %v", left, off, interval)
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	saved := timerFD{Clock: unix.CLOCK_MONOTONIC, Ticks: 2, spec: spec{Value: time.Hour, Interval: time.Hour}}
	if err := saved.arm(fd, 3*time.Hour+time.Minute); err != nil {
		t.Fatal(err)
	}
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err != nil || binary.NativeEndian.Uint64(b[:]) != 5 {
		t.Errorf("%d ticks, %v; want 5", binary.NativeEndian.Uint64(b[:]), err)
	}
}

func FuzzParseOffset(f *testing.F) {
	f.Add("monotonic         -12 500000000\nboottime            3         7\n")
	f.Fuzz(func(t *testing.T, raw string) { _, _ = parseOffset(raw) })
}

func TestParseOffset(t *testing.T) {
	got, err := parseOffset("monotonic         -12 500000000\nboottime            3         7\n")
	if want := -11500 * time.Millisecond; got != want || err != nil {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := parseOffset("boottime 3 7\n"); err == nil {
		t.Error("no error without a monotonic clock")
	}
}

// TestExpireAgain leaves the signal of a timer pending, and the timer due when
// it was to be.
func TestExpireAgain(t *testing.T) {
	self := plugintest.Self(t)
	m := maker{proc: self}
	m.addr, _ = self.Scratch()
	for name, s := range map[string]spec{"once": {}, "often": {Value: 20 * time.Minute, Interval: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			want := posixTimer{Clock: unix.CLOCK_REALTIME, Signal: int(unix.SIGUSR1), Notify: sigevThreadID, TID: self.TID(), Spec: s, Pending: true}
			if !want.canExpireAgain() {
				t.Fatal("it cannot expire again")
			}
			set := binary.NativeEndian.AppendUint64(nil, 1<<(unix.SIGUSR1-1))
			if _, err := self.WriteAt(set, int64(m.addr)); err != nil {
				t.Fatal(err)
			}
			const sigBlock = 0
			if _, err := self.Syscall(t.Context(), unix.SYS_RT_SIGPROCMASK, sigBlock, uintptr(m.addr), 0, 8); err != nil {
				t.Fatal(err)
			}
			id := create(t, self, want)
			if s.Interval > 0 {
				if got := remaining(t, self, id); got.Value > s.Value || got.Value < s.Value-time.Minute {
					t.Errorf("%v remain, want %v", got.Value, s.Value)
				}
			}
			if _, err := self.WriteAt(append(set, make([]byte, 16)...), int64(m.addr)); err != nil {
				t.Fatal(err)
			}
			for _, wait := range []error{nil, unix.EAGAIN} {
				if _, err := self.Syscall(t.Context(), unix.SYS_RT_SIGTIMEDWAIT, uintptr(m.addr), 0, uintptr(m.addr+8), 8); err != wait && !errors.Is(err, wait) {
					t.Errorf("rt_sigtimedwait: %v, want %v", err, wait)
				}
			}
		})
	}
}

// A timer that expires while it is read is not one that is not armed.
func TestReadTimerFD(t *testing.T) {
	const interval = 50 * time.Microsecond
	for _, tc := range []struct {
		name      string
		set       unix.ItimerSpec
		armed     bool
		ticks     bool
		untilGone bool
	}{
		{name: "not armed"},
		{name: "not armed, with an interval", set: unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(interval))}},
		{name: "interval", set: unix.ItimerSpec{Value: unix.Timespec{Nsec: 1}, Interval: unix.NsecToTimespec(int64(interval))}, armed: true, ticks: true, untilGone: true},
		{name: "one expiration", set: unix.ItimerSpec{Value: unix.Timespec{Nsec: 1}}, ticks: true, untilGone: true},
		{name: "far", set: unix.ItimerSpec{Value: unix.Timespec{Sec: 1000}}, armed: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.TimerfdSettime(fd, 0, &tc.set, nil); err != nil {
				t.Fatal(err)
			}
			if tc.untilGone {
				if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
					t.Fatal(err)
				}
			}
			rounds := 20
			if tc.armed {
				rounds = 2000
			}
			for i := range rounds {
				got, _, err := readTimerFD(fd)
				if err != nil {
					t.Fatal(err)
				}
				if got.Value > 0 != tc.armed || got.Ticks > 0 != tc.ticks {
					t.Fatalf("round %d: %+v; want it armed: %v, with ticks: %v", i, got, tc.armed, tc.ticks)
				}
			}
		})
	}
}

// What remains and the ticks are of one moment: no expiration counts twice.
func TestReadTimerFDOfOneMoment(t *testing.T) {
	const interval = 50 * time.Microsecond
	fd := newTimerFD(t, unix.CLOCK_MONOTONIC, 0, spec{})
	began := agentTime()
	each := unix.NsecToTimespec(int64(interval))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Value: each, Interval: each}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		got, read, err := readTimerFD(fd)
		if err != nil {
			t.Fatal(err)
		}
		if next, due := read+got.Value, began+time.Duration(got.Ticks+1)*interval; next < due {
			t.Fatalf("round %d: with %d ticks the next comes %v too early", i, got.Ticks, due-next)
		}
	}
}
