package file

import (
	"bytes"
	"context"
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

func TestContract(t *testing.T) {
	plugintest.Run(t, Definition(), plugintest.Suite{
		Config: `{"deleted_max": 4096}`,
		Fill: func(t *testing.T, p plugin.Plugin, h *plugintest.Host) {
			r, w := openPipe(t, 0)
			write(t, w, "content")
			fds := []int{open(t, tempFile(t, "hello"), unix.O_RDWR), openDeleted(t, "gone"), r, w, open(t, "/dev/null", unix.O_RDWR)}
			claim(t, p, plugintest.OpenFiles(t, fds...)...)
			saveProcess(t, p)
		},
		Invalid: map[string]string{
			"null file":           `{"files":{"1":null}}`,
			"unknown kind":        `{"files":{"1":{"kind":"soul","path":"/x","flags":0,"was":` + was + `}}}`,
			"relative path":       `{"files":{"1":{"kind":"regular","path":"x","flags":0,"was":` + was + `}}}`,
			"zero in a path":      `{"files":{"1":{"kind":"regular","path":"/x\u0000","flags":0,"was":` + was + `}}}`,
			"O_TRUNC":             `{"files":{"1":{"kind":"regular","path":"/x","flags":512,"was":` + was + `}}}`,
			"negative offset":     `{"files":{"1":{"kind":"regular","path":"/x","flags":0,"pos":-1,"was":` + was + `}}}`,
			"no such pipe":        `{"files":{"1":{"kind":"pipe","path":"","flags":0,"index":0,"was":` + was + `}}}`,
			"stdio 3":             `{"files":{"1":{"kind":"stdio","path":"","flags":0,"stdio":3,"was":` + was + `}}}`,
			"mandatory lock":      `{"files":{"1":{"kind":"regular","path":"/x","flags":0,"locks":[{"kind":"MAND","start":0,"end":-1}],"was":` + was + `}}}`,
			"lock backwards":      `{"locks":[{"pid":1,"fd":3,"kind":"POSIX","start":5,"end":4}]}`,
			"owner":               `{"files":{"1":{"kind":"regular","path":"/x","flags":0,"async":{"type":9,"owner":1,"signal":0},"was":` + was + `}}}`,
			"no such inode":       `{"files":{"1":{"kind":"deleted","path":"/x","flags":0,"index":0,"was":` + was + `}}}`,
			"unknown origin":      `{"inodes":[{"origin":"soul",` + inodeRest + `}]}`,
			"negative size":       `{"inodes":[{"origin":"deleted","path":"/x","size":-1,"mode":0,"uid":0,"gid":0,"dev":"0","ino":"0","atime":"0","mtime":"0"}]}`,
			"sealed file":         `{"inodes":[{"origin":"deleted","seals":1,` + inodeRest + `}]}`,
			"mapped deleted":      `{"inodes":[{"origin":"deleted","mapped":true,` + inodeRest + `}]}`,
			"memory without name": `{"inodes":[{"origin":"tmpfile","memory":true,` + inodeRest + `}]}`,
			"memfd elsewhere":     `{"inodes":[{"origin":"memfd",` + inodeRest + `}]}`,
			"relative inode":      `{"inodes":[{"origin":"named","path":"x","size":0,"mode":0,"uid":0,"gid":0,"dev":"0","ino":"0","atime":"0","mtime":"0"}]}`,
			"pipe of no size":     `{"pipes":[{"mode":0,"capacity":0}]}`,
			"overfull pipe":       `{"pipes":[{"mode":0,"capacity":1,"chunks":["AAAA"]}]}`,
			"stream in pieces":    `{"pipes":[{"mode":0,"capacity":4096,"chunks":["AAAA","AAAA"]}]}`,
			"fresh pipe":          `{"pipes":[{"mode":0,"capacity":4096,"fresh":true}]}`,
			"hung up with index":  `{"files":{"1":{"kind":"hungup","path":"","flags":0,"index":1,"was":` + was + `}}}`,
			"pty beyond the end":  `{"ptys":[{"number":1048576,"opened":true,"termios":` + noTermios + `,"rows":1,"cols":1,"input":{}}]}`,
		},
	})
}

const (
	was       = `{"dev":"0","ino":"0","rdev":"0","mode":0,"size":0,"mtime":"0"}`
	inodeRest = `"path":"/x","size":0,"mode":0,"uid":0,"gid":0,"dev":"0","ino":"0","atime":"0","mtime":"0"`
	noTermios = `{"iflag":0,"oflag":0,"cflag":0,"lflag":0,"line":0,"cc":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"ispeed":0,"ospeed":0}`
)

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"files":{"1":{"kind":"regular","path":{"base64":"L/8="},"flags":0,"was":` + was + `}}}`))
	f.Add([]byte(`{"pipes":[{"mode":0,"capacity":4096,"chunks":["AAAA"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newTestPlugin(t, plugintest.NewHost(t))
		if err := p.Load(t.Context(), stateFormat, bytes.NewReader(data)); err != nil {
			return
		}
		var out bytes.Buffer
		if err := p.Save(t.Context(), &out); err != nil {
			t.Fatalf("Save of what Load accepted: %v", err)
		}
		if err := p.Load(t.Context(), stateFormat, &out); err != nil {
			t.Fatalf("Load of what Save wrote: %v", err)
		}
	})
}

func TestPathnameKeepsBytes(t *testing.T) {
	for _, name := range []pathname{"/plain", "/ünï", "/\xff\xfe", `/"quoted"`, ""} {
		b, err := name.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got pathname
		if err := got.UnmarshalJSON(b); err != nil || got != name {
			t.Errorf("%q became %s and %q (%v)", name, b, got, err)
		}
	}
}

// Helpers of all tests.

func newTestPlugin(t testing.TB, h *plugintest.Host) *Plugin {
	t.Helper()
	p, err := Definition().New(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Handle(context.Background(), plugin.Event{Kind: plugin.Exit}) })
	return p.(*Plugin)
}

