package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/sigio"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestPipe(t *testing.T) {
	for _, c := range []struct {
		capacity, size int
		flags          int
	}{
		{0, 0, 0},
		{0, 5, 0},
		{0, 5, unix.O_NONBLOCK},
		{0, 64 << 10, unix.O_NONBLOCK},
		{1 << 20, 1 << 20, 0},
		{4096, 4096, 0},
	} {
		t.Run(fmt.Sprintf("%d of %d flags %#o", c.size, c.capacity, c.flags), func(t *testing.T) {
			content := strings.Repeat("0123456789abcdef", c.size/16+1)[:c.size]
			var capacity int
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					r, w := openPipe(t, c.flags)
					if c.capacity > 0 {
						if err := setCapacity(w, c.capacity); err != nil {
							t.Skip(err)
						}
					}
					capacity, _ = unix.FcntlInt(uintptr(w), unix.F_GETPIPE_SZ, 0)
					write(t, w, content)
					return []int{r, w}
				},
				func(t *testing.T, fds []int) {
					r, w := fds[0], fds[1]
					if got, _ := unix.FcntlInt(uintptr(w), unix.F_GETPIPE_SZ, 0); got != capacity {
						t.Errorf("capacity %d, want %d", got, capacity)
					}
					if status(t, r) != unix.O_RDONLY|c.flags || status(t, w) != unix.O_WRONLY|c.flags {
						t.Errorf("flags %#o and %#o, want %#o more", status(t, r), status(t, w), c.flags)
					}
					if c.size > 0 {
						if got := read(t, r, c.size+1); got != content {
							t.Errorf("read %d bytes that differ from the %d written", len(got), c.size)
						}
					}
					write(t, w, "more")
					if got := read(t, r, 10); got != "more" {
						t.Errorf("read %q, want more", got)
					}
					unix.Close(w)
					if got := read(t, r, 1); got != "" {
						t.Errorf("read %q, want the end: somebody holds the write end", got)
					}
				})
		})
	}
}

// Claiming must leave what is in the pipe to the program.
func TestPipeKeepsContent(t *testing.T) {
	r, w := openPipe(t, 0)
	write(t, w, "content")
	checkpoint(t, plugintest.NewHost(t), plugintest.OpenFiles(t, r, w)...)
	if got := read(t, r, 100); got != "content" {
		t.Errorf("read %q, want content", got)
	}
}

func TestPipePackets(t *testing.T) {
	for name, packets := range map[string][]string{
		"several": {"one", "second", strings.Repeat("x", 4096), "4"},
		"single":  {"alone"},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					r, w := openPipe(t, unix.O_DIRECT)
					for _, p := range packets {
						write(t, w, p)
					}
					return []int{r, w}
				},
				func(t *testing.T, fds []int) {
					if status(t, fds[1])&unix.O_DIRECT == 0 {
						t.Error("O_DIRECT is lost")
					}
					write(t, fds[1], "new")
					var got []string
					for range len(packets) + 1 {
						got = append(got, read(t, fds[0], 8192))
					}
					if want := append(slices.Clone(packets), "new"); !slices.Equal(got, want) {
						t.Errorf("packets %.100q, want %.100q", got, want)
					}
				})
		})
	}
}

// An end that is closed everywhere stays closed.
func TestPipeClosedEnd(t *testing.T) {
	t.Run("write end", func(t *testing.T) {
		plugintest.RoundTrip(t, Definition(),
			func(t *testing.T) []int {
				r, w := openPipe(t, 0)
				write(t, w, "last")
				unix.Close(w)
				return []int{r}
			},
			func(t *testing.T, fds []int) {
				if got := read(t, fds[0], 10) + "|" + read(t, fds[0], 10); got != "last|" {
					t.Errorf("read %q, want the content and the end", got)
				}
			})
	})
	t.Run("read end", func(t *testing.T) {
		plugintest.RoundTrip(t, Definition(),
			func(t *testing.T) []int {
				r, w := openPipe(t, 0)
				unix.Close(r)
				return []int{w}
			},
			func(t *testing.T, fds []int) {
				// Go's runtime ignores SIGPIPE of other descriptors than 1 and 2.
				if _, err := unix.Write(fds[0], []byte("x")); !errors.Is(err, unix.EPIPE) {
					t.Errorf("write: %v, want EPIPE", err)
				}
			})
	})
}

