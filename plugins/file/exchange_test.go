package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// filled makes a memory file of a size with a text at some offsets, and holes else.
func filled(t *testing.T, size int64, text string, at ...int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, off := range at {
		if _, err := unix.Pwrite(fd, []byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

func contentOf(t *testing.T, fd int) []byte {
	t.Helper()
	b, err := os.ReadFile(procSelf(fd))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExchange(t *testing.T) {
	const step = exchangeStep
	for _, tc := range []struct {
		size, old   int64
		in, already []int64
	}{
		{3 * step, 3 * step, []int64{0, step - 2, 2 * step}, []int64{0, 5000, 2*step + 4096}},
		{5000, 4 * step, []int64{4000}, []int64{0, 3 * step}},
		{4 * step, 5000, []int64{0, 3*step + 7}, []int64{4000}},
		{0, step, nil, []int64{0}},
		{step, 0, []int64{100}, nil},
		{step, step, nil, nil},
	} {
		t.Run(fmt.Sprintf("%d bytes over %d", tc.size, tc.old), func(t *testing.T) {
			x := &exchange{file: filled(t, tc.old, "old", tc.already...), other: filled(t, tc.size, "new", tc.in...), size: tc.size, was: tc.old}
			old, content, blocks := contentOf(t, x.file), contentOf(t, x.other), stat(t, x.other).Blocks
			if err := x.undo(); err != nil || !bytes.Equal(contentOf(t, x.file), old) {
				t.Errorf("undo before swap: %v, or it has changed the file", err)
			}
			if err := x.swap(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(contentOf(t, x.file), content) {
				t.Error("the file has another content")
			}
			if got := stat(t, x.file).Blocks; got > blocks {
				t.Errorf("%d blocks, want %d: the holes are lost", got, blocks)
			}
			if err := x.undo(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(contentOf(t, x.file), old) {
				t.Error("taken back, the file has another content")
			}
		})
	}
}

// TestTakenBack gives a restart up when files have their names.
func TestTakenBack(t *testing.T) {
	dir := t.TempDir()
	gone, changed := filepath.Join(dir, "gone"), filepath.Join(dir, "changed")
	var fds []int
	for _, name := range []string{gone, changed} {
		fd := open(t, name, unix.O_RDWR|unix.O_CREAT)
		write(t, fd, "saved")
		fds = append(fds, fd)
	}
	files := plugintest.OpenFiles(t, fds...)
	state := checkpointWith(t, plugintest.NewHost(t), plugin.Request{OpenFiles: true}, files...)
	h := plugintest.NewHost(t)
	h.SetConfig(`{"allow_file_overwrite": true}`)
	for _, failed := range []bool{true, false} {
		_ = os.Remove(gone) // which is there the first time
		if err := os.WriteFile(changed, []byte("somebody's own"), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newTestPlugin(t, h)
		if err := p.Load(t.Context(), stateFormat, bytes.NewReader(state)); err != nil {
			t.Fatal(err)
		}
		handle(t, p, plugin.Restart)
		for i := range files {
			fd, err := p.ReopenFile(t.Context(), plugintest.Reopened(files[i]))
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		handle(t, p, plugin.Running)
		if err := p.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(gone); err != nil {
			t.Errorf("it has not got its name: %v", err)
		}
		want := "somebody's own"
		if failed {
			handle(t, p, plugin.Exit)
		} else {
			want = "\x00\x00\x00\x00\x00" // nobody has filled it
			p.Published()
		}
		if b, err := os.ReadFile(changed); err != nil || string(b) != want {
			t.Errorf("failed %t: the file has %q, %v", failed, b, err)
		}
		if _, err := os.Stat(gone); failed != os.IsNotExist(err) {
			t.Errorf("failed %t: the file that was gone: %v", failed, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 2 {
			t.Errorf("failed %t: left behind: %v, %v", failed, left, err)
		}
	}
}

// TestSameMemory: numbers of inodes come again, and a file of somebody else is another.
func TestSameMemory(t *testing.T) {
	p := newTestPlugin(t, plugintest.NewHost(t))
	name := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	born, err := birth(name)
	if err != nil {
		t.Fatal(err)
	}
	d := &inode{Path: pathname(name), Dev: 1, Ino: 2, UID: 70000, Born: born}
	for want, now := range map[bool][]unix.Stat_t{
		true:  {{Dev: 1, Ino: 2, Uid: 70000}, {Dev: 1, Ino: 2, Uid: uint32(os.Geteuid())}},
		false: {{Dev: 1, Ino: 2, Uid: 70001}, {Dev: 1, Ino: 3, Uid: 70000}, {Dev: 2, Ino: 2, Uid: 70000}},
	} {
		for _, st := range now {
			if got := p.isSame(d, &st); got != want {
				t.Errorf("%+v: %t", st, got)
			}
		}
	}
	d.Born = "1.000000000"
	if p.isSame(d, &unix.Stat_t{Dev: 1, Ino: 2, Uid: 70000}) {
		t.Error("a file that was made later, with the same numbers")
	}
}