func handle(t testing.TB, p plugin.Plugin, k plugin.Kind) {
	t.Helper()
	if err := p.Handle(t.Context(), plugin.Event{Kind: k, Generation: 1}); err != nil {
		t.Fatalf("Handle of %s: %v", k, err)
	}
}

func claim(t testing.TB, p plugin.Plugin, files ...plugin.OpenFile) {
	t.Helper()
	for _, f := range files {
		if err := p.(plugin.FileClaimer).ClaimFile(t.Context(), f); err != nil {
			t.Fatalf("ClaimFile of fd %d (%s): %v", f.Refs[0].FD, f.Link, err)
		}
	}
}

func saveProcess(t testing.TB, p plugin.Plugin) {
	t.Helper()
	if err := p.(plugin.ProcessSaver).SaveProcess(t.Context(), plugintest.Self(t)); err != nil {
		t.Fatalf("SaveProcess: %v", err)
	}
}

// checkpoint takes files through a checkpoint and returns the state.
func checkpoint(t testing.TB, h *plugintest.Host, files ...plugin.OpenFile) []byte {
	t.Helper()
	return checkpointWith(t, h, plugin.Request{}, files...)
}

func checkpointWith(t testing.TB, h *plugintest.Host, r plugin.Request, files ...plugin.OpenFile) []byte {
	t.Helper()
	p := newTestPlugin(t, h)
	if err := p.Handle(t.Context(), plugin.Event{Kind: plugin.PreCheckpoint, Generation: 1, Request: r}); err != nil {
		t.Fatal(err)
	}
	claim(t, p, files...)
	saveProcess(t, p)
	var state bytes.Buffer
	if err := p.Save(t.Context(), &state); err != nil {
		t.Fatalf("Save: %v", err)
	}
	handle(t, p, plugin.Resume)
	return state.Bytes()
}

// restart makes files again, and returns a descriptor of each. running, where
// it is not nil, is called before Running.
func restart(t testing.TB, h *plugintest.Host, state []byte, running func(*Plugin), files ...plugin.OpenFile) []int {
	t.Helper()
	p := newTestPlugin(t, h)
	if err := p.Load(t.Context(), stateFormat, bytes.NewReader(state)); err != nil {
		t.Fatalf("Load of %s: %v", state, err)
	}
	handle(t, p, plugin.Restart)
	var fds []int
	for _, f := range files {
		fd, err := p.ReopenFile(t.Context(), plugintest.Reopened(f))
		if err != nil {
			t.Fatalf("ReopenFile of %s: %v", f.Link, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	if running != nil {
		running(p)
	}
	handle(t, p, plugin.Running)
	if err := p.Publish(t.Context()); err != nil {
		t.Fatalf("Publish: %v", err)
	}
	p.Published()
	return fds
}

// refused returns why a checkpoint of files is refused.
func refused(t testing.TB, h *plugintest.Host, files ...plugin.OpenFile) *plugin.RefusalError {
	t.Helper()
	p := newTestPlugin(t, h)
	handle(t, p, plugin.PreCheckpoint)
	defer handle(t, p, plugin.Resume)
	err := claimAll(t, p, files)
	if err == nil {
		err = p.SaveProcess(t.Context(), plugintest.Self(t))
	}
	if err == nil {
		err = p.Save(t.Context(), &bytes.Buffer{})
	}
	var refusal *plugin.RefusalError
	if !errors.As(err, &refusal) {
		t.Fatalf("want a refusal, got %v", err)
	}
	return refusal
}

func claimAll(t testing.TB, p *Plugin, files []plugin.OpenFile) error {
	for _, f := range files {
		if err := p.ClaimFile(t.Context(), f); err != nil {
			return err
		}
	}
	return nil
}

func requireReason(t testing.TB, got *plugin.RefusalError, f plugin.OpenFile, reason string) {
	t.Helper()
	want := plugin.RefusalError{PID: os.Getpid(), FD: f.Refs[0].FD, Object: f.Link, Reason: reason}
	if *got != want {
		t.Errorf("refused with\n%v, want\n%v", got, &want)
	}
}

func tempFile(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t testing.TB, name string, flags int) int {
	t.Helper()
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatalf("open of %s: %v", name, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func openDeleted(t testing.TB, content string) int {
	t.Helper()
	name := tempFile(t, content)
	fd := open(t, name, unix.O_RDWR)
	if err := unix.Unlink(name); err != nil {
		t.Fatal(err)
	}
	return fd
}

func openPipe(t testing.TB, flags int) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], flags|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func write(t testing.TB, fd int, s string) {
	t.Helper()
	if n, err := unix.Write(fd, []byte(s)); n != len(s) || err != nil {
		t.Fatalf("write: %d bytes of %d, %v", n, len(s), err)
	}
}

func read(t testing.TB, fd, size int) string {
	t.Helper()
	b := make([]byte, size)
	n, err := unix.Read(fd, b)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return string(b[:n])
}

func offset(t testing.TB, fd int) int64 {
	t.Helper()
	n, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func status(t testing.TB, fd int) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags & keptFlags
}

func stat(t testing.TB, fd int) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func requireLogged(t testing.TB, h *plugintest.Host, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(h.Logged(), w) {
			t.Errorf("%q was not logged:\n%s", w, h.Logged())
		}
	}
}
