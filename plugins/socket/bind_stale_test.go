package socket

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIsStale looks at sockets that somebody has: none of them notices.
func TestIsStale(t *testing.T) {
	for name, kind := range map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET, "datagrams": unix.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Fatal(err)
			}
			if kind != unix.SOCK_DGRAM {
				if err := unix.Listen(fd, 1); err != nil {
					t.Fatal(err)
				}
			}
			if isStale(path) == nil {
				t.Error("a socket that is in use is said to be stale")
			}
			if kind != unix.SOCK_DGRAM {
				if _, _, err := unix.Accept(fd); !errors.Is(err, unix.EAGAIN) {
					t.Errorf("its owner was visited: accept: %v", err)
				}
			}
			if err := os.NewSyscallError("close", unix.Close(fd)); err != nil {
				t.Fatal(err)
			}
			if err := isStale(path); err != nil {
				t.Error(err)
			}
		})
	}
}
