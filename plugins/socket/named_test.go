package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// image is a checkpoint of a program that is gone.
type image struct {
	state []byte
	files []plugin.OpenFile
}

// killed checkpoints fds and closes them.
func killed(t *testing.T, fds ...int) image {
	t.Helper()
	p := newPlugin(t)
	begin(t, p)
	files := plugintest.OpenFiles(t, fds...)
	for _, f := range files {
		if err := p.ClaimFile(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	var state bytes.Buffer
	if err := p.Save(t.Context(), &state); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return image{state.Bytes(), files}
}

// restart makes the files again, under numbers of their own.
func (i image) restart(t *testing.T) ([]int, error) {
	t.Helper()
	p := newPlugin(t)
	if err := p.Load(t.Context(), stateFormat, bytes.NewReader(i.state)); err != nil {
		t.Fatal(err)
	}
	defer p.closeMade()
	procs := []plugin.Process{plugintest.Self(t)}
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.Restart, Procs: procs}); err != nil {
		return nil, err
	}
	var fds []int
	byID := make(map[int]int)
	for _, f := range i.files {
		fd, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
		byID[f.ID] = fd
	}
	if err := p.FillFiles(t.Context(), procs, byID); err != nil {
		return nil, err
	}
	if len(p.made) > 0 {
		t.Errorf("%d descriptors are left", len(p.made))
	}
	return fds, nil
}

func (i image) mustRestart(t *testing.T) []int {
	t.Helper()
	fds, err := i.restart(t)
	if err != nil {
		t.Fatal(err)
	}
	return fds
}

func abstract(t *testing.T) string {
	return fmt.Sprintf("\x00hiatus-test-%d-%s\x00\x00", os.Getpid(), t.Name())
}

func TestListener(t *testing.T) {
	for name, typ := range map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET} {
		for _, mode := range []os.FileMode{0o600, 0o777} {
			t.Run(fmt.Sprintf("%s %o", name, mode), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				l := newListener(t, typ, path)
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
				fd := killed(t, l).mustRestart(t)[0]
				info, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != fs.ModeSocket|mode {
					t.Errorf("mode %v, want %v", info.Mode(), mode)
				}
				if d := diagnosed(t, fd); string(d.name) != path || d.backlog != 5 || len(d.clients) != 0 {
					t.Errorf("%+v", d)
				}
				client, server := newConnection(t, fd)
				send(t, client, "hello")
				receive(t, server, typ, "hello")
			})
		}
	}
	t.Run("abstract", func(t *testing.T) {
		name := abstract(t)
		fd := killed(t, newListener(t, unix.SOCK_STREAM, name)).mustRestart(t)[0]
		if d := diagnosed(t, fd); string(d.name) != name {
			t.Errorf("name %q, want %q", d.name, name)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l := newListener(t, unix.SOCK_STREAM, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		fd := killed(t, l).mustRestart(t)[0]
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file is there: %v", err)
		}
		if d := diagnosed(t, fd); string(d.name) != path {
			t.Errorf("name %q, want %q", d.name, path)
		}
	})
}

func TestListenerTaken(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name string
		take func(t *testing.T, path string)
		want string
	}{
		{"by a listener", func(t *testing.T, path string) { newListener(t, unix.SOCK_STREAM, path) }, "is in use by another process"},
		{"by datagrams", func(t *testing.T, path string) {
			bind(t, newSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0), path)
		}, "is in use by another process"},
		{"by a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "exists, and is no socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(tc.name, " ", "-"))
			saved := killed(t, newListener(t, unix.SOCK_STREAM, path))
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			tc.take(t, path)
			if _, err := saved.restart(t); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q: %s", err, path, tc.want)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("what was there is gone: %v", err)
			}
		})
	}
	t.Run("abstract", func(t *testing.T) {
		name := abstract(t)
		saved := killed(t, newListener(t, unix.SOCK_STREAM, name))
		newListener(t, unix.SOCK_STREAM, name)
		if _, err := saved.restart(t); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%v, want EADDRINUSE", err)
		}
	})
}

// TestConnections takes accepted connections, with data in flight, through a
// checkpoint, whether the listener is still there or not, and in any order.
func TestConnections(t *testing.T) {
	names := map[string]func(t *testing.T) string{
		"path":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "s") },
		"abstract": abstract,
	}
	for name, make := range names {
		for _, order := range []string{"listener first", "client first", "server first", "listener closed"} {
			t.Run(name+" "+order, func(t *testing.T) {
				sun := make(t)
				l := newListener(t, unix.SOCK_STREAM, sun)
				client, server := newConnection(t, l)
				client2, server2 := newConnection(t, l)
				send(t, client, "question")
				send(t, server, "answer")
				send(t, server2, "rest")
				unix.Close(server2)

				var fds []int
				switch order {
				case "listener first":
					fds = killed(t, client2, l, client, server).mustRestart(t)
					client2, client, server = fds[0], fds[2], fds[3]
				case "client first":
					fds = killed(t, client, server, client2, l).mustRestart(t)
					client, server, client2 = fds[0], fds[1], fds[2]
				case "server first":
					fds = killed(t, server, client, client2, l).mustRestart(t)
					server, client, client2 = fds[0], fds[1], fds[2]
				default:
					unix.Close(l)
					fds = killed(t, server, client, client2).mustRestart(t)
					server, client, client2 = fds[0], fds[1], fds[2]
				}
				receive(t, server, unix.SOCK_STREAM, "question")
				receive(t, client, unix.SOCK_STREAM, "answer")
				receive(t, client2, unix.SOCK_STREAM, "rest")
				if d := diagnosed(t, server); string(d.name) != sun || d.peer != inode(t, client) {
					t.Errorf("the server is %q, connected to %d", d.name, d.peer)
				}
				if got, err := peerName(client); err != nil || string(got) != sun {
					t.Errorf("the client's peer is %q, %v", got, err)
				}
				if name == "path" {
					if _, err := os.Lstat(sun); err != nil {
						t.Errorf("the file was there: %v", err)
					}
				}
			})
		}
	}
}

// TestConnectionDeleted has neither the listener nor its file any more.
func TestConnectionDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := newListener(t, unix.SOCK_STREAM, path)
	client, server := newConnection(t, l)
	unix.Close(l)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fds := killed(t, client, server).mustRestart(t)
	send(t, fds[0], "x")
	receive(t, fds[1], unix.SOCK_STREAM, "x")
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
}
