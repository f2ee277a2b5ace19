package linux

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCloseOnExecFrom(t *testing.T) {
	for name, do := range map[string]func(int) error{"close_range": CloseOnExecFrom, "each": closeOnExecEach} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // without O_CLOEXEC
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			for _, tc := range []struct{ first, want int }{{fd + 1, 0}, {fd, unix.FD_CLOEXEC}} {
				if err := do(tc.first); err != nil {
					t.Fatal(err)
				}
				if got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || got != tc.want {
					t.Errorf("from %d: flags %d, %v; want %d", tc.first, got, err, tc.want)
				}
			}
		})
	}
}
