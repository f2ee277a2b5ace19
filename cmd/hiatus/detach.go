package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/image"
)

// readyVar names, between a command with --detach and the one that it starts
// in the background, the descriptor on which the latter says that it runs.
const readyVar = "HIATUS_READY_FD"

// readyMessage is what goes over the readiness pipe, once.
type readyMessage struct {
	Name  string `json:"name,omitempty"`  // of the computation, which runs
	Error string `json:"error,omitempty"` // why it does not
}

// readiness is the background command's end of the pipe.
type readiness struct {
	mu   sync.Mutex
	pipe *os.File // nil once a message was sent
}

// takeReadiness returns nil where nobody waits. It takes the variable out of
// the environment, and keeps the descriptor from the program.
func takeReadiness() *readiness {
	fd, err := strconv.Atoi(os.Getenv(readyVar))
	os.Unsetenv(readyVar)
	if err != nil || fd <= 2 {
		return nil
	}
	unix.CloseOnExec(fd)
	return &readiness{pipe: os.NewFile(uintptr(fd), "readiness pipe")}
}

// done tells that the computation runs under name.
func (r *readiness) done(name string) { r.send(readyMessage{Name: name}) }

// fail tells why it does not run. It returns false where done was before.
func (r *readiness) fail(err error) bool { return r.send(readyMessage{Error: err.Error()}) }

// send says whether the message went out: the first does, if somebody waits.
func (r *readiness) send(m readyMessage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe == nil {
		return false
	}
	err := json.NewEncoder(r.pipe).Encode(m)
	r.pipe.Close()
	r.pipe = nil
	return err == nil
}

// detached is what --detach prints.
type detached struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`              // of the agent
	Output string `json:"output,omitempty"` // the file that has the place of the terminal, and of stdout with --json
}

// detach runs this command line again in a session of its own, and returns
// when the computation runs.
func (a *app) detach(ctx context.Context, opts core.Options, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	output, err := a.terminalOutput(ctx, opts, asJSON)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if output != nil {
		defer output.Close()
	}
	cmd, err := a.background(output, asJSON)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	name, err := startReady(ctx, cmd)
	if err != nil {
		return err
	}
	d := detached{Name: name, PID: cmd.Process.Pid}
	if output != nil {
		d.Output = output.Name()
	}
	if asJSON {
		return a.json(d)
	}
	fmt.Fprintf(a.stdout, "%s runs in the background, pid %d\n", d.Name, d.PID)
	if d.Output != "" {
		fmt.Fprintf(a.stdout, "its output goes to %s\n", d.Output)
	}
	return nil
}

// terminalOutput opens the file that has the place of the terminal, and of a stdout
// that is the report's alone, or returns nil where there is neither. The name in its path is
// a good guess: only the core knows the final one, when the program has its
// output already.
func (a *app) terminalOutput(ctx context.Context, opts core.Options, reported bool) (*os.File, error) {
	if !reported && !isTerminal(a.stdout) && !isTerminal(a.stderr) {
		return nil, nil
	}
	name := opts.Name
	if opts.UniqueName {
		name = a.freeName(ctx, opts.Dir, name)
	}
	opts.Name = name
	if !opts.Join {
		return outputFile(opts, outputLog, 0)
	}
	for i := 2; ; i++ { // the computation's other trees have theirs
		file, err := outputFile(opts, fmt.Sprintf("output-%d.log", i), os.O_EXCL)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// outputLog is the name of the file that has the output of a detached program.
const outputLog = "output.log"

// outputFile opens a file for output beside the generations.
func outputFile(opts core.Options, name string, flags int) (*os.File, error) {
	store, err := image.OpenStore(opts.Dir, opts.Name)
	if err != nil {
		return nil, err
	}
	if err := store.Make(); err != nil {
		return nil, err
	}
	return appendTo(filepath.Join(store.Path(), name), flags|unix.O_NOFOLLOW)
}

// freeName adds the suffix that the core would add.
func (a *app) freeName(ctx context.Context, dir, name string) string {
	taken := map[string]bool{}
	for _, n := range a.runningNames(ctx) {
		taken[n] = true
	}
	free := name
	for i := 2; taken[free] || occupied(dir, free); i++ {
		free = name + "-" + strconv.Itoa(i)
	}
	return free
}

// occupied says whether something else is in the place of a name's folder.
func occupied(dir, name string) bool {
	store, err := image.OpenStore(dir, name)
	if err == nil {
		err = store.Check()
	}
	return isA[*image.FormatError](err)
}

// background prepares this command line to run in a session of its own, which
// has no terminal: output has the place of one, and of a stdout for a report, which who
// reads it waits for the end of.
func (a *app) background(output *os.File, reported bool) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{os.Args[0]}, a.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A nil Stdin is /dev/null, os/exec.
	if !isTerminal(a.stdin) {
		cmd.Stdin = a.stdin
	}
	cmd.Stdout, cmd.Stderr = a.stdout, a.stderr
	a.inPlaceOfTerminal(cmd, output)
	if reported {
		cmd.Stdout = output
		if isPipe(a.stderr) || a.oneOutput() {
			cmd.Stderr = output
		}
	}
	return cmd, nil
}

func isPipe(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}

// oneOutput says whether stdout and stderr are the same file.
func (a *app) oneOutput() bool {
	out, ok := a.stdout.(*os.File)
	errs, too := a.stderr.(*os.File)
	if !ok || !too {
		return false
	}
	o, err := out.Stat()
	e, err2 := errs.Stat()
	return err == nil && err2 == nil && os.SameFile(o, e)
}

// inPlaceOfTerminal has the output of cmd that would go to a terminal go to a file.
func (a *app) inPlaceOfTerminal(cmd *exec.Cmd, output *os.File) {
	if isTerminal(a.stdout) {
		cmd.Stdout = output
	}
	if isTerminal(a.stderr) {
		cmd.Stderr = output
	}
}

// startReady starts cmd and waits until it says that the computation runs.
// Else it returns cmd's error, when cmd has ended. Until then cmd is ended
// when ctx is done; afterwards it lives on.
func startReady(ctx context.Context, cmd *exec.Cmd) (name string, err error) {
	told, err := startTelling(cmd)
	if err != nil {
		return "", fmt.Errorf("detach: %w", err)
	}
	letLive := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	m, err := readMessage(told)
	switch {
	case !letLive():
		return "", errors.New("detach: interrupted; the computation was told to end")
	case err != nil: // the pipe was closed without a word
		return "", fmt.Errorf("the background process ended before the computation ran: %w", cmp.Or(cmd.Wait(), err))
	case m.Error != "":
		// Its exit status says no more than the message.
		_ = cmd.Wait()
		return "", errors.New(m.Error)
	}
	return m.Name, nil
}

// startTelling starts cmd, which tells on a pipe that it runs, or why it does not.
func startTelling(cmd *exec.Cmd) (told *os.File, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{write} // descriptor 3, os/exec
	cmd.Env = append(os.Environ(), readyVar+"=3")
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		return nil, err
	}
	return read, nil
}

// readMessage waits for what it tells. An error says that it ended without a
// word.
func readMessage(told *os.File) (m readyMessage, err error) {
	defer told.Close()
	err = json.NewDecoder(told).Decode(&m)
	return m, err
}

// keepSIGPIPE has a broken pipe on stdout or stderr return EPIPE: by default
// Go ends the process (os/signal), and a supervisor must outlive the reader of
// its log. Unlike an ignored signal, a caught one is reset by execve(2), so
// that the program has the default.
func keepSIGPIPE() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
