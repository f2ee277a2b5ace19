package event

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Run(t, Definition(), plugintest.Suite{
		Fill: func(t *testing.T, p plugin.Plugin, _ *plugintest.Host) {
			begin(t, p)
			fds := []int{newEventFD(t, 7, unix.EFD_SEMAPHORE), newSignalFD(t, 1<<9), newEpoll(t), newPIDFD(t, os.Getpid())}
			register(t, fds[2], fds[0], unix.EPOLLIN, 1<<63)
			for _, f := range plugintest.OpenFiles(t, fds...) {
				if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
		},
		Invalid: map[string]string{
			"no kind of file":   `{"files":{"1":{}}}`,
			"two kinds of file": `{"files":{"1":{"eventfd":{"count":"1","semaphore":false},"signalfd":{"mask":"1"}}}}`,
			"aio pid":           `{"aio":[{"pid":0,"start":"4096","size":4096,"head":0,"tail":0}]}`,
			"aio place":         `{"aio":[{"pid":1,"start":"4097","size":4096,"head":0,"tail":0}]}`,
			"aio wraps":         `{"aio":[{"pid":1,"start":"18446744073709547520","size":8192,"head":0,"tail":0}]}`,
			"aio empty":         `{"aio":[{"pid":1,"start":"4096","size":0,"head":0,"tail":0}]}`,
			"aio size":          `{"aio":[{"pid":1,"start":"4096","size":1099511627776,"head":0,"tail":0}]}`,
			"aio tail":          `{"aio":[{"pid":1,"start":"4096","size":4096,"head":0,"tail":127}]}`,
			"eventfd overflow":  `{"files":{"1":{"eventfd":{"count":"18446744073709551615","semaphore":false}}}}`,
			"eventfd negative":  `{"files":{"1":{"eventfd":{"count":"-1","semaphore":false}}}}`,
			"epoll pid":         `{"files":{"1":{"epoll":{"targets":[{"pid":0,"epoll_fd":3,"fd":4,"events":1,"data":"0"}]}}}}`,
			"epoll fd":          `{"files":{"1":{"epoll":{"targets":[{"pid":1,"epoll_fd":3,"fd":-4,"events":1,"data":"0"}]}}}}`,
			"epoll events":      `{"files":{"1":{"epoll":{"targets":[{"pid":1,"epoll_fd":3,"fd":4,"events":4294967296,"data":"0"}]}}}}`,
			"epoll source":      `{"files":{"1":{"epoll":{"targets":[{"pid":1,"epoll_fd":3,"fd":4,"events":1,"data":"0","from":{"pid":0,"fd":1}}]}}}}`,
			"inotify watch":     `{"files":{"1":{"inotify":{"watches":[{"wd":0,"mask":2,"path":"/tmp"}],"queued":false}}}}`,
			"inotify path":      `{"files":{"1":{"inotify":{"watches":[{"wd":1,"mask":2,"path":"tmp"}],"queued":false}}}}`,
			"inotify two files": `{"files":{"1":{"inotify":{"watches":[{"wd":1,"mask":2,"path":"/tmp","from":{"pid":1,"fd":2}}],"queued":false}}}}`,
			"inotify no file":   `{"files":{"1":{"inotify":{"watches":[{"wd":1,"mask":2}],"queued":false}}}}`,
			"pidfd thread":      `{"files":{"1":{"pidfd":{"pid":1,"tid":-2}}}}`,
			"pidfd status":      `{"files":{"1":{"pidfd":{"ended":{"process":"1","status":127,"thread":false}}}}}`,
			"pidfd half ended":  `{"files":{"1":{"pidfd":{"pid":3,"ended":{"process":"1","status":0,"thread":false}}}}}`,
			"pidfd pid":         `{"files":{"1":{"pidfd":{"pid":-1}}}}`,
			"id":                `{"files":{"x":{"pidfd":{"pid":1}}}}`,
		},
	})
}

