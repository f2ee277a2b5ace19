// Package helper runs programs for an agent outside of the tree that it
// supervises.
//
// A child of the agent would be taken for a process of the tree, and its end
// be reaped by the tracer. So the agent starts a server before it becomes a
// subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): its own binary, twice, the first
// of which ends at once and leaves the second to init. The server runs one
// program at a time and ends with the agent's end of the socket.
package helper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
)

const (
	socketFD  = 3
	maxOutput = 1 << 20 // of each of stdout and stderr
)

// Command is what is run.
type Command struct {
	Args    []string      `json:"args"`
	Stdin   []byte        `json:"stdin"`
	Env     []string      `json:"env"`
	Dir     string        `json:"dir"`
	Timeout time.Duration `json:"timeout"`
}

// Result is how it ended.
type Result struct {
	Code   int    `json:"code"`
	Stdout []byte `json:"stdout"`
	Stderr []byte `json:"stderr"`
	Error  string `json:"error"`
}

// Client is the agent's side.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	enc  *json.Encoder
	dec  *json.Decoder
}

// Start starts the server: argv is this binary with what makes it call Main.
func Start(argv ...string) (*Client, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "helper"), os.NewFile(uintptr(pair[1]), "helper")
	defer ours.Close()
	defer theirs.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{os.Args[0]}, argv...)
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("start the helper: %w: %s", err, out)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, enc: json.NewEncoder(conn), dec: json.NewDecoder(conn)}, nil
}

// Run runs a program to its end, or to that of ctx, and that of what it
// started in its process group.
func (c *Client) Run(ctx context.Context, cmd Command) (Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var r Result
	var patience time.Time
	if deadline, ok := ctx.Deadline(); ok {
		cmd.Timeout = time.Until(deadline)
		patience = deadline.Add(5 * time.Second) // the server keeps the time; this is for one that is gone
	}
	if err := c.conn.SetDeadline(patience); err != nil {
		return r, err
	}
	if err := c.enc.Encode(cmd); err != nil {
		return r, fmt.Errorf("helper: %w", err)
	}
	if err := c.dec.Decode(&r); err != nil {
		return r, fmt.Errorf("helper: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Close ends the server.
func (c *Client) Close() error { return c.conn.Close() }

// Main is the server's process. The first makes the second and ends.
func Main(argv []string, second bool) error {
	if !second {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		socket := os.NewFile(socketFD, "socket")
		cmd := exec.Command(self)
		cmd.Args = append([]string{os.Args[0]}, argv...)
		cmd.ExtraFiles = []*os.File{socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	unix.CloseOnExec(socketFD)
	if err := linux.CloseOnExecFrom(socketFD + 1); err != nil {
		return err
	}
	socket := os.NewFile(socketFD, "socket")
	conn, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	socket.Close()
	return serve(conn)
}

func serve(conn net.Conn) error {
	enc, dec := json.NewEncoder(conn), json.NewDecoder(conn)
	for {
		var cmd Command
		if err := dec.Decode(&cmd); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := enc.Encode(run(cmd)); err != nil {
			return err
		}
	}
}

func run(c Command) Result {
	if len(c.Args) == 0 {
		return Result{Error: "no program"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	if c.Timeout <= 0 {
		ctx, cancel = context.WithCancel(context.Background())
	}
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	stdout, stderr := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	r := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	switch {
	case ctx.Err() != nil:
		r.Error = fmt.Sprintf("%s: not done after %v, and killed", c.Args[0], c.Timeout.Round(time.Millisecond))
	case cmd.ProcessState == nil:
		r.Error = err.Error()
	default:
		r.Code = cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Code = 128 + int(ws.Signal())
		}
	}
	return r
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:max(0, min(len(p), maxOutput-b.Len()))])
	return len(p), nil
}
