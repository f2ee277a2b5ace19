package socket

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func newPlugin(t *testing.T) *Plugin {
	t.Helper()
	p, err := Definition().New(plugintest.NewHost(t))
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Plugin)
}

// begin delivers a PreCheckpoint with the test process.
func begin(t *testing.T, p plugin.Plugin) {
	t.Helper()
	ev := plugin.Event{Kind: plugin.PreCheckpoint, Procs: []plugin.Process{plugintest.Self(t)}}
	if err := p.Handle(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
}

// refused checks that fd is refused, by name.
func refused(t *testing.T, p *Plugin, fd int, reason string) {
	t.Helper()
	f := plugintest.OpenFile(t, 1, fd)
	err := p.ClaimFile(t.Context(), f)
	var refusal *plugin.RefusalError
	if !errors.As(err, &refusal) || refusal.FD != fd || !strings.Contains(refusal.Reason, reason) {
		t.Errorf("%v, want a refusal of fd %d: %s", err, fd, reason)
	}
}

func newSocket(t *testing.T, family, typ, protocol int) int {
	t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func newPair(t *testing.T, typ int) []int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return pair[:]
}

func bind(t *testing.T, fd int, name string) {
	t.Helper()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
}

func newListener(t *testing.T, typ int, name string) int {
	t.Helper()
	fd := newSocket(t, unix.AF_UNIX, typ, 0)
	bind(t, fd, name)
	if err := unix.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	return fd
}

// connect makes a client of listener.
func connect(t *testing.T, listener int) int {
	t.Helper()
	k, err := kindOf(listener)
	if err != nil {
		t.Fatal(err)
	}
	client := newSocket(t, unix.AF_UNIX, k.kind, 0)
	if err := unix.Connect(client, address(diagnosed(t, listener).name)); err != nil {
		t.Fatal(err)
	}
	return client
}

func newConnection(t *testing.T, listener int) (client, server int) {
	t.Helper()
	client = connect(t, listener)
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(server) })
	return client, server
}

func send(t *testing.T, fd int, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := unix.Send(fd, []byte(m), unix.MSG_DONTWAIT); err != nil {
			t.Fatal(err)
		}
	}
}

// receive checks what is queued: the messages, or all bytes of a stream.
func receive(t *testing.T, fd, typ int, want ...string) {
	t.Helper()
	var got []string
	buf := make([]byte, 256<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil || n == 0 && len(got) >= len(want) {
			break
		}
		got = append(got, string(buf[:n]))
	}
	if typ == unix.SOCK_STREAM {
		got, want = []string{strings.Join(got, "")}, []string{strings.Join(want, "")}
	}
	if !slices.Equal(got, want) {
		t.Errorf("received %.40q, want %.40q", got, want)
	}
}

// fill sends until the kernel takes no more, and returns the bytes sent.
func fill(t *testing.T, fd, size int) (total int) {
	t.Helper()
	for {
		n, err := unix.SendmsgN(fd, make([]byte, size), nil, nil, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
}

// drain reads all that is queued, and returns how many bytes.
func drain(t *testing.T, fd int) (total int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
}

func inode(t *testing.T, fd int) uint32 {
	t.Helper()
	return uint32(plugintest.OpenFile(t, 1, fd).Stat.Ino)
}

func diagnosed(t *testing.T, fd int) diagnosis {
	t.Helper()
	d, err := diagnose(inode(t, fd))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func optionsOf(t *testing.T, fd int) options {
	t.Helper()
	k, err := kindOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	o, err := saveOptions(fd, k.kind)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// size is the number of bytes that are queued.
func (s unixSocket) size() (n int) {
	for _, m := range s.Queue {
		n += len(m.Data)
	}
	return n
}
