package socket

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrivateNet checks that sockets come from another network namespace, in
// which any address is theirs, and low ports, and TCP_REPAIR.
func TestPrivateNet(t *testing.T) {
	n, err := newPrivateNet([]kind{{unix.AF_INET, unix.SOCK_STREAM, 0}, {unix.AF_INET6, unix.SOCK_STREAM, 0}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for i, addr := range []string{"192.0.2.7", "2001:db8::7"} {
		fd := n.fds[i]
		defer unix.Close(fd)
		a := netip.MustParseAddr(addr)
		for range 2 { // the second time it is there
			if err := n.addAddress(a); err != nil {
				t.Error(err)
			}
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			t.Errorf("TCP_REPAIR: %v", err)
		}
		if err := bindPrivate(fd, sockaddr(familyOf(a), netip.AddrPortFrom(a, 8080))); err != nil {
			t.Errorf("bind to %s: %v", addr, err)
		}
		private, err := netCookie(fd)
		own, err2 := netCookie(newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0))
		if err != nil || err2 != nil || private == own {
			t.Errorf("namespaces %d and %d, %v, %v", private, own, err, err2)
		}
	}
}

// TestPrivateNetFailure checks that nothing is left open where one of several
// sockets cannot be made.
func TestPrivateNetFailure(t *testing.T) {
	before := newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	unix.Close(before)
	if _, err := newPrivateNet([]kind{{unix.AF_INET, unix.SOCK_STREAM, 0}, {unix.AF_INET, unix.SOCK_STREAM, 255}}); !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("%v, want %v", err, unix.EPROTONOSUPPORT)
	}
	if after := newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0); after != before {
		t.Errorf("a new socket is fd %d, before it was %d", after, before)
	}
}
