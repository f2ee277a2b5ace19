package socket

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
			for _, f := range plugintest.OpenFiles(t, pair[0], pair[1], l, client, server) {
				if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
		},
		Invalid: map[string]string{
			"type":               `{"unix":{"1":{"type":3,"ino":1,"options":{"values":{}}}}}`,
			"peer missing":       `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}}}}`,
			"peer of itself":     `{"unix":{"1":{"type":1,"ino":1,"peer":1,"options":{"values":{}}}}}`,
			"peer not mutual":    `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}},"2":{"type":1,"ino":2,"options":{"values":{}}}}}`,
			"peer of a type":     `{"unix":{"1":{"type":1,"ino":1,"peer":2,"options":{"values":{}}},"2":{"type":2,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"peer of a name":     `{"unix":{"1":{"type":1,"ino":1,"peer":2,"peer_name":"L2E=","options":{"values":{}}},"2":{"type":1,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"peer and closed":    `{"unix":{"1":{"type":1,"ino":1,"peer":2,"peer_closed":true,"options":{"values":{}}},"2":{"type":1,"ino":2,"peer":1,"options":{"values":{}}}}}`,
			"inode twice":        `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{}}},"2":{"type":1,"ino":1,"options":{"values":{}}}}}`,
			"reset":              `{"unix":{"1":{"type":1,"ino":1,"reset":true,"options":{"values":{}}}}}`,
			"shutdown":           `{"unix":{"1":{"type":1,"ino":1,"shutdown":4,"options":{"values":{}}}}}`,
			"queue":              `{"unix":{"1":{"type":1,"ino":1,"queue":["YQ=="],"options":{"values":{}}}}}`,
			"queue of a stream":  `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"queue":["YQ==","YQ=="],"options":{"values":{}}}}}`,
			"empty message":      `{"unix":{"1":{"type":2,"ino":1,"peer_closed":true,"queue":[""],"options":{"values":{}}}}}`,
			"relative name":      `{"unix":{"1":{"type":1,"ino":1,"name":"YQ==","listen":{"backlog":1},"options":{"values":{}}}}}`,
			"listener unnamed":   `{"unix":{"1":{"type":1,"ino":1,"listen":{"backlog":1},"options":{"values":{}}}}}`,
			"listener backlog":   `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","listen":{"backlog":-1},"options":{"values":{}}}}}`,
			"listener mode":      `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","listen":{"backlog":1,"mode":2048},"options":{"values":{}}}}}`,
			"listener connected": `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"name":"L2E=","listen":{"backlog":1},"options":{"values":{}}}}}`,
			"name alone":         `{"unix":{"1":{"type":1,"ino":1,"name":"L2E=","options":{"values":{}}}}}`,
			"peer name alone":    `{"unix":{"1":{"type":1,"ino":1,"peer_name":"L2E=","options":{"values":{}}}}}`,
			"both named":         `{"unix":{"1":{"type":1,"ino":1,"peer_closed":true,"name":"L2E=","peer_name":"L2E=","options":{"values":{}}}}}`,
			"named datagrams":    `{"unix":{"1":{"type":2,"ino":1,"peer_closed":true,"name":"L2E=","options":{"values":{}}}}}`,
			"option":             `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{"13":1}}}}}`,
			"buffer":             `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{},"send_buffer":-1}}}}`,
			"timeout":            `{"unix":{"1":{"type":1,"ino":1,"options":{"values":{},"send_timeout_ns":-1}}}}`,
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
				if got := len(bytes.Join(p.state.UNIX[1].Queue, nil)); got != 6 {
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
		{"TCP", func(t *testing.T) int { return newSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0) },
			"IPv4 stream (protocol 6) socket: not kept yet"},
		{"UDP", func(t *testing.T) int { return newSocket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0) },
			"IPv6 datagram (protocol 17) socket: not kept yet"},
		{"peer outside", peerOutside, "is outside the computation"},
		{"descriptors in flight", descriptorsInFlight, "file descriptors are in flight (SCM_RIGHTS)"},
		{"out-of-band data", func(t *testing.T) int {
			pair := newPair(t, unix.SOCK_STREAM)
			if err := unix.Sendto(pair[0], []byte("x"), unix.MSG_OOB, nil); err != nil {
				t.Skip(err) // before Linux 5.15
			}
			return pair[1]
		}, "out-of-band data is queued"},
		{"credentials", func(t *testing.T) int {
			pair := newPair(t, unix.SOCK_DGRAM)
			if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
				t.Fatal(err)
			}
			send(t, pair[0], "who")
			return pair[1]
		}, "credentials of its sender"},
		{"bound stream", func(t *testing.T) int {
			fd := newSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
			bind(t, fd, filepath.Join(t.TempDir(), "s"))
			return fd
		}, "neither listening nor connected"},
		{"filter", func(t *testing.T) int {
			fd := newPair(t, unix.SOCK_DGRAM)[0]
			accept := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &accept}); err != nil {
				t.Fatal(err)
			}
			return fd
		}, "it has a filter"},
		{"relative path", func(t *testing.T) int {
			t.Chdir(t.TempDir())
			return newListener(t, unix.SOCK_STREAM, "s")
		}, `bound to the relative path "s"`},
		{"pending connection", func(t *testing.T) int {
			l := newListener(t, unix.SOCK_STREAM, filepath.Join(t.TempDir(), "s"))
			connect(t, l)
			return l
		}, "1 connections to "},
		{"not accepted", func(t *testing.T) int {
			return connect(t, newListener(t, unix.SOCK_STREAM, filepath.Join(t.TempDir(), "s")))
		}, "is not accepted yet"},
		{"replaced file", func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "s")
			l := newListener(t, unix.SOCK_STREAM, path)
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			newListener(t, unix.SOCK_STREAM, path)
			return l
		}, "is now another file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fd := tc.make(t)
			p := newPlugin(t)
			begin(t, p)
			refused(t, p, fd, tc.reason)
		})
	}
}

// TestEmptyMessage checks that an empty message, which the kernel shows once,
// is refused as long as it may be there.
func TestEmptyMessage(t *testing.T) {
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair := newPair(t, typ)
		send(t, pair[0], "one", "")
		p := newPlugin(t)
		for range 2 {
			begin(t, p)
			refused(t, p, pair[1], "an empty message is queued")
		}
		receive(t, pair[1], typ, "one", "")
		begin(t, p)
		if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, pair[1])); err != nil {
			t.Error(err)
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

// TestPeerNotClaimed leaves one end to another plugin.
func TestPeerNotClaimed(t *testing.T) {
	p := newPlugin(t)
	begin(t, p)
	fd := newPair(t, unix.SOCK_STREAM)[0]
	if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, fd)); err != nil {
		t.Fatal(err)
	}
	var refusal *plugin.RefusalError
	if err := p.Save(t.Context(), new(bytes.Buffer)); !errors.As(err, &refusal) || refusal.FD != fd {
		t.Errorf("%v, want a refusal of fd %d", err, fd)
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

func descriptorsInFlight(t *testing.T) int {
	pair := newPair(t, unix.SOCK_STREAM)
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(0, 1), nil, 0); err != nil {
		t.Fatal(err)
	}
	return pair[1]
}
