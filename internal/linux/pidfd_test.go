package linux

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDupFrom(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid, self := unix.Gettid(), os.Getpid()
	r, _ := pipe(t)

	d, err := DupFrom(self, r)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(d)
	if got, err := Kcmp(self, tid, KCMP_FILE, uint64(r), uint64(d)); err != nil || got != 0 {
		t.Errorf("kcmp of the duplicate: %d, %v; want 0", got, err)
	}
	if _, err := DupFrom(self, 1<<20); !errors.Is(err, unix.EBADF) {
		t.Errorf("a closed descriptor: %v, want EBADF", err)
	}
}

func TestPidfdOpenThread(t *testing.T) {
	tid := make(chan int)
	done := make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		<-done
	}()
	for _, tt := range []struct {
		name string
		tid  int
	}{{"leader", os.Getpid()}, {"thread", <-tid}} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := PidfdOpenThread(tt.tid)
			if err != nil && tt.tid != os.Getpid() {
				t.Skipf("needs Linux 6.9: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		})
	}
	t.Run("nobody", func(t *testing.T) {
		if _, err := PidfdOpenThread(1<<22 + 1); !errors.Is(err, unix.ESRCH) {
			t.Errorf("got %v, want ESRCH", err)
		}
	})
}
