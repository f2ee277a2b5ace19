package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// held returns the locks that fdinfo shows.
func held(t *testing.T, fd int) (locks []lock) {
	t.Helper()
	info, err := procparse.ParseFDInfo(plugintest.OpenFile(t, 1, fd).FDInfo)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range info.Locks {
		locks = append(locks, newLock(l))
	}
	return locks
}

func TestLocks(t *testing.T) {
	setlk := func(cmd int, locks ...unix.Flock_t) func(*testing.T, int) {
		return func(t *testing.T, fd int) {
			for _, l := range locks {
				if err := unix.FcntlFlock(uintptr(fd), cmd, &l); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		take func(*testing.T, int)
		want []lock
	}{
		"flock": {
			func(t *testing.T, fd int) {
				if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
			},
			[]lock{{lockFLOCK, true, 0, -1}},
		},
		"OFD": {
			setlk(unix.F_OFD_SETLK, unix.Flock_t{Type: unix.F_RDLCK, Start: 3, Len: 4}, unix.Flock_t{Type: unix.F_WRLCK, Start: 100}),
			[]lock{{lockOFD, false, 3, 6}, {lockOFD, true, 100, -1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := tempFile(t, "0123456789")
			fd := open(t, file, unix.O_RDWR)
			c.take(t, fd)
			h := plugintest.NewHost(t)
			f := plugintest.OpenFile(t, 1, fd)
			state := checkpoint(t, h, f)
			if got := held(t, fd); !reflect.DeepEqual(got, c.want) {
				t.Errorf("the checkpoint left %+v, want %+v", got, c.want)
			}
			unix.Close(fd)
			again := restart(t, h, state, nil, f)
			if got := held(t, again[0]); !reflect.DeepEqual(got, c.want) {
				t.Errorf("locks %+v, want %+v", got, c.want)
			}
		})
	}
}

// POSIX locks are of the process: they are saved and taken with it. They are
// taken here behind ClaimFile, for to close its duplicate drops them when the
// supervisor is the program.
func TestPOSIXLocks(t *testing.T) {
	fd := open(t, tempFile(t, "0123456789"), unix.O_RDWR)
	f := plugintest.OpenFile(t, 1, fd)
	p := newTestPlugin(t, plugintest.NewHost(t))
	handle(t, p, plugin.PreCheckpoint)
	f.Refs[0].Locked = true
	claim(t, p, f)
	for _, l := range []unix.Flock_t{{Type: unix.F_RDLCK, Start: 3, Len: 4}, {Type: unix.F_WRLCK, Start: 100}} {
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l); err != nil {
			t.Fatal(err)
		}
	}
	saveProcess(t, p)
	pid := os.Getpid()
	want := []processLock{{pid, fd, lock{lockPOSIX, false, 3, 6}}, {pid, fd, lock{lockPOSIX, true, 100, -1}}}
	if !reflect.DeepEqual(p.state.Locks, want) {
		t.Errorf("saved %+v, want %+v", p.state.Locks, want)
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		t.Fatal(err)
	}
	if err := p.RestoreProcess(t.Context(), plugintest.Self(t)); err != nil {
		t.Fatal(err)
	}
	if got := held(t, fd); !reflect.DeepEqual(got, []lock{want[0].lock, want[1].lock}) {
		t.Errorf("locks %+v", got)
	}
}

// A lock that somebody else holds by now is an error that names the file.
func TestLockTaken(t *testing.T) {
	name := tempFile(t, "x")
	fd := open(t, name, unix.O_RDWR)
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h := plugintest.NewHost(t)
	f := plugintest.OpenFile(t, 1, fd)
	state := checkpoint(t, h, f)
	p := newTestPlugin(t, h)
	if err := p.Load(t.Context(), stateFormat, bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	_, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
	if want := name + ": FLOCK lock: another process holds it: resource temporarily unavailable"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestLockInherited restarts below who holds the lock, as the launching command was: flock(1).
func TestLockInherited(t *testing.T) {
	name := tempFile(t, "x")
	below := func() int {
		fd := open(t, name, unix.O_RDWR)
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	h := plugintest.NewHost(t)
	first := below()
	f := plugintest.OpenFile(t, 1, first)
	state := checkpoint(t, h, f)
	if err := unix.Flock(first, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	second := below()
	p := newTestPlugin(t, h)
	if err := p.Load(t.Context(), stateFormat, bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	fd, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(first, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the program does not share the lock of fd %d: %v", second, err)
	}
}

// A POSIX lock on what another plugin saves.
func TestLockOfForeignFile(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	p := newTestPlugin(t, plugintest.NewHost(t))
	handle(t, p, plugin.PreCheckpoint)
	defer handle(t, p, plugin.Resume)
	if err := p.ClaimFile(t.Context(), plugintest.OpenFile(t, 1, fd)); !errors.Is(err, plugin.ErrNotMine) {
		t.Fatalf("claim: %v", err)
	}
	got := p.SaveProcess(t.Context(), plugintest.Self(t))
	want := plugin.RefusalError{PID: os.Getpid(), FD: -1, Object: fmt.Sprintf("POSIX lock on fd %d: anon_inode:[eventfd]", fd), Reason: "locks are kept of files only"}
	if refusal, ok := errors.AsType[*plugin.RefusalError](got); !ok || *refusal != want {
		t.Errorf("refused with %v, want %v", got, &want)
	}
}

// runAlone runs one test again in a process of its own, as the leader of a
// session without terminal.
func runAlone(t *testing.T, marker string) (alone bool) {
	t.Helper()
	if os.Getenv(marker) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}