func TestPipeDescriptions(t *testing.T) {
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			r, w := openPipe(t, 0)
			write(t, w, "abc")
			return []int{r, w, open(t, procSelf(r), unix.O_RDONLY|unix.O_NONBLOCK), open(t, procSelf(r), unix.O_RDWR)}
		},
		func(t *testing.T, fds []int) {
			if got := read(t, fds[0], 1) + read(t, fds[2], 1) + read(t, fds[3], 1); got != "abc" {
				t.Errorf("read %q, want abc", got)
			}
			for i, want := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDONLY | unix.O_NONBLOCK, unix.O_RDWR} {
				if got := status(t, fds[i]); got != want {
					t.Errorf("flags of description %d: %#o, want %#o", i, got, want)
				}
			}
		})
}

func TestPipeOutside(t *testing.T) {
	h := plugintest.NewHost(t)
	r, w := openPipe(t, 0)
	write(t, w, "x")
	f := plugintest.OpenFile(t, 1, r)
	requireReason(t, refused(t, h, f), f, "its write end is held by a process outside the computation")
	f = plugintest.OpenFile(t, 1, w)
	requireReason(t, refused(t, h, f), f, "its read end is held by a process outside the computation")
}

// One refusal is told by one process, and brings no others about.
func TestPipeOutsideOnce(t *testing.T) {
	r, w := openPipe(t, 0)
	half, _ := openPipe(t, 0)
	p := newTestPlugin(t, plugintest.NewHost(t))
	handle(t, p, plugin.PreCheckpoint)
	defer handle(t, p, plugin.Resume)
	claim(t, p, plugintest.OpenFile(t, 1, r), plugintest.OpenFile(t, 2, w), plugintest.OpenFile(t, 3, half))
	self := plugintest.Self(t)
	if err := p.SaveProcess(t.Context(), self); err == nil {
		t.Error("a pipe whose other end nobody has claimed is kept")
	}
	if err := p.SaveProcess(t.Context(), self); err != nil {
		t.Errorf("the second process: %v", err)
	}
}

func mkfifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFIFO(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		t.Run(fmt.Sprintf("deleted %t", deleted), func(t *testing.T) {
			name := mkfifo(t)
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					r := open(t, name, unix.O_RDONLY|unix.O_NONBLOCK)
					w := open(t, name, unix.O_WRONLY)
					write(t, w, "content")
					if deleted {
						if err := unix.Unlink(name); err != nil {
							t.Fatal(err)
						}
					}
					return []int{r, w}
				},
				func(t *testing.T, fds []int) {
					got := read(t, fds[0], 7)
					// While the old FIFO is refilled under its name, it has
					// the old content as well.
					if got != "content" {
						t.Errorf("read %q, want content", got)
					}
					if links := stat(t, fds[0]).Nlink; (links == 0) != deleted {
						t.Errorf("%d links", links)
					}
					for read(t, fds[0], 100) != "(resource temporarily unavailable)" {
					}
					unix.Close(fds[1])
					if got := read(t, fds[0], 1); got != "" {
						t.Errorf("read %q, want the end", got)
					}
				})
		})
	}
}

// A reader that waits for its first writer by poll(2) must see no POLLHUP.
func TestFIFOWithoutWriter(t *testing.T) {
	name := mkfifo(t)
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int { return []int{open(t, name, unix.O_RDONLY|unix.O_NONBLOCK)} },
		func(t *testing.T, fds []int) {
			if events, err := pollNow(fds[0], unix.POLLIN); events != 0 || err != nil {
				t.Errorf("poll: %#x, %v, want no event", events, err)
			}
			write(t, open(t, name, unix.O_WRONLY), "hello")
			if got := read(t, fds[0], 9); got != "hello" {
				t.Errorf("read %q", got)
			}
		})
}

func TestFIFOOutside(t *testing.T) {
	name := mkfifo(t)
	r := open(t, name, unix.O_RDONLY|unix.O_NONBLOCK)
	open(t, name, unix.O_WRONLY)
	f := plugintest.OpenFile(t, 1, r)
	requireReason(t, refused(t, plugintest.NewHost(t), f), f, "its write end is held by a process outside the computation")
}

