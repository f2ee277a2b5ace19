package plugintest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Suite is what the contract tests need to know about a plugin. Its zero
// value is usable.
type Suite struct {
	// Config is the configuration of every plugin that the suite makes, a
	// JSON object.
	Config string
	// Fill brings a new plugin, which has had PreCheckpoint, to a state worth
	// saving: it claims a few objects.
	Fill func(t *testing.T, p plugin.Plugin, h *Host)
	// Invalid are states in the newest format, by the name of what is wrong
	// with them, that Load must reject: well-formed JSON that no Save would
	// write, as a damaged or hostile image may hold.
	Invalid map[string]string
	// Old is a state in each older format that Load accepts. A plugin whose
	// Oldest is less than its State must give one for each.
	Old map[uint16]string
}

// Run runs the contract tests on the plugin of def.
func Run(t *testing.T, def plugin.Definition, s Suite) {
	t.Run("definition", func(t *testing.T) { testDefinition(t, def) })
	if t.Failed() {
		return // the rest needs a definition that is well formed
	}
	c := contract{def, s}
	t.Run("new", c.testNew)
	t.Run("config", c.testConfig)
	t.Run("events", c.testEvents)
	t.Run("foreign", c.testForeign)
	t.Run("context", c.testContext)
	t.Run("rollback", c.testRollback)
	t.Run("state", c.testState)
	t.Run("hostile", c.testHostile)
}

type contract struct {
	def plugin.Definition
	Suite
}

var wellFormedName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// testDefinition checks what can be seen without making a plugin.
func testDefinition(t *testing.T, def plugin.Definition) {
	if !wellFormedName.MatchString(def.Name) {
		t.Errorf("Name %q does not match %s", def.Name, wellFormedName)
	}
	if def.Summary == "" || strings.ContainsRune(def.Summary, '\n') {
		t.Errorf("Summary %q is not one line", def.Summary)
	}
	if def.Oldest > def.State {
		t.Errorf("Oldest %d is newer than State %d", def.Oldest, def.State)
	}
	if def.New == nil {
		t.Error("New is nil")
	}
	for i, k := range def.Kinds {
		if k < plugin.PreSuspend || k > plugin.Outcome {
			t.Errorf("Kinds has the unknown %s", k)
		}
		if slices.Contains(def.Kinds[:i], k) {
			t.Errorf("Kinds has %s twice", k)
		}
	}
	for i, name := range def.Barriers {
		if name == "" || slices.Contains(def.Barriers[:i], name) {
			t.Errorf("Barriers has %q twice, or empty", name)
		}
	}
	if slices.Contains(def.After, def.Name) {
		t.Error("After names the plugin itself")
	}
}

// make returns a new plugin with a host of its own.
func (c contract) make(t *testing.T) (plugin.Plugin, *Host) {
	t.Helper()
	h := NewHost(t)
	h.SetConfig(c.Config)
	p, err := c.def.New(h)
	if errors.Is(err, plugin.ErrSkip) {
		t.Skip("the plugin has nothing to do on this host")
	}
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if p == nil {
		t.Fatal("New returned neither a plugin nor an error")
	}
	return p, h
}

// filled returns a plugin that has had PreCheckpoint and Fill. It gets Resume
// when the test ends, to let go of what it holds.
func (c contract) filled(t *testing.T) (plugin.Plugin, *Host) {
	t.Helper()
	p, h := c.make(t)
	t.Cleanup(func() { _ = c.tryHandle(context.Background(), p, plugin.Resume) })
	c.handle(t, p, plugin.PreCheckpoint)
	if c.Fill != nil {
		c.Fill(t, p, h)
	}
	return p, h
}

// handle delivers an event of kind k without processes, if the plugin wants
// such, and fails the test on an error.
func (c contract) handle(t *testing.T, p plugin.Plugin, k plugin.Kind) {
	t.Helper()
	if err := c.tryHandle(t.Context(), p, k); err != nil {
		t.Fatalf("Handle of %s: %v", k, err)
	}
}