func TestEventFD(t *testing.T) {
	const big = 1<<40 + 3
	for _, tc := range []struct {
		name  string
		count uint64
		flags int
	}{
		{"zero", 0, 0},
		{"64 bits", big, unix.EFD_NONBLOCK},
		{"greatest", 1<<64 - 2, 0},
		{"semaphore", 5, unix.EFD_SEMAPHORE | unix.EFD_NONBLOCK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before *procparse.FDInfo
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				fd := newEventFD(t, tc.count, tc.flags)
				before = fdinfo(t, fd)
				return []int{fd, dup(t, fd)}
			}, func(t *testing.T, fds []int) {
				after := fdinfo(t, fds[0])
				for _, key := range []string{"eventfd-count", "eventfd-semaphore"} {
					if before.Field(key) != after.Field(key) {
						t.Errorf("%s is %s, was %s", key, after.Field(key), before.Field(key))
					}
				}
				if before.Flags&unix.O_NONBLOCK != after.Flags&unix.O_NONBLOCK {
					t.Errorf("flags are %#o, were %#o", after.Flags, before.Flags)
				}
			})
		})
	}
}

func TestProbeSemaphore(t *testing.T) {
	for _, flags := range []int{0, unix.EFD_SEMAPHORE} {
		for _, count := range []uint64{0, 1, 2, 3, 1 << 33, 1<<64 - 2} {
			fd := newEventFD(t, count, flags)
			before := fdinfo(t, fd).Field("eventfd-count")
			semaphore, err := probeSemaphore(fd, count)
			if err != nil || semaphore != (flags != 0) {
				t.Errorf("flags %d, count %d: semaphore %t, %v", flags, count, semaphore, err)
			}
			if after := fdinfo(t, fd).Field("eventfd-count"); after != before {
				t.Errorf("flags %d: count %s became %s", flags, before, after)
			}
		}
	}
}

func TestSignalFD(t *testing.T) {
	var before *procparse.FDInfo
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		fd := newSignalFD(t, 1<<63|1<<(unix.SIGUSR1-1))
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		before = fdinfo(t, fd)
		return []int{fd}
	}, func(t *testing.T, fds []int) {
		after := fdinfo(t, fds[0])
		if after.Field("sigmask") != before.Field("sigmask") || after.Flags != before.Flags {
			t.Errorf("fdinfo %+v, was %+v", after, before)
		}
	})
}

func TestEpoll(t *testing.T) {
	var before []string
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		ep, inner := newEpoll(t), newEpoll(t)
		ready, spare := newEventFD(t, 1, 0), newEventFD(t, 0, 0)
		register(t, inner, ready, unix.EPOLLIN, 1)
		register(t, ep, inner, unix.EPOLLIN|unix.EPOLLET, 2)
		register(t, ep, ready, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 1<<63|3)
		register(t, ep, spare, unix.EPOLLOUT|unix.EPOLLONESHOT, 4)
		before = append(targets(t, ep), targets(t, inner)...)
		return []int{ep, inner, ready, spare}
	}, func(t *testing.T, fds []int) {
		if after := append(targets(t, fds[0]), targets(t, fds[1])...); !slices.Equal(after, before) {
			t.Errorf("registrations %q, were %q", after, before)
		}
	})
}

// TestEpollSpent checks that a registration whose EPOLLONESHOT has fired does
// not fire again, and keeps its data.
func TestEpollSpent(t *testing.T) {
	var before []string
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		ep, fd, other := newEpoll(t), newEventFD(t, 1, 0), newEventFD(t, 1, 0)
		register(t, ep, fd, unix.EPOLLIN|unix.EPOLLONESHOT|unix.EPOLLET, 4)
		if got := wait(t, ep); got != 1 {
			t.Fatalf("%d events before, want 1", got)
		}
		register(t, ep, other, unix.EPOLLIN|unix.EPOLLONESHOT, 5)
		before = targets(t, ep)
		return []int{ep, fd, other}
	}, func(t *testing.T, fds []int) {
		if after := targets(t, fds[0]); !slices.Equal(after, before) {
			t.Errorf("registrations %q, were %q", after, before)
		}
		if got := wait(t, fds[0]); got != 1 {
			t.Errorf("%d events, want that of the other", got)
		}
	})
}

