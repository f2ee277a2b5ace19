package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a new pseudo-terminal, pty(7).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// readUntil returns what comes from the terminal up to a line with want.
func readUntil(t *testing.T, master *os.File, want string) string {
	t.Helper()
	var got strings.Builder
	r := bufio.NewReader(master)
	for {
		line, err := r.ReadString('\n')
		got.WriteString(line)
		if strings.Contains(line, want) {
			return got.String()
		}
		if err != nil {
			t.Fatalf("%v before %q; got:\n%s", err, want, got.String())
		}
	}
}

// hiatusCommand is the command with the fake engine, in a fresh directory.
func hiatusCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("hiatus") // installed by testscript.Main
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Args[0] = "hiatus"
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+cmd.Dir)
	return cmd
}

func TestLogOnTerminal(t *testing.T) {
	tests := []struct {
		name, noColor string
		colour        bool
	}{{"colour", "", true}, {"NO_COLOR", "1", false}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			master, slave := openTerminal(t)
			cmd := hiatusCommand(t, "launch", "sh")
			cmd.Env = append(cmd.Env, "NO_COLOR="+tt.noColor)
			cmd.Stderr = slave
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			got := readUntil(t, master, "file")
			if strings.Contains(got, `"level"`) || !strings.Contains(got, "WRN") {
				t.Errorf("not the console form:\n%s", got)
			}
			if strings.Contains(got, "\x1b[") != tt.colour {
				t.Errorf("colour is not %v:\n%q", tt.colour, got)
			}
		})
	}
}

// A detached program has a file for the terminal, and stays away from what is
// no terminal.
func TestDetachFromTerminal(t *testing.T) {
	master, slave := openTerminal(t)
	cmd := hiatusCommand(t, "launch", "--detach", "--name", "job", "sh")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	log := filepath.Join(cmd.Dir, "job", "output.log")
	if got := readUntil(t, master, "its output goes to"); !strings.Contains(got, log) {
		t.Errorf("got %q, want %s in it", got, log)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"detached":true`)) {
		t.Errorf("%s has no output of the program:\n%s", log, data)
	}
	info, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	if !strings.Contains(stderr.String(), "a warning") {
		t.Errorf("stderr, which is no terminal, is not the program's: %q", stderr.String())
	}
}

// An interrupted --detach ends what it has started.
func TestDetachInterrupted(t *testing.T) {
	cmd := hiatusCommand(t, "launch", "--detach", "sh")
	fifo := filepath.Join(cmd.Dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "FAKE_HANG="+fifo)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(fifo); err != nil { // the background command runs
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitOwn || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("code %d, stderr %q", code, stderr.String())
	}
}

// A supervisor must not die of the end of whoever reads its log.
func TestBrokenLogPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := hiatusCommand(t, "launch", "sh")
	cmd.Env = append(cmd.Env, "FAKE_CODE=3")
	cmd.Stderr = w
	_ = cmd.Run() // the exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("%v, want exit code 3", cmd.ProcessState)
	}
}

// Short work shows no progress, nor does any elsewhere than on a terminal.
func TestProgress(t *testing.T) {
	master, slave := openTerminal(t)
	for _, tt := range []struct {
		name  string
		since time.Duration
		shown bool
	}{{"short", 0, false}, {"long", time.Minute, true}} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProgress(slave)
			p.since = time.Now().Add(-tt.since)
			p.show("writing", 1<<20, 4<<20)
			p.end()
			fmt.Fprintln(slave, "end")
			if got := readUntil(t, master, "end"); strings.Contains(got, "writing") != tt.shown {
				t.Errorf("shown is not %v: %q", tt.shown, got)
			}
		})
	}
	var buf bytes.Buffer
	p := newProgress(&buf)
	p.since = time.Now().Add(-time.Minute)
	p.show("writing", 1, 2)
	p.end()
	if buf.Len() != 0 {
		t.Errorf("progress in a buffer: %q", buf.String())
	}
}

func TestStub(t *testing.T) {
	// The name is reserved: no command may take it.
	for _, cmd := range (&app{engine: fakeEngine()}).rootCommand().Commands() {
		if cmd.Name() == stubCommand || cmd.HasAlias(stubCommand) {
			t.Errorf("a command is named %s", stubCommand)
		}
	}
}
