package socket

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Run(t, Definition(), plugintest.Suite{
		Fill: func(t *testing.T, p plugin.Plugin, _ *plugintest.Host) {
			begin(t, p)
			pair := newPair(t, unix.SOCK_SEQPACKET)
			send(t, pair[0], "one", "two")
			l := newListener(t, unix.SOCK_STREAM, filepath.Join(t.TempDir(), "s"))
			client, server := newConnection(t, l)
			tcp := newTCPPair(t, "127.0.0.1")
			for _, f := range plugintest.OpenFiles(t, pair[0], pair[1], l, client, server, tcp[0], tcp[1]) {
				if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
		},
		Invalid: map[string]string{
			"type":                `{"unix":{"1":{"type":3,"ino":1,"options":{"values":{}}}}}`,
			"no inode":            `{"unix":{"1":{"type":1,"options":{"values":{}}}}}`,
			"peer missing":        `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}}}}`,
			"peer of itself":      `{"unix":{"1":{"type":1,"ino":1,"peer":1,"options":{"values":{}}}}}`,
			"peer not mutual":     `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}},"2":{"type":1,"ino":2,"options":{"values":{}}}}}`,
			"peer of a type":      `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}},"2":{"type":2,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"peer of a name":      `{"unix":{"1":{"type":1,"ino":1,"peer":2,"peer_name":"L2E=","options":{"values":{}}},"2":{"type":1,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"peer and closed":     `{"unix":{"1":{"type":1,"ino":1,"peer":2,"peer_closed":true,"options":{"values":{}}},"2":{"type":1,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"inode twice":         `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{}}},"2":{"type":1,"ino":1,"options":{"values":{}}}}}`,
			"reset":               `{"unix":{"1":{"type":1,"ino":1,"reset":true,"options":{"values":{}}}}}`,
			"shutdown":            `{"unix":{"1":{"type":1,"ino":1,"shutdown":4,"options":{"values":{}}}}}`,
			"queue":               `{"unix":{"1":{"type":1,"ino":1,"queue":[{"data":"YQ=="}],"options":{"values":{}}}}}`,
			"queue of nobody":     `{"unix":{"1":{"type":2,"ino":1,"queue":[{"data":"YQ=="}],"options":{"values":{}}}}}`,
			"empty in a stream":   `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"queue":[{}],"options":{"values":{}}}}}`,
			"sender in a stream":  `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"queue":[{"data":"YQ==","from":"L2E="}],"options":{"values":{}}}}}`,
			"sender":              `{"unix":{"1":{"type":2,"ino":1,"peer_closed":true,"queue":[{"sender":{"pid":-1,"uid":0,"gid":0}}],"options":{"values":{}}}}}`,
			"waiting":             `{"unix":{"1":{"type":1,"ino":1,"waiting":true,"peer_name":"L2E=","options":{"values":{}}}}}`,
			"pending":             `{"unix":{"1":{"type":1,"ino":1,"name":"AGE=","listen":{"backlog":1,"pending":[2]},"options":{"values":{}}}}}`,
			"name with a zero":    `{"unix":{"1":{"type":1,"ino":1,"name":"YQBh","file":{"ino":1},"options":{"values":{}}}}}`,
			"path without a file": `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","options":{"values":{}}}}}`,
			"file of no path":     `{"unix":{"1":{"type":1,"ino":1,"name":"AGE=","file":{"ino":1},"options":{"values":{}}}}}`,
			"file path":           `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","file":{"ino":1,"path":"/a/../b"},"options":{"values":{}}}}}`,
			"file mode":           `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","file":{"ino":1,"mode":2048},"options":{"values":{}}}}}`,
			"relative name":       `{"unix":{"1":{"type":1,"ino":1,"name":"YQ==","file":{"ino":1,"path":"/a"},"options":{"values":{}}}}}`,
			"listener unnamed":    `{"unix":{"1":{"type":1,"ino":1,"listen":{"backlog":1},"options":{"values":{}}}}}`,
			"listener backlog":    `{"unix":{"1":{"type":1,"ino":1,"name":"AGE=","listen":{"backlog":-1},"options":{"values":{}}}}}`,
			"listener connected":  `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"name":"AGE=","listen":{"backlog":1},"options":{"values":{}}}}}`,
			"peer name alone":     `{"unix":{"1":{"type":1,"ino":1,"peer_name":"L2E=","options":{"values":{}}}}}`,
			"datagram kind":       `{"datagrams":{"1":{"family":2,"type":1,"protocol":6,"options":{"socket":{"values":{}}}}}}`,
			"datagram address":    `{"datagrams":{"1":{"family":2,"type":2,"protocol":17,"local":"YQ==","options":{"socket":{"values":{}}}}}}`,
			"datagram option":     `{"datagrams":{"1":{"family":2,"type":2,"protocol":17,"levels":[{"level":1,"opt":1,"value":1}],"options":{"socket":{"values":{}}}}}}`,
			"datagram group":      `{"datagrams":{"1":{"family":2,"type":2,"protocol":17,"groups":[{"address":"127.0.0.1","interface":1}],"options":{"socket":{"values":{}}}}}}`,
			"option":              `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{"13":1}}}}}`,
			"buffer":              `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{},"send_buffer":-1}}}}`,
			"TCP family":          `{"tcp":{"1":{"family":1,"protocol":6,"ino":1,"role":"new","local":"0.0.0.0:0","remote":"","options":{"socket":{"values":{}}}}}}`,
			"TCP role":            `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"none","local":"0.0.0.0:0","remote":"","options":{"socket":{"values":{}}}}}}`,
			"TCP peer missing":    `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"paired","peer":2,"local":"127.0.0.1:1","remote":"127.0.0.1:2","options":{"socket":{"values":{}}}}}}`,
			"TCP peer of itself":  `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"paired","peer":1,"local":"127.0.0.1:1","remote":"127.0.0.1:1","options":{"socket":{"values":{}}}}}}`,
			"TCP no listener":     `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"waiting","peer":2,"local":"127.0.0.1:1","remote":"127.0.0.1:2","options":{"socket":{"values":{}}}}}}`,
			"TCP address":         `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"new","local":"[::]:0","remote":"","options":{"socket":{"values":{}}}}}}`,
			"TCP arrived":         `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"dead","local":"127.0.0.1:1","remote":"","queue":"YQ==","arrived":2,"options":{"socket":{"values":{}}}}}}`,
			"TCP urgent":          `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"dead","local":"127.0.0.1:1","remote":"","urgent":{"at":1,"byte":1},"options":{"socket":{"values":{}}}}}}`,
			"TCP queue":           `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"new","local":"127.0.0.1:1","remote":"","queue":"YQ==","options":{"socket":{"values":{}}}}}}`,
			"TCP option":          `{"tcp":{"1":{"family":2,"protocol":6,"ino":1,"role":"new","local":"127.0.0.1:1","remote":"","options":{"socket":{"values":{}},"values":{"TCP_NONE":1}}}}}`,
			"TCP MPTCP":           `{"tcp":{"1":{"family":2,"protocol":262,"ino":1,"role":"dead","local":"127.0.0.1:1","remote":"","options":{"socket":{"values":{}}}}}}`,
			"filter":              `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{},"filter":"YQ=="}}}}`,
			"timeout":             `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{},"send_timeout_ns":-1}}}}`,
		},
	})
}

