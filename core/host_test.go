package core

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
)

// meeting records the names that come to the coordinator.
type meeting struct{ names []string }

func (m *meeting) Barrier(_ context.Context, name string) error {
	m.names = append(m.names, "barrier "+name)
	return nil
}

func (m *meeting) Publish(_ context.Context, key string, val []byte) error {
	m.names = append(m.names, "publish "+key+" "+string(val))
	return nil
}

func (m *meeting) Lookup(_ context.Context, key string) ([]byte, error) {
	m.names = append(m.names, "lookup "+key)
	return []byte("found"), nil
}

func TestHostRendezvous(t *testing.T) {
	meet := &meeting{}
	def := plugin.Definition{Name: "socket", Barriers: []string{"drained"}}
	h := newPluginHost(def, zerolog.Nop(), nil, newSurroundings(), meet)
	ctx := t.Context()
	if err := h.Barrier(ctx, "drained"); err != nil {
		t.Error(err)
	}
	wantError(t, h.Barrier(ctx, "refilled"), `barrier "refilled"`, "plugin socket", "drained")
	if err := h.Publish(ctx, "listen", []byte("1.2.3.4")); err != nil {
		t.Error(err)
	}
	if val, err := h.Lookup(ctx, "listen"); err != nil || string(val) != "found" {
		t.Errorf("lookup %q, %v", val, err)
	}
	want := []string{"barrier plugin/socket/drained", "publish plugin/socket/listen 1.2.3.4", "lookup plugin/socket/listen"}
	if !slices.Equal(meet.names, want) {
		t.Errorf("the coordinator saw %q, want %q", meet.names, want)
	}
}

func TestHostAlone(t *testing.T) {
	h := newPluginHost(plugin.Definition{Name: "socket", Barriers: []string{"drained"}}, zerolog.Nop(), nil, newSurroundings(), nil)
	ctx := t.Context()
	_, lookup := h.Lookup(ctx, "k")
	if err := h.Ended(ctx, 0, func(int) error { return nil }); !errors.Is(err, errNoRestart) {
		t.Errorf("a process that has ended: error %v", err)
	}
	for _, err := range []error{h.Barrier(ctx, "drained"), h.Publish(ctx, "k", nil), lookup} {
		if !errors.Is(err, errNoCoordinator) {
			t.Errorf("error %v", err)
		}
	}
	if err := h.Config(&struct{}{}); err != nil {
		t.Error(err)
	}
}

func TestHostConfig(t *testing.T) {
	unknown := errors.New("unknown key retires")
	h := newPluginHost(plugin.Definition{Name: "socket"}, zerolog.Nop(), func(name string, dst any) error {
		if name != "socket" {
			t.Errorf("asked for the configuration of %s", name)
		}
		*dst.(*int) = 42
		return unknown
	}, newSurroundings(), nil)
	var got int
	err := h.Config(&got)
	if got != 42 || !errors.Is(err, unknown) {
		t.Errorf("%d, %v", got, err)
	}
	wantError(t, err, "configuration of plugin socket")
}

// TestHostSurroundings: hosts that exist see what the core sets later.
func TestHostSurroundings(t *testing.T) {
	where := newSurroundings()
	h := newPluginHost(plugin.Definition{Name: "file"}, zerolog.Nop(), nil, where, nil)
	if _, ok := h.Terminal(); ok || h.Root() != "" || h.Stdio(2) != 2 {
		t.Error("the surroundings at first are not the agent's own")
	}
	where.setRoot("/proc/7/root")
	where.setTerminal(4)
	where.setStdio([3]int{10, 11, 12})
	fd, ok := h.Terminal()
	if fd != 4 || !ok || h.Root() != "/proc/7/root" || h.Stdio(0) != 10 || h.Stdio(2) != 12 {
		t.Errorf("terminal %d %t, root %q, stdio %d %d", fd, ok, h.Root(), h.Stdio(0), h.Stdio(2))
	}
	if h.Stdio(3) != -1 || h.Stdio(-1) != -1 {
		t.Error("a descriptor that is no standard one has a number")
	}
}
