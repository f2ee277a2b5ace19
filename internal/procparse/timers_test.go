package procparse

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestParseTimers(t *testing.T) {
	raw, err := os.ReadFile("testdata/timers")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseTimers(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := []Timer{
		{ID: 2, Signal: 34, Value: 0xdeadbeefdeadbeef, Notify: "signal", TID: 7083, Clock: -6},
		{ID: 1, Notify: "none", PID: 7081},
		{ID: 0, Signal: 10, Value: 0x7fff1234, Notify: "signal", PID: 7081, Clock: 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseTimersErrors(t *testing.T) {
	tests := map[string]string{
		"no ID":        "signal: 10/0\n",
		"ID":           "ID: x\n",
		"clock":        "ID: 0\nClockID:\n",
		"signal":       "ID: 0\nsignal: USR1/0\n",
		"value":        "ID: 0\nsignal: 10\n",
		"notify":       "ID: 0\nnotify: signal\n",
		"notify's pid": "ID: 0\nnotify: signal/pid.\n",
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseTimers([]byte(raw)); err == nil {
				t.Errorf("no error: %+v", got)
			}
		})
	}
	t.Run("no timers", func(t *testing.T) {
		if got, err := ParseTimers(nil); err != nil || len(got) != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func FuzzParseTimers(f *testing.F) {
	raw, err := os.ReadFile("testdata/timers")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ParseTimers(raw)
		if err != nil {
			return
		}
		for _, timer := range got {
			if timer.TID != 0 && timer.PID != 0 {
				t.Errorf("both thread and process: %+v", timer)
			}
		}
	})
}

// TestLiveTimers makes a timer that notifies a thread, and reads it back.
func TestLiveTimers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	const sigevThreadID = 4 // SIGEV_THREAD_ID, sigevent(3type)
	event := struct {
		value              uint64
		signo, notify, tid int32
		_                  [44]byte
	}{0x1234567890abcdef, int32(unix.SIGURG), sigevThreadID, int32(unix.Gettid()), [44]byte{}}
	var id int32
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		t.Fatal(errno)
	}
	defer unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0)

	raw, err := os.ReadFile("/proc/self/timers")
	if err != nil {
		t.Skip(err) // needs CONFIG_CHECKPOINT_RESTORE
	}
	got, err := ParseTimers(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := Timer{ID: int(id), Signal: int(unix.SIGURG), Value: event.value, Notify: "signal", TID: unix.Gettid(), Clock: unix.CLOCK_BOOTTIME}
	if !slices.Contains(got, want) {
		t.Errorf("no %+v in %+v", want, got)
	}
}
