package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestRegular(t *testing.T) {
	for name, flags := range map[string]int{
		"read":     unix.O_RDONLY,
		"write":    unix.O_WRONLY,
		"append":   unix.O_RDWR | unix.O_APPEND,
		"nonblock": unix.O_RDWR | unix.O_NONBLOCK,
		"sync":     unix.O_RDWR | unix.O_SYNC,
		"dsync":    unix.O_RDWR | unix.O_DSYNC,
		"noatime":  unix.O_RDONLY | unix.O_NOATIME,
		"trunc":    unix.O_RDWR | unix.O_CREAT,
		"nofollow": unix.O_RDONLY | unix.O_NOFOLLOW,
	} {
		t.Run(name, func(t *testing.T) {
			file := tempFile(t, "0123456789")
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					fd := open(t, file, flags)
					if _, err := unix.Seek(fd, 4, unix.SEEK_SET); err != nil {
						t.Fatal(err)
					}
					return []int{fd}
				},
				func(t *testing.T, fds []int) {
					if got := offset(t, fds[0]); got != 4 {
						t.Errorf("offset %d, want 4", got)
					}
					if got, want := status(t, fds[0]), flags&keptFlags; got != want {
						t.Errorf("flags %#o, want %#o", got, want)
					}
					if size := stat(t, fds[0]).Size; size != 10 {
						t.Errorf("size %d, want 10", size)
					}
				})
		})
	}
}

func TestDirectIO(t *testing.T) {
	name := tempFile(t, "")
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this file system has no O_DIRECT: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	plugintest.RoundTrip(t, Definition(), func(*testing.T) []int { return []int{fd} }, func(t *testing.T, fds []int) {
		if status(t, fds[0])&unix.O_DIRECT == 0 {
			t.Error("O_DIRECT is lost")
		}
	})
}

// Two descriptions of one file have offsets of their own; a duplicate shares.
func TestDescriptions(t *testing.T) {
	name := tempFile(t, "0123456789")
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			a, b := open(t, name, unix.O_RDONLY), open(t, name, unix.O_RDONLY)
			c, err := unix.Dup(a)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(c) })
			read(t, a, 3)
			read(t, b, 5)
			return []int{a, b, c}
		},
		func(t *testing.T, fds []int) {
			if got := read(t, fds[0], 1) + read(t, fds[2], 1) + read(t, fds[1], 1); got != "345" {
				t.Errorf("read %q, want 345", got)
			}
		})
}

// TestDenied opens files again whose permissions deny it to their owner: of one
// that open(2) makes they count for later calls only, as git's packs show.
func TestDenied(t *testing.T) {
	for name, c := range map[string]struct {
		mode  uint32
		flags int
	}{
		"made read-only":  {0o444, unix.O_RDWR},
		"made write-only": {0o200, unix.O_RDONLY},
		"made closed":     {0, unix.O_RDWR | unix.O_APPEND},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					fd, err := unix.Open(path, c.flags|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, c.mode)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { unix.Close(fd) })
					return []int{fd}
				},
				func(t *testing.T, fds []int) {
					if got := stat(t, fds[0]).Mode & 0o7777; got != c.mode {
						t.Errorf("mode %#o, want %#o", got, c.mode)
					}
					if got := status(t, fds[0]); got != c.flags {
						t.Errorf("flags %#o, want %#o", got, c.flags)
					}
				})
		})
	}
}

func TestOtherNamedFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path  string
		flags int
	}{
		"directory":       {dir, unix.O_RDONLY | unix.O_DIRECTORY},
		"path":            {dir, unix.O_PATH},
		"path of a link":  {link, unix.O_PATH | unix.O_NOFOLLOW},
		"null":            {"/dev/null", unix.O_RDWR},
		"zero":            {"/dev/zero", unix.O_RDONLY},
		"full":            {"/dev/full", unix.O_WRONLY},
		"random":          {"/dev/random", unix.O_RDONLY},
		"urandom":         {"/dev/urandom", unix.O_RDONLY},
		"file of /proc":   {"/proc/self/status", unix.O_RDONLY},
		"file of /sys":    {"/sys/kernel/mm/transparent_hugepage/enabled", unix.O_RDONLY},
		"not UTF-8":       {filepath.Join(dir, "\xff\xfe"), unix.O_CREAT | unix.O_RDWR},
		"deleted by name": {filepath.Join(dir, "x (deleted)"), unix.O_CREAT | unix.O_RDWR},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Lstat(c.path); err != nil && c.flags&unix.O_CREAT == 0 {
				t.Skip(err)
			}
			var want unix.Stat_t
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					fd := open(t, c.path, c.flags)
					want = stat(t, fd)
					return []int{fd}
				},
				func(t *testing.T, fds []int) {
					if got := stat(t, fds[0]); got.Mode != want.Mode || got.Rdev != want.Rdev || got.Dev != want.Dev {
						t.Errorf("mode %#o device %#x, want %#o %#x", got.Mode, got.Rdev, want.Mode, want.Rdev)
					}
					if got, want := status(t, fds[0]), c.flags&keptFlags; got != want {
						t.Errorf("flags %#o, want %#o", got, want)
					}
				})
		})
	}
}

func TestDirectoryPosition(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := func(fd int, all bool) (names []string) {
		b := make([]byte, 512)
		for {
			n, err := unix.Getdents(fd, b)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return names
			}
			_, _, names = unix.ParseDirent(b[:n], -1, names)
			if !all {
				return names
			}
		}
	}
	var seen []string
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			fd := open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)
			seen = names(fd, false)
			return []int{fd}
		},
		func(t *testing.T, fds []int) {
			rest := names(fds[0], true)
			count := map[string]int{}
			for _, n := range append(seen, rest...) {
				count[n]++
			}
			if len(count) != 100 || len(seen)+len(rest) != 100 {
				t.Errorf("%d names and then %d, %d different; want 100", len(seen), len(rest), len(count))
			}
		})
}

// What became of the file between the checkpoint and the restart.
func TestChangedFile(t *testing.T) {
	appended := func(p string) error { return os.WriteFile(p, []byte("0123456789ab"), 0o600) }
	shorter := func(p string) error { return os.Truncate(p, 3) }
	replaced := func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o700) }
	for name, c := range map[string]struct {
		config string
		ended  bool // with the checkpoint
		flags  int
		change func(path string) error
		err    string
		logged string
	}{
		"by itself":           {"", false, unix.O_RDWR, appended, "", "has changed"},
		"by another":          {"", false, unix.O_RDONLY, appended, "the file has changed since the checkpoint: 12 bytes", ""},
		"after the end":       {"", true, unix.O_RDWR, appended, "the file has changed since the checkpoint: 12 bytes", ""},
		"by another, allowed": {`{"allow_changed_files": true}`, false, unix.O_RDONLY, appended, "", "has changed"},
		"shorter":             {"", false, unix.O_RDWR, shorter, "the file has changed since the checkpoint: 3 bytes", ""},
		"shorter, allowed":    {`{"allow_changed_files": true}`, true, unix.O_RDWR, shorter, "", "has changed"},
		"missing":             {"", false, unix.O_RDWR, os.Remove, "stat: no such file or directory", ""},
		"replaced":            {`{"allow_changed_files": true}`, false, unix.O_RDWR, replaced, "replaced by a file of another type", ""},
		"touched by nobody":   {"", true, unix.O_RDWR, func(string) error { return nil }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := tempFile(t, "0123456789")
			fd := open(t, path, c.flags)
			if _, err := unix.Seek(fd, 8, unix.SEEK_SET); err != nil {
				t.Fatal(err)
			}
			f := plugintest.OpenFile(t, 1, fd)
			h := plugintest.NewHost(t)
			h.SetConfig(c.config)
			state := checkpointWith(t, h, plugin.Request{Kill: c.ended}, f)
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			p := newTestPlugin(t, h)
			if err := p.Load(t.Context(), stateFormat, bytes.NewReader(state)); err != nil {
				t.Fatal(err)
			}
			err := p.Handle(t.Context(), plugin.Event{Kind: plugin.Restart})
			if c.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				again, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(again)
			} else if err == nil || !strings.Contains(err.Error(), path+": "+c.err) {
				t.Errorf("error %v, want %s: %s", err, path, c.err)
			}
			if c.logged == "" && h.Logged() != "" {
				t.Errorf("logged %s", h.Logged())
			}
			requireLogged(t, h, c.logged)
		})
	}
}

