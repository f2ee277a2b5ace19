package socket

import (
	"cmp"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTCPWaitingOrder makes many connections that wait, which were dated in
// another order than that of their inodes, while other goroutines drive this one
// from processor to processor.
func TestTCPWaitingOrder(t *testing.T) {
	const n, listener = 1500, 1
	pid := os.Getpid()
	own := netip.AddrFrom4([4]byte{127, byte(pid >> 16), byte(pid >> 8), byte(pid) | 2})
	at := netip.AddrPortFrom(own, 7000)
	p := newPlugin(t)
	p.state.TCP = map[int]tcpSocket{
		listener: {Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Ino: listener, Role: tcpListener, Local: at, Backlog: n},
	}
	for i := 1; i <= n; i++ {
		p.state.TCP[listener+i] = tcpSocket{
			Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Ino: uint32(2*n - i), Role: tcpWaiting, Peer: listener,
			Local: netip.AddrPortFrom(own, uint16(7000+i)), Remote: at, Connected: int32(i),
		}
	}
	keepBusy(t)
	err := p.makeTCP(listener, p.state.TCP[listener])
	t.Cleanup(p.closeMade)
	if err != nil {
		t.Fatal(err)
	}
	var inodes []uint32
	for i := 1; i <= n; i++ {
		inodes = append(inodes, inode(t, p.made[listener+i]))
		if got := acceptPeer(t, p.made[listener]); got.Port() != uint16(7000+i) {
			t.Fatalf("connection %d is that of %s", i, got)
		}
	}
	if !slices.IsSorted(inodes) {
		t.Error("the inodes do not tell the order to the next checkpoint")
	}
}

// keepBusy leaves no processor to the test alone.
func keepBusy(t *testing.T) {
	var end atomic.Bool
	for range 4 * runtime.NumCPU() {
		go func() {
			for !end.Load() {
			}
		}()
	}
	t.Cleanup(func() { end.Store(true) })
}

// acceptPeer ends the connection with a reset, so that its ports are free again.
func acceptPeer(t *testing.T, listener int) netip.AddrPort {
	t.Helper()
	fd, sa, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	peer, bad := addrPort(sa)
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err := cmp.Or(bad, err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	return peer
}

func TestHoldProcessor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	affinity := func() (s unix.CPUSet) {
		if err := unix.SchedGetaffinity(0, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := affinity()
	release, err := holdProcessor()
	if err != nil {
		t.Fatal(err)
	}
	if held := affinity(); held.Count() != 1 {
		t.Errorf("held on %d processors", held.Count())
	}
	release()
	if affinity() != before {
		t.Error("not released")
	}
}
