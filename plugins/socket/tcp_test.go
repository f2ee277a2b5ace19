package socket

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func newTCPListener(t *testing.T, addr string) (fd int, at netip.AddrPort) {
	t.Helper()
	a := netip.MustParseAddr(addr)
	fd = newSocket(t, familyOf(a), unix.SOCK_STREAM, 0)
	if err := unix.Bind(fd, sockaddr(familyOf(a), netip.AddrPortFrom(a, 0))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at, err = addrPort(sa)
	if err != nil {
		t.Fatal(err)
	}
	return fd, at
}

func newTCPPair(t *testing.T, addr string) []int {
	t.Helper()
	l, at := newTCPListener(t, addr)
	client := newSocket(t, familyOf(at.Addr()), unix.SOCK_STREAM, 0)
	if err := unix.Connect(client, sockaddr(familyOf(at.Addr()), at)); err != nil {
		t.Fatal(err)
	}
	server, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(server) })
	unix.Close(l)
	return []int{client, server}
}

func TestTCPPairs(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				pair := newTCPPair(t, addr)
				send(t, pair[0], "one", "two")
				send(t, pair[1], "three")
				return pair
			}, func(t *testing.T, fds []int) {
				receive(t, fds[1], unix.SOCK_STREAM, "one", "two")
				receive(t, fds[0], unix.SOCK_STREAM, "three")
				send(t, fds[1], "more")
				receive(t, fds[0], unix.SOCK_STREAM, "more")
			})
		})
	}
}

// TestTCPQueues compares streams that are read in part, full, cut by urgent
// data at any place, in the order of bytes.
func TestTCPQueues(t *testing.T) {
	for _, tc := range []struct {
		name   string
		inline bool
		parts  []string // one of "!x" is sent out of band
	}{
		{"urgent first", false, []string{"!u", "behind"}},
		{"urgent last", false, []string{"before", "!u"}},
		{"urgent between", false, []string{"before", "!u", "behind"}},
		{"urgent alone", false, []string{"!u"}},
		{"inline first", true, []string{"!u", "behind"}},
		{"inline last", true, []string{"before", "!u"}},
		{"inline between", true, []string{"before", "!u", "behind"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				pair := newTCPPair(t, "127.0.0.1")
				if tc.inline {
					if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
						t.Fatal(err)
					}
				}
				for _, part := range tc.parts {
					flags := 0
					if strings.HasPrefix(part, "!") {
						flags = unix.MSG_OOB
					}
					if err := unix.Send(pair[0], []byte(strings.TrimPrefix(part, "!")), flags); err != nil {
						t.Fatal(err)
					}
				}
				return pair
			}, func(t *testing.T, fds []int) { readUrgent(t, fds[1], tc.inline, tc.parts) })
		})
	}
}

// readUrgent reads part by part: no read passes the mark.
func readUrgent(t *testing.T, fd int, inline bool, parts []string) {
	buf := make([]byte, 100)
	for _, part := range parts {
		want, urgent := strings.CutPrefix(part, "!")
		if urgent {
			if mark, err := unix.IoctlGetInt(fd, unix.SIOCATMARK); err != nil || mark == 0 {
				t.Errorf("not at the mark, %v", err)
			}
			if inline {
				continue
			}
		}
		flags := unix.MSG_DONTWAIT
		if urgent {
			flags |= unix.MSG_OOB
		} else if inline {
			want = strings.TrimPrefix(want, "behind")
			if want == "" {
				want = "ubehind"
			}
		}
		n, _, err := unix.Recvfrom(fd, buf, flags)
		if err != nil || string(buf[:max(n, 0)]) != want {
			t.Errorf("received %q, %v, want %q", buf[:max(n, 0)], err, want)
		}
	}
}

// TestTCPEnds has sockets whose other end is not there any more.
func TestTCPEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		end   func(t *testing.T, peer int)
		after error // what a read at the end gives
	}{
		{"closed", func(t *testing.T, peer int) { unix.Close(peer) }, nil},
		{"reset", func(t *testing.T, peer int) {
			if err := unix.SetsockoptLinger(peer, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				t.Fatal(err)
			}
			unix.Close(peer)
		}, unix.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				pair := newTCPPair(t, "127.0.0.1")
				send(t, pair[1], "last words")
				tc.end(t, pair[1])
				if err := awaitEvent(pair[0], unix.POLLRDHUP); err != nil {
					t.Fatal(err)
				}
				return pair[:1]
			}, func(t *testing.T, fds []int) {
				buf := make([]byte, 100)
				if n, _, err := unix.Recvfrom(fds[0], buf, unix.MSG_DONTWAIT); err != nil || string(buf[:n]) != "last words" {
					t.Errorf("received %q, %v", buf[:n], err)
				}
				if n, _, err := unix.Recvfrom(fds[0], buf, unix.MSG_DONTWAIT); n > 0 || !errors.Is(err, tc.after) {
					t.Errorf("received %d bytes, %v; want %v", n, err, tc.after)
				}
			})
		})
	}
}