var types = map[string]int{"stream": unix.SOCK_STREAM, "datagram": unix.SOCK_DGRAM, "seqpacket": unix.SOCK_SEQPACKET}

func TestPairs(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			big := strings.Repeat("x", 100_000) // more than the first look takes
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				pair := newPair(t, typ)
				send(t, pair[0], "one", "two", big)
				send(t, pair[1], "three")
				if err := unix.SetNonblock(pair[1], true); err != nil {
					t.Fatal(err)
				}
				return pair
			}, func(t *testing.T, fds []int) {
				receive(t, fds[1], typ, "one", "two", big)
				receive(t, fds[0], typ, "three")
				send(t, fds[1], "more")
				receive(t, fds[0], typ, "more")
				for i, want := range []int{0, unix.O_NONBLOCK} {
					if flags, err := unix.FcntlInt(uintptr(fds[i]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != want {
						t.Errorf("flags of end %d: %#o, %v", i, flags, err)
					}
				}
			})
		})
	}
}

// TestFullQueues fills both directions, by messages of a size that costs the
// kernel most, until it takes no more.
func TestFullQueues(t *testing.T) {
	for name, typ := range types {
		for _, size := range []int{1, 4096, 60_000} {
			t.Run(fmt.Sprintf("%s of %d", name, size), func(t *testing.T) {
				var sent [2]int
				plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
					pair := newPair(t, typ)
					if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 40_000); err != nil {
						t.Fatal(err)
					}
					for i, fd := range pair {
						sent[i] = fill(t, fd, size)
					}
					return pair
				}, func(t *testing.T, fds []int) {
					for i, fd := range fds {
						if got := drain(t, fd); got != sent[1-i] {
							t.Errorf("end %d has %d bytes, want %d", i, got, sent[1-i])
						}
					}
				})
			})
		}
	}
}