// TestEpollSpentNotReady uses files that are ready for nothing: a pipe must not
// stay armed for anything, another file for what made it fire.
func TestEpollSpentNotReady(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for _, tc := range []struct {
		fd   int
		want string
	}{
		{newSignalFD(t, 1<<63), "events: 40000018"},
		{pipe[0], "events: 40000000"},
	} {
		tr := target{PID: os.Getpid(), EpollFD: newEpoll(t), FD: tc.fd, Events: unix.EPOLLONESHOT, Data: 9}
		if !tr.spent() {
			t.Fatal("not spent")
		}
		r := newRegistrar(t, &epoll{Targets: []target{tr}})
		if err := r.addAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := targets(t, tr.EpollFD); len(got) != 1 || !strings.Contains(got[0], tc.want) {
			t.Errorf("registrations %q, want %s", got, tc.want)
		}
	}
	if n, err := unix.IoctlGetInt(pipe[0], unix.TIOCINQ); err != nil || n != 0 {
		t.Errorf("%d bytes in the pipe, %v", n, err)
	}
}

// newRegistrar is for one epoll of the test process.
func newRegistrar(t *testing.T, e *epoll) registrar {
	return registrar{procs: map[int]plugin.Process{os.Getpid(): plugintest.Self(t)}, epolls: map[int]*epoll{1: e}, done: map[int]bool{}}
}

// TestEpollEdges checks that an edge is told once, whether before or after
// the restart.
func TestEpollEdges(t *testing.T) {
	for _, tc := range []struct {
		name string
		told bool
		want int
	}{{"told", true, 0}, {"not told", false, 2}} {
		t.Run(tc.name, func(t *testing.T) {
			plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
				ep, fd, second, idle := newEpoll(t), newEventFD(t, 1, 0), newEventFD(t, 1, 0), newEventFD(t, 0, 0)
				register(t, ep, fd, unix.EPOLLIN|unix.EPOLLET, 4)
				register(t, ep, second, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET, 5)
				register(t, ep, idle, unix.EPOLLIN, 6)
				if tc.told {
					wait(t, ep)
				}
				return []int{ep, fd, second, idle}
			}, func(t *testing.T, fds []int) {
				if got := wait(t, fds[0]); got != tc.want {
					t.Errorf("%d events, want %d", got, tc.want)
				}
				if _, err := unix.Write(fds[1], binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
					t.Fatal(err)
				}
				if got := wait(t, fds[0]); got != 1 {
					t.Errorf("%d events of a new edge, want 1", got)
				}
			})
		})
	}
}

// TestEpollSurprise checks that an edge which the program was not told of is
// not taken.
func TestEpollSurprise(t *testing.T) {
	tr := target{PID: os.Getpid(), EpollFD: newEpoll(t), FD: newEventFD(t, 1, 0), Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET, Ready: unix.EPOLLOUT}
	r := newRegistrar(t, &epoll{Targets: []target{tr}, Quiet: true})
	if err := r.addAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, tr.EpollFD); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

// TestEpollClosed checks registrations whose number was closed or used again.
func TestEpollClosed(t *testing.T) {
	var before []string
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		ep, fd, other := newEpoll(t), newEventFD(t, 1, 0), newEventFD(t, 0, 0)
		gone, again := dup(t, fd), dup(t, fd)
		register(t, ep, gone, unix.EPOLLIN, 1)
		register(t, ep, again, unix.EPOLLIN, 2)
		unix.Close(gone)
		if err := unix.Dup3(other, again, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		register(t, ep, again, unix.EPOLLIN, 3)
		before = targets(t, ep)
		return []int{ep, fd, other, again}
	}, func(t *testing.T, fds []int) {
		if after := targets(t, fds[0]); !slices.Equal(after, before) {
			t.Errorf("registrations %q, were %q", after, before)
		}
		if got := wait(t, fds[0]); got != 2 {
			t.Errorf("%d events, want those of the closed ones", got)
		}
		if n, err := linux.Kcmp(os.Getpid(), os.Getpid(), linux.KCMP_FILE, uint64(fds[2]), uint64(fds[3])); n != 0 || err != nil {
			t.Errorf("the number used again has another file: %d, %v", n, err)
		}
	})
}

func TestEpollParams(t *testing.T) {
	want := epollParams{Usecs: 50, Budget: 8, Prefer: 1}
	if err := setEpollParams(newEpoll(t), want); errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		t.Skipf("%v: before Linux 6.9, or without CONFIG_NET_RX_BUSY_POLL", err)
	}
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		ep := newEpoll(t)
		if err := setEpollParams(ep, want); err != nil {
			t.Fatal(err)
		}
		return []int{ep}
	}, func(t *testing.T, fds []int) {
		if got, err := getEpollParams(fds[0]); got != want || err != nil {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	})
}

