package socket

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUDP takes queued datagrams through a checkpoint, one of a sender that is
// closed and an empty one among them.
func TestUDP(t *testing.T) {
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	receiver := newSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	sender := newSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	gone := newSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	for _, fd := range []int{receiver, sender, gone} {
		if err := unix.Bind(fd, loopback); err != nil {
			t.Fatal(err)
		}
	}
	to, err := unix.Getsockname(receiver)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"one", "", "two"} {
		if err := unix.Sendto([]int{sender, sender, gone}[i], []byte(text), 0, to); err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(gone)
	if err := unix.Connect(sender, to); err != nil {
		t.Fatal(err)
	}
	fds := killed(t, receiver, sender).mustRestart(t)
	receive(t, fds[0], unix.SOCK_DGRAM, "one", "", "two")
	send(t, fds[1], "more")
	receive(t, fds[0], unix.SOCK_DGRAM, "more")
}

func TestParseRemote(t *testing.T) {
	const table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
		"    1: 0100007F:0001 0100007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n" +
		"    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n"
	got, err := parseRemote(table, unix.AF_INET, 4711)
	if err != nil || addressOf(got, unix.AF_INET).Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%x, %v", got, err)
	}
	if got, err := parseRemote(table, unix.AF_INET, 4712); err != nil || got != nil {
		t.Errorf("%x, %v", got, err)
	}
}

func FuzzProcNet(f *testing.F) {
	f.Add("1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n")
	f.Add("1    lo              ff020000000000000000000000000001     1 0000000C 0\n")
	f.Fuzz(func(_ *testing.T, text string) {
		parseIGMP(text)
		parseIGMP6(text)
		_, _ = parseRemote(text, unix.AF_INET6, 1)
	})
}