// TestTCPOutside: the test process holds both ends, and so an end is outside
// where its plugin does not know of the process.
func TestTCPOutside(t *testing.T) {
	pair := newTCPPair(t, "127.0.0.1")
	for _, policy := range []string{"refuse", "close"} {
		h := plugintest.NewHost(t)
		h.SetConfig(fmt.Sprintf(`{"tcp_outside":%q}`, policy))
		made, err := Definition().New(h)
		if err != nil {
			t.Fatal(err)
		}
		p := made.(*Plugin)
		begin(t, p)
		table, err := p.tcpSockets()
		if err != nil {
			t.Fatal(err)
		}
		peer := table.byInode[inode(t, pair[1])]
		delete(table.byInode, peer.ino)
		delete(table.byName, peer.name())
		if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, pair[0])); err != nil {
			t.Fatal(err)
		}
		err = p.SaveProcess(t.Context(), plugintest.Self(t))
		if policy == "refuse" && (err == nil || !strings.Contains(err.Error(), "outside the computation")) || policy == "close" && err != nil {
			t.Errorf("%s: %v", policy, err)
		}
		unix.Close(peer.fd)
		if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.Resume}); err != nil {
			t.Error(err)
		}
	}
	h := plugintest.NewHost(t)
	h.SetConfig(`{"tcp_outside":"drop"}`)
	if _, err := Definition().New(h); err == nil {
		t.Error("a wrong policy is taken")
	}
}

// TestRefuseInFlight: the user finds what is in flight by what holds it.
func TestRefuseInFlight(t *testing.T) {
	lone, inner := plugin.OpenFile{ID: 1, Link: "socket:[1]"}, plugin.OpenFile{ID: 2, Link: "socket:[2]"}
	outer := plugin.OpenFile{ID: 3, Link: "socket:[3]", Refs: []plugin.FileRef{{PID: 7, FD: 5}}}
	p := Plugin{holders: map[int]plugin.OpenFile{1: inner, 2: outer}}
	for id, want := range map[*plugin.OpenFile]string{
		&lone:  "pid 7 fd 5: socket:[1] (in socket:[2]) (in socket:[3]): why",
		&outer: "pid 7 fd 5: socket:[3]: why",
	} {
		if got := p.refuseIn(*id, "why").Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestTCPPortTaken: a listener does not come back where another has its port.
func TestTCPPortTaken(t *testing.T) {
	_, at := newTCPListener(t, "127.0.0.1")
	s := tcpSocket{Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Ino: 1, Role: tcpListener, Local: at}
	err := newPlugin(t).makeTCP(1, s)
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("%v, want EADDRINUSE and the address", err)
	}
}

func TestInetDiagGarbage(t *testing.T) {
	for _, raw := range [][]byte{{1}, make([]byte, 16), make([]byte, 100)} {
		if all, err := parseInetDiag(raw); len(all) > 0 {
			t.Errorf("%x: %v, %v", raw, all, err)
		}
	}
}

func FuzzInetDiag(f *testing.F) {
	f.Add(inetDiagRequest(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"), 0, 0))
	f.Add(make([]byte, 88))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = parseInetDiag(raw) })
}

// TestGuessBufferLock is what SO_BUF_LOCK tells, which kernels before 5.14 do not have.
func TestGuessBufferLock(t *testing.T) {
	const usual = 2 * 212992         // of those kernels
	most := func(limit string) int { // a receive buffer is to be told by itself
		if limit == "rmem_max" {
			return math.MaxInt
		}
		return usual
	}
	pair := newTCPPair(t, "127.0.0.1")
	if n := fill(t, pair[0], 100_000); n < 2*usual { // the sender's buffer has grown
		t.Fatalf("%d bytes fill a connection", n)
	}
	grown := newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := errors.Join(setReceiveLow(grown, 200_000), setReceiveLow(grown, 1)); err != nil {
		t.Fatal(err)
	}
	full := newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := errors.Join(setReceiveLow(full, 1<<30), setReceiveLow(full, 1)); err != nil {
		t.Fatal(err)
	}
	fixed := newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.SetsockoptInt(fixed, unix.SOL_SOCKET, unix.SO_RCVBUF, 20_000); err != nil {
		t.Fatal(err)
	}
	set := newSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err := unix.SetsockoptInt(set, unix.SOL_SOCKET, unix.SO_SNDBUF, 20_000); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ fd, want int }{
		{pair[0], 0}, {pair[1], 0}, {grown, 0}, {full, 0}, {fixed, receiveBufferLock}, {set, sendBufferLock},
		{newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0), 0}, {newSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), 0},
	} {
		sends, receives, err := bufferSizes(tc.fd)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := guessBufferLock(tc.fd, sends, receives, unix.SOCK_STREAM, most); err != nil || got != tc.want {
			t.Errorf("buffers of %d and %d bytes: locked %d, %v; want %d", sends, receives, got, err, tc.want)
		}
		if low, err := unix.GetsockoptInt(tc.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT); err != nil || low != 1 {
			t.Errorf("SO_RCVLOWAT is %d, %v", low, err)
		}
	}
}