func TestHalfClosed(t *testing.T) {
	for name, typ := range types {
		for how, direction := range map[string]int{"read": unix.SHUT_RD, "write": unix.SHUT_WR, "both": unix.SHUT_RDWR} {
			t.Run(name+" "+how, func(t *testing.T) {
				var before [2]uint8
				plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
					pair := newPair(t, typ)
					send(t, pair[0], "rest")
					if err := unix.Shutdown(pair[0], direction); err != nil {
						t.Fatal(err)
					}
					before = [2]uint8{diagnosed(t, pair[0]).shutdown, diagnosed(t, pair[1]).shutdown}
					return pair
				}, func(t *testing.T, fds []int) {
					if after := [2]uint8{diagnosed(t, fds[0]).shutdown, diagnosed(t, fds[1]).shutdown}; after != before {
						t.Errorf("shutdown %v, was %v", after, before)
					}
					receive(t, fds[1], typ, "rest")
				})
			})
		}
	}
}

func TestPeerClosed(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				pair := newPair(t, typ)
				send(t, pair[1], "rest")
				unix.Close(pair[1])
				return pair[:1]
			}, func(t *testing.T, fds []int) {
				receive(t, fds[0], typ, "rest")
				if typ == unix.SOCK_DGRAM {
					if err := unix.Send(fds[0], []byte("x"), 0); !errors.Is(err, unix.ECONNREFUSED) {
						t.Errorf("send: %v, want ECONNREFUSED", err)
					}
					return
				}
				if n, err := unix.Read(fds[0], make([]byte, 1)); n != 0 || err != nil {
					t.Errorf("read %d, %v, want the end", n, err)
				}
			})
		})
	}
}

// TestReset closes a stream with unread data, which its peer sees as
// ECONNRESET once it has read its own.
func TestReset(t *testing.T) {
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		pair := newPair(t, unix.SOCK_STREAM)
		send(t, pair[0], "unread")
		send(t, pair[1], "rest")
		unix.Close(pair[1])
		return pair[:1]
	}, func(t *testing.T, fds []int) {
		rest := make([]byte, 8)
		if n, err := unix.Read(fds[0], rest); err != nil || string(rest[:n]) != "rest" {
			t.Errorf("read %q, %v", rest[:max(n, 0)], err)
		}
		if _, err := unix.Read(fds[0], rest); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v, want ECONNRESET", err)
		}
	})
}

