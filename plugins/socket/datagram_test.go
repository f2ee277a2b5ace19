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

// TestDamagedDatagrams: nothing of these is given to the kernel.
func TestDamagedDatagrams(t *testing.T) {
	from := make([]byte, unix.SizeofSockaddrInet4)
	udp := kind{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}
	for _, tc := range []struct {
		name string
		k    kind
		m    datagram
		ok   bool
	}{
		{"whole", udp, datagram{Data: make([]byte, 3), From: from}, true},
		{"in segments", udp, datagram{Data: make([]byte, 3), From: from, Segment: 2}, true},
		{"from nowhere", udp, datagram{Data: make([]byte, 3)}, false},
		{"from another family", kind{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, datagram{From: from}, false},
		{"of a raw socket", kind{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, datagram{From: from}, false},
		{"a segment alone", udp, datagram{Data: make([]byte, 3), From: from, Segment: 3}, false},
		{"a negative segment", udp, datagram{Data: make([]byte, 3), From: from, Segment: -1}, false},
		{"segments of UDP-Lite", kind{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE}, datagram{Data: make([]byte, 3), From: from, Segment: 2}, false},
	} {
		s := datagramSocket{Family: tc.k.family, Type: tc.k.kind, Protocol: tc.k.protocol, Queue: []datagram{tc.m}}
		if err := s.validate(); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// TestAskedPort: with IP_RECVORIGDSTADDR a datagram has to come to the port of
// the socket, which must be its own then.
func TestAskedPort(t *testing.T) {
	shared, own := newSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0), newSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err := unix.SetsockoptInt(shared, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{shared, own} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, fd := range []int{shared, own} {
		to, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(own, []byte("text"), 0, to); err != nil {
			t.Fatal(err)
		}
	}
	p := newPlugin(t)
	begin(t, p)
	refused(t, p, shared, "IP_RECVORIGDSTADDR")
	to, err := unix.Getsockname(own)
	if err != nil {
		t.Fatal(err)
	}
	fds := killed(t, own).mustRestart(t)
	m, err := recvmsg(fds[0], make([]byte, 10), controlSize, unix.MSG_DONTWAIT)
	if err != nil {
		t.Fatal(err)
	}
	controls, err := unix.ParseSocketControlMessage(m.control)
	if err != nil || len(controls) != 1 {
		t.Fatalf("%d control messages, %v", len(controls), err)
	}
	if got, err := unix.ParseOrigDstAddr(&controls[0]); err != nil || got.(*unix.SockaddrInet4).Port != to.(*unix.SockaddrInet4).Port {
		t.Errorf("sent to %+v, %v, want %+v", got, err, to)
	}
}

func TestInFamily(t *testing.T) {
	plain := netip.MustParseAddrPort("127.0.0.1:4711")
	raw := append([]byte{unix.AF_INET, 0, 4711 >> 8, 4711 & 0xff, 127, 0, 0, 1}, make([]byte, 8)...)
	mapped := inFamily(raw, unix.AF_INET6)
	if a := addressOf(mapped, unix.AF_INET6); !a.Addr().Is4In6() || unmapped(a) != plain {
		t.Errorf("%v within IPv6: %v", plain, a)
	}
	if a := addressOf(inFamily(mapped, unix.AF_INET), unix.AF_INET); a != plain {
		t.Errorf("and back: %v", a)
	}
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