func (c contract) tryHandle(ctx context.Context, p plugin.Plugin, k plugin.Kind, procs ...plugin.Process) error {
	if !slices.Contains(c.def.Kinds, k) {
		return nil
	}
	return p.Handle(ctx, plugin.Event{Kind: k, Generation: 1, Procs: procs})
}

// testNew checks that making a plugin has no side effect that shows, and
// that two plugins share no state.
func (c contract) testNew(t *testing.T) {
	before := openDescriptors(t)
	a, _ := c.make(t)
	b, _ := c.make(t)
	requireSame(t, before, "New")
	if v := reflect.ValueOf(a); v.Kind() == reflect.Pointer && v.Elem().Type().Size() > 0 && v.Pointer() == reflect.ValueOf(b).Pointer() {
		t.Fatal("New returned the same plugin twice")
	}
	_, stater := a.(plugin.Stater)
	if stater != (c.def.State > 0) {
		t.Fatalf("State is %d: it must be above 0 for a plugin.Stater, and 0 for any other (Stater: %t)", c.def.State, stater)
	}
	if !stater {
		return
	}
	c.handle(t, b, plugin.PreCheckpoint)
	fresh := save(t, b)
	c.filled(t)
	if got := save(t, b); !bytes.Equal(got, fresh) {
		t.Errorf("the claims of one plugin show in the state of another:\n%s\nwas\n%s", got, fresh)
	}
}

// testConfig checks that a plugin with a configuration rejects a misspelled key.
func (c contract) testConfig(t *testing.T) {
	if _, h := c.make(t); !h.usesConfig() {
		t.Skip("New does not read a configuration")
	}
	h := NewHost(t)
	h.SetConfig(`{"plugintest_unknown": 1}`)
	if _, err := c.def.New(h); err == nil {
		t.Error("New accepted an unknown key of the configuration")
	}
}

// testEvents delivers each declared kind alone, and then all in the order of
// a life: launch, checkpoint, exit.
func (c contract) testEvents(t *testing.T) {
	for _, k := range c.def.Kinds {
		t.Run(k.String(), func(t *testing.T) {
			p, h := c.make(t)
			c.handle(t, p, k)
			c.requireDeclared(t, h)
		})
	}
	p, h := c.make(t)
	for _, k := range []plugin.Kind{plugin.Launch, plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Exit} {
		c.handle(t, p, k)
	}
	c.requireDeclared(t, h)
}

// requireDeclared checks the barriers that the plugin came to.
func (c contract) requireDeclared(t *testing.T, h *Host) {
	t.Helper()
	for _, name := range h.Barriers() {
		if !slices.Contains(c.def.Barriers, name) {
			t.Errorf("barrier %q is not in Definition.Barriers", name)
		}
	}
}

// testForeign shows the plugin objects that no plugin has.
func (c contract) testForeign(t *testing.T) {
	p, _ := c.make(t)
	c.handle(t, p, plugin.PreCheckpoint)
	before := openDescriptors(t)
	if claimer, ok := p.(plugin.FileClaimer); ok {
		for _, f := range foreignFiles() {
			if err := claimer.ClaimFile(t.Context(), f); !errors.Is(err, plugin.ErrNotMine) {
				t.Errorf("ClaimFile of %s: %v, want ErrNotMine", f.Link, err)
			}
		}
	}
	if claimer, ok := p.(plugin.MapClaimer); ok {
		m := plugin.Mapping{Start: 0x10000, End: 0x11000, Prot: unix.PROT_READ, Shared: true, Path: "anon_inode:[plugintest]"}
		if policy, err := claimer.ClaimMap(t.Context(), Self(t), m); !errors.Is(err, plugin.ErrNotMine) {
			t.Errorf("ClaimMap of %s: policy %d, %v, want ErrNotMine", m.Path, policy, err)
		}
		before = openDescriptors(t) // Self has some of its own
	}
	requireSame(t, before, "claims of foreign objects")
}