func TestRefusedFiles(t *testing.T) {
	h := plugintest.NewHost(t)
	t.Run("other link", func(t *testing.T) {
		name := tempFile(t, "x")
		fd := open(t, name, unix.O_RDONLY)
		if err := os.Link(name, filepath.Join(t.TempDir(), "far")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		f := plugintest.OpenFile(t, 1, fd)
		requireReason(t, refused(t, h, f), f, "the name was removed or replaced, and its other links (1) are not in "+filepath.Dir(name)+" or below")
	})
	t.Run("process outside", func(t *testing.T) {
		f := plugintest.OpenFile(t, 1, open(t, "/proc/1/status", unix.O_RDONLY))
		refusal, ok := errors.AsType[*plugin.RefusalError](refused(t, h, f))
		if !ok || refusal.Reason != "it belongs to process 1, which is not a living one of the computation" || !refusal.Passing {
			t.Errorf("refused with %+v: want the process, and that it may pass", refusal)
		}
	})
	t.Run("device", func(t *testing.T) {
		f := plugintest.OpenFile(t, 1, open(t, "/dev/null", unix.O_RDONLY))
		f.Link, f.Stat.Rdev = "/dev/kvm", unix.Mkdev(10, 232)
		requireReason(t, refused(t, h, f), f, "character device 10:232 is not kept")
	})
}

func TestNotMine(t *testing.T) {
	p := newTestPlugin(t, plugintest.NewHost(t))
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	ns := open(t, "/proc/self/ns/mnt", unix.O_RDONLY)
	t.Cleanup(func() { unix.Close(sockets[0]); unix.Close(sockets[1]); unix.Close(eventfd) })
	for _, fd := range []int{sockets[0], eventfd, ns} {
		f := plugintest.OpenFile(t, 1, fd)
		if err := p.ClaimFile(t.Context(), f); err != plugin.ErrNotMine {
			t.Errorf("%s: %v, want ErrNotMine", f.Link, err)
		}
	}
}

// Paths are the program's: the supervisor finds them below Host.Root.
func TestRoot(t *testing.T) {
	h := plugintest.NewHost(t)
	h.SetRoot("/proc/self/root")
	name, gone := tempFile(t, "0123456789"), tempFile(t, "")
	plugintest.RoundTripOn(t, Definition(), h,
		func(t *testing.T) []int {
			fd, deleted := open(t, name, unix.O_RDONLY), open(t, gone, unix.O_RDWR)
			read(t, fd, 3)
			if err := unix.Unlink(gone); err != nil {
				t.Fatal(err)
			}
			return []int{fd, deleted}
		},
		func(t *testing.T, fds []int) {
			if f := plugintest.OpenFile(t, 1, fds[0]); f.Link != name || f.Pos != 3 {
				t.Errorf("%s at %d, want %s at 3", f.Link, f.Pos, name)
			}
			if got := filepath.Dir(plugintest.OpenFile(t, 1, fds[1]).Link); got != filepath.Dir(gone) {
				t.Errorf("deleted file in %s, want %s", got, filepath.Dir(gone))
			}
		})
}