func TestFresh(t *testing.T) {
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return []int{fd}
	}, func(t *testing.T, fds []int) {
		if d := diagnosed(t, fds[0]); d.hasPeer || len(d.name) > 0 {
			t.Errorf("%+v", d)
		}
	})
}

func TestOptions(t *testing.T) {
	values := map[int]int{
		unix.SO_PASSCRED: 1, unix.SO_RCVLOWAT: 7, unix.SO_PEEK_OFF: 2,
		unix.SO_SNDBUF: 30_000, unix.SO_RCVBUF: 50_000,
	}
	const timeout = 2500 * time.Millisecond
	var before, after options
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		pair := newPair(t, unix.SOCK_STREAM)
		for opt, v := range values {
			if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, opt, v); err != nil {
				t.Fatalf("option %d: %v", opt, err)
			}
		}
		tv := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			t.Fatal(err)
		}
		before = optionsOf(t, pair[0])
		return pair
	}, func(t *testing.T, fds []int) {
		after = optionsOf(t, fds[0])
		if fmt.Sprint(after) != fmt.Sprint(before) || after.ReceiveTimeout != timeout {
			t.Errorf("%+v, was %+v", after, before)
		}
		if other := optionsOf(t, fds[1]); other.SendBuffer != 0 || other.ReceiveBuffer != 0 {
			t.Errorf("the sizes of the other end's buffers were set: %+v", other)
		}
	})
}

// TestNothingChanges checks what a claim leaves behind.
func TestNothingChanges(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			pair := newPair(t, typ)
			send(t, pair[0], "one", "two")
			for range 2 {
				p := newPlugin(t)
				begin(t, p)
				if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, pair[1])); err != nil {
					t.Fatal(err)
				}
				if got := p.state.UNIX[1].size(); got != 6 {
					t.Errorf("saw %d bytes, want 6", got)
				}
			}
			if off, err := unix.GetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_PEEK_OFF); err != nil || off != -1 {
				t.Errorf("SO_PEEK_OFF is %d, %v", off, err)
			}
			receive(t, pair[1], typ, "one", "two")
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(t *testing.T) int
		reason string
	}{
		{"vsock", func(t *testing.T) int {
			fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Skip(err) // the kernel has none
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}, "vsock stream (protocol 0) socket: not kept yet"},
		{"out-of-band data", func(t *testing.T) int {
			pair := newPair(t, unix.SOCK_STREAM)
			if err := unix.Sendto(pair[0], []byte("x"), unix.MSG_OOB, nil); err != nil {
				t.Skip(err) // before Linux 5.15
			}
			return pair[1]
		}, "out-of-band data is queued"},
		{"filter", func(t *testing.T) int {
			fd := newPair(t, unix.SOCK_DGRAM)[0]
			accept := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &accept}); err != nil {
				t.Fatal(err)
			}
			return fd
		}, "it has a filter"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd := tc.make(t)
			p := newPlugin(t)
			begin(t, p)
			refused(t, p, fd, tc.reason)
		})
	}
}

// TestEmptyMessages takes empty messages, which the kernel shows once, through
// several checkpoints, while others are read and sent.
func TestEmptyMessages(t *testing.T) {
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair := newPair(t, typ)
		p := newPlugin(t)
		expect := func(want ...string) {
			t.Helper()
			begin(t, p)
			if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, pair[1])); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range p.state.UNIX[1].Queue {
				got = append(got, string(m.Data))
			}
			if !slices.Equal(got, want) {
				t.Errorf("saw %q, want %q", got, want)
			}
		}
		send(t, pair[0], "one", "", "two", "")
		expect("one", "", "two", "")
		expect("one", "", "two", "")
		send(t, pair[0], "", "three")
		expect("one", "", "two", "", "", "three")
		readOne(t, pair[1])
		expect("", "two", "", "", "three")
		readOne(t, pair[1])
		expect("two", "", "", "three")
		receive(t, pair[1], typ, "two", "", "", "three")
		expect()
		send(t, pair[0], "")
		expect("")
		expect("")
		unix.Close(pair[0])
		expect("")
		receive(t, pair[1], typ, "")
		expect()
	}
}

