package file

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// inherited describes fd as descriptor n of the launching command.
func inherited(t *testing.T, id, n, fd int) plugin.OpenFile {
	t.Helper()
	f := plugintest.OpenFile(t, id, fd)
	f.Inherited = n + 1
	return f
}

func same(t *testing.T, a, b int) bool {
	t.Helper()
	sa, sb := stat(t, a), stat(t, b)
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// What the launching command had becomes what the restarting command has.
func TestStdio(t *testing.T) {
	oldR, oldW := openPipe(t, 0)
	devnull := open(t, "/dev/null", unix.O_RDONLY)
	again := open(t, procSelf(oldW), unix.O_WRONLY|unix.O_NONBLOCK)
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sockets[0]); unix.Close(sockets[1]) })

	launch := plugintest.NewHost(t)
	launch.SetStdio(0, devnull)
	launch.SetStdio(1, oldW)
	launch.SetStdio(2, sockets[0])
	files := []plugin.OpenFile{
		inherited(t, 1, 0, devnull),
		inherited(t, 2, 1, oldW),
		inherited(t, 3, 2, sockets[0]),
		plugintest.OpenFile(t, 4, again), // as /dev/stdout
	}
	state := checkpoint(t, launch, files...)

	_, newW := openPipe(t, 0)
	in, out := open(t, tempFile(t, "input"), unix.O_RDONLY), open(t, tempFile(t, ""), unix.O_WRONLY)
	h := plugintest.NewHost(t)
	h.SetStdio(0, in)
	h.SetStdio(1, newW)
	h.SetStdio(2, out)
	fds := restart(t, h, state, nil, files...)
	if !same(t, fds[0], in) || !same(t, fds[1], newW) || !same(t, fds[2], out) || !same(t, fds[3], newW) {
		t.Error("not the restarting command's descriptors")
	}
	read(t, fds[0], 2)
	if got := offset(t, in); got != 2 {
		t.Errorf("offset %d: not the same description", got)
	}
	if status(t, fds[3]) != unix.O_WRONLY|unix.O_NONBLOCK || status(t, newW) != unix.O_WRONLY {
		t.Errorf("flags %#o of the second description, %#o of the first", status(t, fds[3]), status(t, newW))
	}
	_ = oldR
}

// A regular file is reopened by its name, whoever opened it.
func TestStdioFile(t *testing.T) {
	out := open(t, tempFile(t, "log"), unix.O_WRONLY|unix.O_APPEND)
	h := plugintest.NewHost(t)
	h.SetStdio(1, out)
	f := inherited(t, 1, 1, out)
	state := checkpoint(t, h, f)
	h.SetStdio(1, open(t, "/dev/null", unix.O_WRONLY))
	if fds := restart(t, h, state, nil, f); !same(t, fds[0], out) {
		t.Error("not the same file")
	}
}

// A shell has its terminal as one description with the numbers 0, 1 and 2.
func TestStdioChoice(t *testing.T) {
	_, tty := newPty(t)
	f := inherited(t, 1, 0, tty)
	f.Refs = []plugin.FileRef{{PID: 1, FD: 0}, {PID: 1, FD: 1}, {PID: 1, FD: 2}}
	launch := plugintest.NewHost(t)
	launch.SetStdio(0, tty)
	state := checkpoint(t, launch, f)

	devnull, log := open(t, "/dev/null", unix.O_RDONLY), open(t, tempFile(t, ""), unix.O_WRONLY)
	_, other := newPty(t)
	for name, c := range map[string]struct {
		stdio [3]int
		want  int
	}{
		"terminal":           {[3]int{other, other, other}, other},
		"output redirected":  {[3]int{other, log, other}, other},
		"all redirected":     {[3]int{devnull, log, log}, log},
		"terminal as output": {[3]int{devnull, other, other}, other},
	} {
		t.Run(name, func(t *testing.T) {
			h := plugintest.NewHost(t)
			for n, fd := range c.stdio {
				h.SetStdio(n, fd)
			}
			if fds := restart(t, h, state, nil, f); !same(t, fds[0], c.want) {
				t.Error("not the expected descriptor")
			}
		})
	}
}

// The program opened the launching terminal by its name.
func TestTerminal(t *testing.T) {
	_, tty := newPty(t)
	opened := open(t, procSelf(tty), unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK)
	launch := plugintest.NewHost(t)
	launch.SetTerminal(tty)
	f := plugintest.OpenFile(t, 1, opened)
	state := checkpoint(t, launch, f)

	t.Run("terminal", func(t *testing.T) {
		_, other := newPty(t)
		h := plugintest.NewHost(t)
		h.SetTerminal(other)
		fds := restart(t, h, state, nil, f)
		if !same(t, fds[0], other) {
			t.Error("not the restarting command's terminal")
		}
		if status(t, fds[0]) != unix.O_RDONLY|unix.O_NONBLOCK || status(t, other) != unix.O_RDWR {
			t.Errorf("flags %#o, and %#o of the command's own", status(t, fds[0]), status(t, other))
		}
	})
	t.Run("none", func(t *testing.T) {
		devnull := open(t, "/dev/null", unix.O_RDONLY)
		h := plugintest.NewHost(t)
		h.SetStdio(0, devnull)
		if fds := restart(t, h, state, nil, f); !same(t, fds[0], devnull) {
			t.Error("not the standard input")
		}
		requireLogged(t, h, "no terminal here")
	})
}

// A terminal of the same number in another instance of devpts is not the
// launching one; see isLaunchTerminal.
func TestOtherInstance(t *testing.T) {
	_, tty := newPty(t)
	h := plugintest.NewHost(t)
	h.SetTerminal(tty)
	f := plugintest.OpenFile(t, 1, tty)
	p := newTestPlugin(t, h)
	if k, err := p.kindOf(f); k != kindTerminal || err != nil {
		t.Errorf("kind %q, %v, want terminal", k, err)
	}
	f.Stat.Dev++
	if k, err := p.kindOf(f); k != kindPts || err != nil {
		t.Errorf("kind %q, %v, want pts", k, err)
	}
}

func TestLockOnStdio(t *testing.T) {
	r, _ := openPipe(t, 0)
	if err := unix.Flock(r, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	f := inherited(t, 1, 0, r)
	requireReason(t, refused(t, plugintest.NewHost(t), f), f, "a FLOCK lock on a descriptor of the launching command is not kept")
}