// foreignFiles are descriptions that look in part like real ones.
func foreignFiles() []plugin.OpenFile {
	const noSuchType = unix.S_IFMT // all bits of the type at once
	var files []plugin.OpenFile
	for i, kind := range []struct {
		link string
		mode uint32
	}{
		{"anon_inode:[plugintest]", 0o600},
		{"anon_inode:plugintest", 0o600},
		{"anon_inode:", 0o600},
		{"plugintest:[4242]", noSuchType | 0o600},
		{"/plugintest (deleted)", noSuchType | 0o600},
		{"", noSuchType},
	} {
		files = append(files, plugin.OpenFile{
			ID:     i + 1,
			Link:   kind.link,
			Flags:  unix.O_RDWR,
			Stat:   syscall.Stat_t{Mode: kind.mode, Dev: 0xfffff, Ino: 4242, Nlink: 1},
			Refs:   []plugin.FileRef{{PID: 1, FD: 3}},
			FDInfo: []byte("pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t4242\n"),
			Dup:    func() (int, error) { return -1, unix.EBADF },
		})
	}
	return files
}

// testContext calls every event with a context that has ended, and with one
// that ends at a barrier to which no other agent comes.
func (c contract) testContext(t *testing.T) {
	for _, k := range c.def.Kinds {
		t.Run(k.String(), func(t *testing.T) {
			p, _ := c.make(t)
			ended, end := context.WithCancel(t.Context())
			end()
			if err := c.tryHandle(ended, p, k); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Handle with a cancelled context: %v, want nil or an error that wraps context.Canceled", err)
			}
		})
		t.Run(k.String()+" at a barrier", func(t *testing.T) {
			p, h := c.make(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			entered, result := h.hold(), make(chan error, 1)
			go func() { result <- c.tryHandle(ctx, p, k) }()
			select {
			case <-entered:
				cancel()
				if err := <-result; !errors.Is(err, context.Canceled) {
					t.Errorf("Handle, cancelled at a barrier: %v, want an error that wraps context.Canceled", err)
				}
			case err := <-result:
				if err != nil {
					t.Errorf("Handle: %v", err)
				}
			}
		})
	}
}

// testRollback checks that Resume repairs whatever PreCheckpoint has left,
// and that more of them than asked for do no harm.
func (c contract) testRollback(t *testing.T) {
	t.Run("after a failed precheckpoint", func(t *testing.T) {
		before := openDescriptors(t)
		p, _ := c.make(t)
		ended, end := context.WithCancel(t.Context())
		end()
		_ = c.tryHandle(ended, p, plugin.PreCheckpoint)                   // may fail or not
		_ = c.tryHandle(t.Context(), p, plugin.PreCheckpoint, vanished{}) // likewise
		c.handle(t, p, plugin.Resume)
		requireSame(t, before, "failed PreCheckpoint and Resume")
		c.handle(t, p, plugin.PreCheckpoint)
		c.handle(t, p, plugin.Resume)
	})
	t.Run("after claims", func(t *testing.T) {
		p, _ := c.filled(t)
		c.handle(t, p, plugin.Resume)
	})
	t.Run("twice, and unasked", func(t *testing.T) {
		p, _ := c.make(t)
		c.handle(t, p, plugin.Resume)
		c.handle(t, p, plugin.PreCheckpoint)
		c.handle(t, p, plugin.Resume)
		c.handle(t, p, plugin.Resume)
	})
}

// testState checks that what Save writes, Load reads: fresh and filled.
func (c contract) testState(t *testing.T) {
	for name, make := range map[string]func(*testing.T) (plugin.Plugin, *Host){"fresh": c.make, "filled": c.filled} {
		t.Run(name, func(t *testing.T) {
			p, _ := make(t)
			state := saveObject(t, p)
			if again := save(t, p); !bytes.Equal(again, state) {
				t.Errorf("Save twice: %s\nand then %s", state, again)
			}
			second, _ := c.make(t)
			if err := load(t, second, c.def.State, state); err != nil {
				t.Fatalf("Load of %s: %v", state, err)
			}
			if got := save(t, second); !bytes.Equal(got, state) {
				t.Errorf("Save after Load: %s\nwant %s", got, state)
			}
		})
	}
	for format := c.def.Oldest; format < c.def.State; format++ {
		t.Run(fmt.Sprintf("format %d", format), func(t *testing.T) {
			old, ok := c.Old[format]
			if !ok {
				t.Fatalf("Suite.Old has no state in format %d", format)
			}
			p, _ := c.make(t)
			if err := load(t, p, format, []byte(old)); err != nil {
				t.Errorf("Load of %s: %v", old, err)
			}
		})
	}
}