func readOne(t *testing.T, fd int) {
	t.Helper()
	if _, _, err := unix.Recvfrom(fd, make([]byte, 100), unix.MSG_DONTWAIT); err != nil {
		t.Fatal(err)
	}
}

// TestAlign checks what is guessed of empty messages.
func TestAlign(t *testing.T) {
	queue := func(text string) (q []message) {
		for _, c := range text {
			m := message{Data: []byte(string(c))}
			if c == '-' {
				m.Data = nil
			}
			q = append(q, m)
		}
		return q
	}
	for _, tc := range []struct{ old, visible, head, want string }{
		{"a-b", "b", "-", "-b"},
		{"a-b", "b", "b", "b"},
		{"a-", "c", "-", "-c"},
		{"a-", "x", "x", "x"},
		{"--", "", "", ""},
		{"a-", "a", "a", "doubtful"},
		{"--", "", "-", "doubtful"},
	} {
		got, err := align(queue(tc.old), queue(tc.visible), func(q []message) bool {
			return len(q) == 0 && tc.head == "" || len(q) > 0 && tc.head != "" && q[0].equal(queue(tc.head)[0])
		})
		if (err != nil) != (tc.want == "doubtful") || err == nil && !equalQueues(got, queue(tc.want)) {
			t.Errorf("%+v: %v, %v", tc, got, err)
		}
	}
}

func TestInherited(t *testing.T) {
	f := plugintest.OpenFile(t, 1, newPair(t, unix.SOCK_STREAM)[0])
	f.Inherited = 1
	if err := newPlugin(t).ClaimFile(t.Context(), f); !errors.Is(err, plugin.ErrNotMine) {
		t.Errorf("%v, want ErrNotMine", err)
	}
}

// TestIncomplete claims sockets without those they need.
func TestIncomplete(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(t *testing.T) int
		reason string
	}{
		{"one end", func(t *testing.T) int { return newPair(t, unix.SOCK_STREAM)[0] }, "is outside the computation"},
		{"peer outside", peerOutside, "is outside the computation"},
		{"not accepted", func(t *testing.T) int {
			return connect(t, newListener(t, unix.SOCK_STREAM, filepath.Join(t.TempDir(), "s")))
		}, "is not accepted yet"},
		{"closed before it was accepted", func(t *testing.T) int {
			l := newListener(t, unix.SOCK_STREAM, filepath.Join(t.TempDir(), "s"))
			unix.Close(connect(t, l))
			return l
		}, "waits to be accepted that is closed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd := tc.make(t)
			p := newPlugin(t)
			begin(t, p)
			if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, fd)); err != nil {
				t.Fatal(err)
			}
			var refusal *plugin.RefusalError
			if err := p.Save(t.Context(), new(bytes.Buffer)); !errors.As(err, &refusal) || refusal.FD != fd || !strings.Contains(refusal.Reason, tc.reason) {
				t.Errorf("%v, want a refusal of fd %d: %s", err, fd, tc.reason)
			}
		})
	}
}

func TestReopenUnknown(t *testing.T) {
	f := plugin.OpenFile{ID: 3, Link: "socket:[1]"}
	if _, err := newPlugin(t).ReopenFile(t.Context(), f); err == nil || !strings.Contains(err.Error(), "open file 3") {
		t.Errorf("%v", err)
	}
}

func FuzzParseDiagnosis(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\x0a\x00"))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = parseDiagnosis(raw) })
}

// peerOutside gives one end to a child, which is not of the tree.
func peerOutside(t *testing.T) int {
	pair := newPair(t, unix.SOCK_STREAM)
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	cmd := exec.Command("cat")
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		unix.Shutdown(pair[0], unix.SHUT_RDWR)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return pair[0]
}
