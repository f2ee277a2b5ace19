package event

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// TestInotify watches a directory, a file in one that is below it, and a
// deleted file. What a restart does is not heard.
func TestInotify(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	file := filepath.Join(dir, "a", "b", "file")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Join(dir, "gone")} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := os.Open(filepath.Join(dir, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	var before []string
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		fd := newInotify(t)
		first := addWatch(t, fd, "a", unix.IN_CREATE)
		addWatch(t, fd, ".", unix.IN_ALL_EVENTS&^unix.IN_ATTRIB)
		addWatch(t, fd, "gone", unix.IN_MODIFY)
		if err := os.Remove("gone"); err != nil {
			t.Fatal(err)
		}
		drain(t, fd)
		addWatch(t, fd, file, unix.IN_MODIFY|unix.IN_ONESHOT)
		if _, err := unix.InotifyRmWatch(fd, uint32(first)); err != nil {
			t.Fatal(err)
		}
		drain(t, fd)
		before = fdinfo(t, fd).Fields["inotify wd"]
		if len(before) != 3 {
			t.Fatalf("watches %q", before)
		}
		return []int{fd}
	}, func(t *testing.T, fds []int) {
		if after := fdinfo(t, fds[0]).Fields["inotify wd"]; !slices.Equal(after, before) {
			t.Errorf("watches %q, were %q", after, before)
		}
		if events := drain(t, fds[0]); len(events) != 0 {
			t.Errorf("events %v", events)
		}
		if wd := addWatch(t, fds[0], "a", unix.IN_CREATE); wd != 5 {
			t.Errorf("the next watch is %d, want 5", wd)
		}
	})
}

// TestInotifyQueued checks that events which cannot be kept become the
// kernel's own word that some are missing.
func TestInotifyQueued(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		fd := newInotify(t)
		addWatch(t, fd, dir, unix.IN_CREATE)
		if err := os.WriteFile("new", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return []int{fd}
	}, func(t *testing.T, fds []int) {
		events := drain(t, fds[0])
		if len(events) != 1 || events[0] != [2]uint32{1<<32 - 1, unix.IN_Q_OVERFLOW} {
			t.Errorf("events %v, want an overflow", events)
		}
		if err := os.WriteFile("newer", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if events := drain(t, fds[0]); len(events) != 1 || events[0] != [2]uint32{1, unix.IN_CREATE} {
			t.Errorf("events %v, want one of watch 1", events)
		}
	})
}

func TestInotifyNotFound(t *testing.T) {
	p := &Plugin{host: plugintest.NewHost(t)}
	begin(t, p)
	fd := newInotify(t)
	f := plugintest.OpenFile(t, 1, fd)
	m := mark{ino: 1 << 62, sdev: 1}
	p.tree.hosts = map[int]int{} // no known place, no walk
	p.tree.hosts[os.Getpid()] = 1 << 22
	p.searches = []search{{file: f, inotify: &inotify{Watches: []watch{{WD: 1}}}, marks: []mark{m}}}
	var refusal *plugin.RefusalError
	if err := p.savePlaces(t.Context()); !errors.As(err, &refusal) || refusal.FD != fd {
		t.Errorf("%v, want a refusal", err)
	}
}

func FuzzParseWatch(f *testing.F) {
	f.Add("1 ino:3c4a3 sdev:fe00000 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a3c40300a8e4dd01")
	f.Fuzz(func(_ *testing.T, line string) {
		if _, m, err := parseWatch(line); err == nil && m.handle != "" {
			_, _ = parseHandle(m.handle)
		}
	})
}

func FuzzParseDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04a\x00\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseDirents(b) })
}

func newInotify(t *testing.T) int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func addWatch(t *testing.T, fd int, name string, mask uint32) int {
	t.Helper()
	wd, err := unix.InotifyAddWatch(fd, name, mask)
	if err != nil {
		t.Fatal(err)
	}
	return wd
}

// drain reads all events: descriptor and mask of each.
func drain(t *testing.T, fd int) (events [][2]uint32) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EAGAIN {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; {
			word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
			events = append(events, [2]uint32{word(0), word(1)})
			b = b[unix.SizeofInotifyEvent+word(3):]
		}
	}
}
