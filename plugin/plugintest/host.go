package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
)

// Host is a fake [plugin.Host] of a computation with one agent. Its zero
// configuration is empty, its root is the host's own, it has no terminal, and
// its standard descriptors are those of the test process. It may be used by
// several goroutines.
type Host struct {
	log zerolog.Logger

	mu        sync.Mutex
	logged    bytes.Buffer
	config    string
	decoded   bool // Config was called
	root      string
	terminal  int // -1 for none
	stdio     [3]int
	barriers  []string
	pending   map[string][]byte // published since the last barrier
	published map[string][]byte // seen by Lookup
	absent    chan struct{}     // not nil: the other agents never come to a barrier
}

// NewHost returns a fake host. What the plugin logged is shown when the test
// fails.
func NewHost(t testing.TB) *Host {
	h := &Host{
		terminal:  -1,
		stdio:     [3]int{0, 1, 2},
		pending:   map[string][]byte{},
		published: map[string][]byte{},
	}
	h.log = zerolog.New(lockedWriter{h}).Level(zerolog.TraceLevel)
	t.Cleanup(func() {
		if logged := h.Logged(); t.Failed() && logged != "" {
			t.Logf("the plugin logged:\n%s", logged)
		}
	})
	return h
}

// SetConfig sets the plugin's configuration, a JSON object.
func (h *Host) SetConfig(object string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config = object
}

// SetRoot sets what Root returns.
func (h *Host) SetRoot(root string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.root = root
}

// SetTerminal gives the host a terminal; -1 takes it away.
func (h *Host) SetTerminal(fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.terminal = fd
}

// SetStdio sets what Stdio(n) returns.
func (h *Host) SetStdio(n, fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stdio[n] = fd
}

// Logged returns what the plugin has logged so far, one JSON object a line.
func (h *Host) Logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logged.String()
}

// Barriers returns the names of the barriers that the plugin came to, in
// order.
func (h *Host) Barriers() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.barriers)
}

// Log returns the captured logger, at trace level.
func (h *Host) Log() *zerolog.Logger { return &h.log }

// Config decodes what SetConfig has set; an unknown key is an error.
func (h *Host) Config(dst any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decoded = true
	if h.config == "" {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(h.config))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// Root returns what SetRoot has set, "" at first.
func (h *Host) Root() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.root
}

// MapPath returns path.
func (h *Host) MapPath(path string) string { return path }

// Terminal returns what SetTerminal has set, none at first.
func (h *Host) Terminal() (fd int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.terminal, h.terminal >= 0
}

// Stdio returns what SetStdio has set, n itself at first.
func (h *Host) Stdio(n int) (fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stdio[n]
}

// Ended starts a shell, a child of the test process, and has it end.
func (h *Host) Ended(ctx context.Context, status int, use func(hostPID int) error) error {
	script := fmt.Sprintf("read line; exit %d", status>>8)
	if sig := status & 0x7f; sig != 0 {
		script = fmt.Sprintf("read line; kill -%d $$", sig)
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	used := use(cmd.Process.Pid)
	in.Close()
	var end *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &end) {
		return errors.Join(used, err)
	}
	return errors.Join(used, ctx.Err())
}

// Barrier records name and makes what was published known to Lookup. It
// returns at once, the host being the only one.
func (h *Host) Barrier(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("barrier %s: %w", name, err)
	}
	h.mu.Lock()
	h.barriers = append(h.barriers, name)
	absent := h.absent
	if absent == nil {
		maps.Copy(h.published, h.pending)
		clear(h.pending)
	}
	h.mu.Unlock()
	if absent == nil {
		return nil
	}
	select {
	case absent <- struct{}{}:
		<-ctx.Done()
	case <-ctx.Done():
	}
	return fmt.Errorf("barrier %s: %w", name, ctx.Err())
}

// Publish keeps a copy of val, which Lookup shows after the next Barrier.
func (h *Host) Publish(ctx context.Context, key string, val []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish %s: %w", key, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending[key] = bytes.Clone(val)
	return nil
}

// Lookup returns what was published before the last Barrier, or an error.
func (h *Host) Lookup(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lookup %s: %w", key, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	val, ok := h.published[key]
	if !ok {
		return nil, fmt.Errorf("lookup %s: %w", key, errUnpublished)
	}
	return bytes.Clone(val), nil
}

var errUnpublished = errors.New("nothing was published before the last barrier")

// hold makes every further Barrier wait for the end of its context, as if
// another agent had died, and send on the channel that hold returns when it
// has begun to wait.
func (h *Host) hold() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.absent = make(chan struct{})
	return h.absent
}

// usesConfig says whether Config was called.
func (h *Host) usesConfig() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.decoded
}

// lockedWriter is where the captured logger writes.
type lockedWriter struct{ h *Host }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	return w.h.logged.Write(p)
}

var (
	_ plugin.Host = (*Host)(nil)
	_ io.Writer   = lockedWriter{}
)