// testHostile shows Load what a damaged or hostile image may hold.
func (c contract) testHostile(t *testing.T) {
	p, _ := c.filled(t)
	state := bytes.TrimSpace(saveObject(t, p))
	type input struct {
		name   string
		format uint16
		data   []byte
	}
	newest := c.def.State
	inputs := []input{
		{"garbage", newest, []byte("\x00\xff\xfe plugintest \x80")},
		{"an array", newest, []byte("[]")},
		{"a number", newest, []byte("42")},
		{"an unknown field", newest, withUnknownField(state)},
		{"two documents", newest, append(bytes.Clone(state), state...)},
		{"bytes behind the document", newest, append(bytes.Clone(state), "plugintest"...)},
		{"a newer format", newest + 1, state},
	}
	if c.def.Oldest > 0 {
		inputs = append(inputs, input{"an older format", c.def.Oldest - 1, state})
	}
	for _, n := range cuts(len(state)) {
		inputs = append(inputs, input{fmt.Sprintf("cut at %d", n), newest, state[:n]})
	}
	for name, data := range c.Invalid {
		inputs = append(inputs, input{name, newest, []byte(data)})
	}
	for _, in := range inputs {
		p, _ := c.make(t)
		if err := load(t, p, in.format, in.data); err == nil {
			t.Errorf("%s: Load accepted format %d: %.200q", in.name, in.format, in.data)
		}
	}
}

// cuts returns at most 64 lengths less than n, with 0 and n-1 among them.
func cuts(n int) []int {
	var at []int
	for i := 0; i < n-1; i += 1 + n/63 {
		at = append(at, i)
	}
	return append(at, n-1)
}

// withUnknownField adds a member to the JSON object state.
func withUnknownField(state []byte) []byte {
	const member = `{"plugintest_unknown":1`
	rest := bytes.TrimLeft(state[1:], " \t\r\n")
	if rest[0] == '}' {
		return append([]byte(member), rest...)
	}
	return append([]byte(member+","), rest...)
}

// save returns what Save writes, and fails the test when Save opens or
// closes a descriptor.
func save(t *testing.T, p plugin.Plugin) []byte {
	t.Helper()
	before := openDescriptors(t)
	var buf bytes.Buffer
	if err := p.(plugin.Stater).Save(t.Context(), &buf); err != nil {
		t.Fatalf("Save: %v", err)
	}
	requireSame(t, before, "Save")
	return buf.Bytes()
}

// saveObject is save for a plugin that may have no state, in which case the
// test is skipped. The state, without space around it, must be one JSON
// object.
func saveObject(t *testing.T, p plugin.Plugin) []byte {
	t.Helper()
	if _, ok := p.(plugin.Stater); !ok {
		t.Skip("the plugin has no state")
	}
	state := save(t, p)
	var object map[string]json.RawMessage
	if err := json.Unmarshal(state, &object); err != nil || object == nil {
		t.Fatalf("Save wrote %.200q, want a JSON object (%v)", state, err)
	}
	return state
}

// load calls Load, and fails the test when Load opens or closes a descriptor.
func load(t *testing.T, p plugin.Plugin, format uint16, state []byte) error {
	t.Helper()
	before := openDescriptors(t)
	err := p.(plugin.Stater).Load(t.Context(), format, bytes.NewReader(state))
	requireSame(t, before, fmt.Sprintf("Load of format %d, %.80q", format, state))
	return err
}