func TestPIDFD(t *testing.T) {
	for _, flags := range []int{0, unix.PIDFD_NONBLOCK} {
		plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
			fd, err := unix.PidfdOpen(os.Getpid(), flags)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return []int{fd}
		}, func(t *testing.T, fds []int) {
			info := fdinfo(t, fds[0])
			if got, want := info.Field("Pid"), fdinfo(t, newPIDFD(t, os.Getpid())).Field("Pid"); got != want {
				t.Errorf("pidfd of %s, want %s", got, want)
			}
			if info.Flags&unix.O_NONBLOCK != flags {
				t.Errorf("flags %#o", info.Flags)
			}
		})
	}
}

// TestPIDFDZombie uses a child that no event lists.
func TestPIDFDZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd := newPIDFD(t, cmd.Process.Pid)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	plugintest.RoundTrip(t, Definition(), func(*testing.T) []int { return []int{fd} }, func(t *testing.T, fds []int) {
		if got := fdinfo(t, fds[0]).Field("Pid"); got == "" || got == "-1" {
			t.Errorf("Pid: %s", got)
		}
	})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestPIDFDEnded takes pidfds of two processes that nothing is left of.
func TestPIDFDEnded(t *testing.T) {
	end := func(script string) []int {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fds := []int{newPIDFD(t, cmd.Process.Pid), newPIDFD(t, cmd.Process.Pid)}
		in.Close()
		_ = cmd.Wait()
		return fds
	}
	inode := func(fd int) uint64 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	var status []int
	plugintest.RoundTrip(t, Definition(), func(t *testing.T) []int {
		fds := append(end("read x; exit 9"), end("read x; kill -TERM $$")...)
		for _, fd := range fds {
			s, err := exitStatus(fd)
			if err != nil {
				t.Fatal(err)
			}
			status = append(status, s)
		}
		return fds
	}, func(t *testing.T, fds []int) {
		for i, fd := range fds {
			if got := fdinfo(t, fd).Field("Pid"); got != "-1" {
				t.Errorf("Pid: %s", got)
			}
			if got, err := exitStatus(fd); got != status[i] || err != nil {
				t.Errorf("status %#x, %v; want %#x", got, err, status[i])
			}
			if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != unix.ESRCH {
				t.Errorf("pidfd_send_signal: %v, want ESRCH", err)
			}
		}
		if inode(fds[0]) != inode(fds[1]) || inode(fds[2]) != inode(fds[3]) {
			t.Error("pidfds of one process are of two")
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Run("pidfd of a stranger", func(t *testing.T) {
		refused(t, newPIDFD(t, os.Getppid()), "which is not of this computation")
	})
	t.Run("epoll with a file that only the kernel holds", func(t *testing.T) {
		ep, fd := newEpoll(t), newEventFD(t, 0, 0)
		gone := dup(t, fd)
		register(t, ep, gone, unix.EPOLLIN, 0)
		pair := newSocketPair(t)
		if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(gone)
		unix.Close(fd)
		refused(t, ep, "keeps its file open")
	})
	t.Run("userfaultfd", func(t *testing.T) {
		err := new(Plugin).ClaimFile(t.Context(), plugin.OpenFile{Link: "anon_inode:[userfaultfd]", Refs: []plugin.FileRef{{PID: 1, FD: 3}}})
		if err == nil || !strings.Contains(err.Error(), "userfaultfd(2)") {
			t.Errorf("%v", err)
		}
	})
}

func TestClaimMap(t *testing.T) {
	for path, mine := range map[string]bool{"/[aio] (deleted)": true, "/[aio]": true, "/tmp/[aio]": false, "": false} {
		_, err := new(Plugin).ClaimMap(t.Context(), plugintest.Self(t), plugin.Mapping{Path: path})
		var refusal *plugin.RefusalError
		if mine && !errors.As(err, &refusal) || !mine && err != plugin.ErrNotMine {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// The memory of a ring is refused where its descriptor is closed, and once.
func TestClaimMapOfRefused(t *testing.T) {
	const ring = "anon_inode:[io_uring]"
	p, self := new(Plugin), plugintest.Self(t)
	if _, err := p.ClaimMap(t.Context(), self, plugin.Mapping{Path: ring}); err == nil || !strings.Contains(err.Error(), "io_uring(7)") {
		t.Errorf("first: %v", err)
	}
	if policy, err := p.ClaimMap(t.Context(), self, plugin.Mapping{Path: ring}); err != nil || policy != plugin.MapSkip {
		t.Errorf("second: %d, %v", policy, err)
	}
}

func TestRefusalOf(t *testing.T) {
	for link, refused := range map[string]bool{
		"anon_inode:bpf-map": true, "anon_inode:bpf_link": true, "anon_inode:[perf_event]": true, "anon_inode:[io_uring]": true,
		"anon_inode:[eventfd]": false, "/tmp/bpf": false, "anon_inode:[kvm-vm]": false,
	} {
		if got := refusalOf(link); (got != "") != refused {
			t.Errorf("%s: %q", link, got)
		}
	}
}

func TestReopenUnknown(t *testing.T) {
	f := plugin.OpenFile{ID: 3, Link: "anon_inode:[eventfd]"}
	if _, err := new(Plugin).ReopenFile(t.Context(), f); err == nil || !strings.Contains(err.Error(), "open file 3") {
		t.Errorf("%v", err)
	}
}

func TestRegistrationFails(t *testing.T) {
	r := newRegistrar(t, &epoll{Targets: []target{{PID: os.Getpid(), EpollFD: newEpoll(t), FD: 1 << 20, Events: unix.EPOLLIN}}})
	err := r.addAll(t.Context())
	if !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "registration of fd 1048576") {
		t.Errorf("%v", err)
	}
}

func TestParseTarget(t *testing.T) {
	got, ino, err := parseTarget("7 events: 40000019 data: ffffffffffffffff  pos:0 ino:4639 sdev:f")
	if want := (target{FD: 7, Events: 0x40000019, Data: 1<<64 - 1}); err != nil || got != want || ino != 0x4639 {
		t.Errorf("%+v, inode %#x, %v", got, ino, err)
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("7 events: 19 data: 4  pos:0 ino:4639 sdev:f")
	f.Add("-7 events: 1 data:")
	f.Fuzz(func(t *testing.T, line string) {
		if got, _, err := parseTarget(line); err == nil && got.FD < 0 {
			t.Errorf("%q: %+v", line, got)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("State:\tZ (zombie)\nPPid:\t1\nNSpid:\t7\t2\n")
	f.Fuzz(func(_ *testing.T, raw string) { _, _ = parseStatus(raw) })
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
func refused(t *testing.T, fd int, reason string) {
	t.Helper()
	p := &Plugin{host: plugintest.NewHost(t)}
	begin(t, p)
	err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, fd))
	var refusal *plugin.RefusalError
	if !errors.As(err, &refusal) || refusal.FD != fd || !strings.Contains(refusal.Reason, reason) {
		t.Errorf("%v, want a refusal of fd %d: %s", err, fd, reason)
	}
}

func newEventFD(t *testing.T, count uint64, flags int) int {
	t.Helper()
	fd, err := unix.Eventfd(0, flags|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if count > 0 {
		if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, count)); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func newSignalFD(t *testing.T, mask uint64) int {
	t.Helper()
	var set unix.Sigset_t
	set.Val[0] = mask
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func newEpoll(t *testing.T) int {
	t.Helper()
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func newPIDFD(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(n) })
	return n
}

func register(t *testing.T, ep, fd int, events uint32, data uint64) {
	t.Helper()
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32))}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, ep int) int {
	t.Helper()
	n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 8), 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func fdinfo(t *testing.T, fd int) *procparse.FDInfo {
	t.Helper()
	info, err := procparse.ParseFDInfo(plugintest.OpenFile(t, 1, fd).FDInfo)
	if err != nil {
		t.Fatal(err)
	}
	return &info
}

// targets returns the registrations of ep without what belongs to the files.
func targets(t *testing.T, ep int) []string {
	t.Helper()
	var all []string
	for _, line := range fdinfo(t, ep).Fields["tfd"] {
		registration, _, _ := strings.Cut(line, "pos:")
		all = append(all, strings.TrimSpace(registration))
	}
	slices.Sort(all) // the kernel orders by address
	return all
}

func newSocketPair(t *testing.T) [2]int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return pair
}
