package wasm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hiatus-project/hiatus/sdk/abi"
)

// The defaults of Limits.
const (
	DefaultDeadline = 5 * time.Second
	DefaultMemory   = 64 << 20
	DefaultState    = 16 << 20
	DefaultLog      = 64 << 10
	DefaultHold     = time.Minute
)

const (
	pageSize = 64 << 10 // of WASM
	// maxModule is the size of the largest module that is read.
	maxModule = 64 << 20
	maxMemory = 4 << 30
)

// Limits bound what an extension may use. A field that is 0 has its default.
type Limits struct {
	Deadline time.Duration // for instantiation and for each call; waiting for other agents does not count
	Memory   int64         // bytes of its linear memory
	State    int           // bytes of its state in the image
	Log      int           // bytes that it may log in one call
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if l.Deadline == 0 {
		l.Deadline = DefaultDeadline
	}
	if l.Memory == 0 {
		l.Memory = DefaultMemory
	}
	set(&l.State, DefaultState)
	set(&l.Log, DefaultLog)
	return l
}

func (l Limits) check() error {
	switch {
	case l.Deadline < 0:
		return fmt.Errorf("deadline %v: must not be negative", l.Deadline)
	case l.Memory < pageSize || l.Memory > maxMemory:
		return fmt.Errorf("memory of %d bytes: must be %d to %d", l.Memory, pageSize, int64(maxMemory))
	case l.State < 0 || l.Log < 0:
		return errors.New("limits must not be negative")
	}
	return nil
}

// Config says which module is loaded, and what it may do.
type Config struct {
	Path   string          // of the module
	Name   string          // of the plugin; "": from Path
	Grants []string        // see ParseGrants
	Values json.RawMessage // what the guest reads as its configuration: a JSON object; nil: {}
	Limits Limits
	// Warn lets a checkpoint or a restart go on without the extension when it
	// fails; else its failure is one of the checkpoint.
	Warn bool
	// CacheDir keeps compiled code; "": none. See CacheDir.
	CacheDir string
	// Environ is that of the launching or restarting command.
	Environ []string
	// Run runs a program for the capability exec; nil: there is none.
	Run Runner
	// Warning tells of what is not as it should be, and no reason to stop.
	Warning func(format string, args ...any)
}

// Grants is what an extension may do.
type Grants struct {
	names []string
	execs []string // paths
	hosts []string // host or host:port
	hold  time.Duration
}

// ParseGrants reads capabilities. Three have an argument, behind a colon:
// exec:/path/to/program (each program its own grant), http:host or
// http:host:port, and hold:DURATION (one minute where it has none).
func ParseGrants(list []string) (Grants, error) {
	g := Grants{}
	for _, item := range list {
		name, arg, has := strings.Cut(item, ":")
		if !slices.Contains(abi.Capabilities(), name) {
			return g, fmt.Errorf("unknown capability %q; known: %s", name, strings.Join(abi.Capabilities(), ", "))
		}
		if err := g.add(name, arg, has); err != nil {
			return g, fmt.Errorf("grant %q: %w", item, err)
		}
		if !slices.Contains(g.names, name) {
			g.names = append(g.names, name)
		}
	}
	return g, nil
}

func (g *Grants) add(name, arg string, has bool) error {
	switch name {
	case abi.Exec:
		if !filepath.IsAbs(arg) || filepath.Clean(arg) != arg {
			return errors.New("wants the absolute path of the program: exec:/path")
		}
		g.execs = append(g.execs, arg)
	case abi.HTTP:
		if err := checkHost(arg); err != nil {
			return err
		}
		g.hosts = append(g.hosts, strings.ToLower(arg))
	case abi.Hold:
		g.hold = DefaultHold
		if has {
			d, err := time.ParseDuration(arg)
			if err != nil || d <= 0 {
				return errors.New("wants a duration: hold:10m")
			}
			g.hold = d
		}
	default:
		if has {
			return errors.New("has no argument")
		}
	}
	return nil
}

func checkHost(arg string) error {
	host := arg
	if h, port, err := net.SplitHostPort(arg); err == nil {
		if host = h; port == "" {
			return errors.New("the port is empty")
		}
	}
	if host == "" || strings.ContainsAny(host, "/?#@ *") {
		return errors.New("wants a host: http:host or http:host:port")
	}
	return nil
}

// Has says whether the capability is granted.
func (g Grants) Has(capability string) bool { return slices.Contains(g.names, capability) }

// pluginName is not compiled in commands that have no extension.
var pluginName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]*$`) })

// NameOf makes the name of an extension of the path of its module.
func NameOf(path string) (string, error) {
	name := strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".wasm"), "_", "-"))
	return name, CheckName(name)
}

// CheckName says what is wrong with the name of an extension.
func CheckName(name string) error {
	if !pluginName().MatchString(name) {
		return fmt.Errorf("name %q of an extension: want small letters, digits and -, a letter first", name)
	}
	return nil
}