func TestAsync(t *testing.T) {
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			r, w := openPipe(t, 0)
			for cmd, arg := range map[int]int{unix.F_SETOWN: os.Getpid(), unix.F_SETSIG: int(unix.SIGURG), unix.F_SETFL: unix.O_ASYNC} {
				if _, err := unix.FcntlInt(uintptr(r), cmd, arg); err != nil {
					t.Fatal(err)
				}
			}
			return []int{r, w}
		},
		func(t *testing.T, fds []int) {
			owner, err := sigio.Read(fds[0])
			if want := (sigio.Owner{Type: sigio.Process, Owner: os.Getpid(), Signal: int(unix.SIGURG)}); err != nil || owner != want {
				t.Errorf("owner %+v, %v, want %+v", owner, err, want)
			}
			if status(t, fds[0]) != unix.O_RDONLY|unix.O_ASYNC {
				t.Errorf("flags %#o", status(t, fds[0]))
			}
		})
}

func TestAsyncOutside(t *testing.T) {
	r, w := openPipe(t, 0)
	if _, err := unix.FcntlInt(uintptr(r), unix.F_SETOWN, os.Getppid()); err != nil {
		t.Fatal(err)
	}
	files := plugintest.OpenFiles(t, r, w)
	requireReason(t, refused(t, plugintest.NewHost(t), files...), files[0],
		fmt.Sprintf("its signals go to pid %d of the host, which is no process of the computation", os.Getppid()))
}

// An error of a later claim must not leave anything behind.
func TestResumeClosesHeld(t *testing.T) {
	r, w := openPipe(t, 0)
	p := newTestPlugin(t, plugintest.NewHost(t))
	for range 3 {
		handle(t, p, plugin.PreCheckpoint)
		claim(t, p, plugintest.OpenFiles(t, r, w)...)
		if len(p.saving.held) != 2 {
			t.Fatalf("%d duplicates are held, want 2", len(p.saving.held))
		}
		handle(t, p, plugin.Resume)
		if len(p.saving.held) != 0 {
			t.Errorf("%d duplicates are held after Resume", len(p.saving.held))
		}
	}
}

func TestIsPressure(t *testing.T) {
	for _, c := range []struct {
		link  string
		magic int64
		want  bool
	}{
		{"/proc/pressure/cpu", unix.PROC_SUPER_MAGIC, true},
		{"/proc/self/pressure", unix.PROC_SUPER_MAGIC, false},
		{"/sys/fs/cgroup/a/io.pressure", unix.CGROUP2_SUPER_MAGIC, true},
		{"/sys/fs/cgroup/a/io.pressure (deleted)", unix.CGROUP2_SUPER_MAGIC, true},
		{"/sys/fs/cgroup/a/cgroup.pressure", unix.CGROUP2_SUPER_MAGIC, false},
		{"/tmp/pressure/io.pressure", unix.TMPFS_MAGIC, false},
	} {
		if got := isPressure(c.link, c.magic); got != c.want {
			t.Errorf("%s: %v, want %v", c.link, got, c.want)
		}
	}
}

func TestNotificationPipe(t *testing.T) {
	r, w := openPipe(t, 0)
	for _, fd := range []int{r, w} {
		if isNotificationPipe(fd) {
			t.Error("a plain pipe counts as one for notifications")
		}
	}
	const notification = unix.O_EXCL // O_NOTIFICATION_PIPE
	var ends [2]int
	if err := unix.Pipe2(ends[:], notification|unix.O_CLOEXEC); err != nil {
		t.Skipf("pipe2 O_NOTIFICATION_PIPE: %v", err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	const setSize = 0x5760 // IOC_WATCH_QUEUE_SET_SIZE
	for _, size := range []int{0, 8} {
		if err := unix.IoctlSetInt(ends[0], setSize, size); size > 0 && err != nil {
			t.Fatal(err)
		}
		for _, fd := range ends {
			if !isNotificationPipe(fd) {
				t.Errorf("a notification pipe, set to %d notes, counts as a plain one", size)
			}
		}
	}
}
