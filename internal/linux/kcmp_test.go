package linux

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pipe returns the descriptors of a pipe, which the test closes.
func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(p[0])
		unix.Close(p[1])
	})
	return p[0], p[1]
}

// dup returns a duplicate of fd, which the test closes.
func dup(t *testing.T, fd int) int {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(d) })
	return d
}

func TestKcmp(t *testing.T) {
	self := os.Getpid()
	r, w := pipe(t)
	d := dup(t, r)
	tests := []struct {
		name string
		typ  int
		a, b int
		same bool
	}{
		{"a duplicate", KCMP_FILE, r, d, true},
		{"two ends", KCMP_FILE, r, w, false},
		{"own memory", KCMP_VM, 0, 0, true},
		{"own table of descriptors", KCMP_FILES, 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Kcmp(self, self, tt.typ, uint64(tt.a), uint64(tt.b))
			if err != nil {
				t.Fatal(err)
			}
			if (got == 0) != tt.same {
				t.Errorf("got %d, want same = %v", got, tt.same)
			}
		})
	}
	t.Run("a closed descriptor", func(t *testing.T) {
		if _, err := Kcmp(self, self, KCMP_FILE, uint64(r), 1<<20); !errors.Is(err, unix.EBADF) {
			t.Errorf("got %v, want EBADF", err)
		}
	})
}

func TestKcmpEpollTfd(t *testing.T) {
	self := os.Getpid()
	r, w := pipe(t)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)

	// The target is closed under its number, and lives on as r.
	added := dup(t, r)
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, added, &ev); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(added); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(w, added, unix.O_CLOEXEC); err != nil { // the test's clean-up closes it
		t.Fatal(err)
	}
	slot := EpollSlot{EFD: uint32(ep), TFD: uint32(added)}

	for _, tt := range []struct {
		name string
		fd   int
		same bool
	}{{"the target", r, true}, {"what has its number now", added, false}} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := KcmpEpollTfd(self, tt.fd, self, slot)
			if err != nil {
				t.Fatal(err)
			}
			if (got == 0) != tt.same {
				t.Errorf("got %d, want same = %v", got, tt.same)
			}
		})
	}
	t.Run("no such target", func(t *testing.T) {
		slot.TOff = 1
		if _, err := KcmpEpollTfd(self, r, self, slot); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v, want ENOENT", err)
		}
	})
}
