package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hiatus-project/hiatus/internal/helper"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/wasm"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// maxValueFile is the size of the largest file that a set=KEY=@FILE reads.
const maxValueFile = 1 << 20

// extensionSpec is an extension as the user asks for it.
type extensionSpec struct {
	path     string
	name     string
	grants   []string
	warn     bool
	deadline time.Duration
	memory   int64
	state    int
	log      int
	values   map[string]any
}

// extensionOptions are the keys of an extension in hiatus.yaml; on the command
// line they follow the path, with grant for grants and set for config.
func extensionOptions() []string {
	return []string{"config", "deadline", "grants", "log", "memory", "on_error", "path", "state"}
}

// parseExtensions reads the mapping "extensions" of a configuration file. A
// relative path is relative to the file.
func parseExtensions(section *yaml.Node, dir string) ([]extensionSpec, error) {
	var specs []extensionSpec
	err := eachKey(section, "extensions", func(name string, value *yaml.Node) error {
		s := extensionSpec{name: name, values: map[string]any{}}
		if err := wasm.CheckName(name); err != nil {
			return err
		}
		err := eachKey(value, name, func(key string, value *yaml.Node) error { return s.setYAML(key, value, dir) })
		if err != nil {
			return fmt.Errorf("extensions: %s: %w", name, err)
		}
		specs = append(specs, s)
		return nil
	})
	return specs, err
}

func (s *extensionSpec) setYAML(key string, value *yaml.Node, dir string) error {
	switch key {
	case "config":
		if err := value.Decode(&s.values); err != nil {
			return fmt.Errorf("config: %w", err)
		}
		return nil
	case "grants":
		v, err := settingValue(value)
		if err != nil {
			return fmt.Errorf("grants: %w", err)
		}
		if one, ok := v.(string); ok {
			v = []string{one}
		}
		s.grants = v.([]string)
		return nil
	}
	if !slices.Contains(extensionOptions(), key) {
		return fmt.Errorf("unknown key %q; known: %s", key, strings.Join(extensionOptions(), ", "))
	}
	if value.Kind != yaml.ScalarNode || isNull(value) {
		return fmt.Errorf("%s: wants a value", key)
	}
	if key == "path" && !filepath.IsAbs(value.Value) {
		s.path = filepath.Join(dir, value.Value)
		return nil
	}
	return s.set(key, value.Value)
}

// set gives one option its value.
func (s *extensionSpec) set(key, value string) (err error) {
	switch key {
	case "path":
		s.path = value
	case "name":
		s.name, err = value, wasm.CheckName(value)
	case "grant":
		s.grants = append(s.grants, strings.Split(value, "+")...)
	case "on_error", "on-error":
		if value != "warn" && value != "fail" {
			return fmt.Errorf("%s: must be fail or warn", key)
		}
		s.warn = value == "warn"
	case "deadline":
		if s.deadline, err = time.ParseDuration(value); err == nil && s.deadline <= 0 {
			err = errors.New("must be positive")
		}
	case "memory":
		s.memory, err = parseSize(value)
	case "state":
		err = setSize(&s.state, value)
	case "log":
		err = setSize(&s.log, value)
	case "set":
		err = s.setValue(value)
	default:
		return fmt.Errorf("unknown option %q; known: deadline, grant, log, memory, name, on-error, set, state", key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// setValue reads KEY=VALUE, where VALUE is JSON, or text as it stands, or the
// content of a file behind a @.
func (s *extensionSpec) setValue(assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok || key == "" {
		return fmt.Errorf("%q: wants KEY=VALUE", assignment)
	}
	if path, isFile := strings.CutPrefix(value, "@"); isFile {
		text, err := readValueFile(path)
		if err != nil {
			return err
		}
		s.values[key] = text
		return nil
	}
	var v any
	if json.Unmarshal([]byte(value), &v) != nil {
		v = value
	}
	s.values[key] = v
	return nil
}

func readValueFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxValueFile+1))
	if err == nil && len(text) > maxValueFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxValueFile)
	}
	return string(text), err
}

// parseSize reads bytes: 65536, 64KiB, 64MiB, 1GiB.
func parseSize(s string) (int64, error) {
	number, factor := s, int64(1)
	for unit, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			number, factor = n, f
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: wants a size: 65536, 64KiB, 64MiB, 1GiB", s)
	}
	return n * factor, nil
}

func setSize(dst *int, value string) error {
	n, err := parseSize(value)
	if err == nil && n > 1<<30 {
		err = fmt.Errorf("%q: at most 1GiB", value)
	}
	*dst = int(n)
	return err
}

// splitOptions splits at commas, but not within the quotes and brackets of a
// value in JSON.
func splitOptions(items []string) []string {
	var out []string
	for _, item := range items {
		depth, quoted, from := 0, false, 0
		for i := 0; i < len(item); i++ {
			switch c := item[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				depth--
			case c == ',' && depth <= 0:
				out, from = append(out, item[from:i]), i+1
			}
		}
		out = append(out, item[from:])
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// splitWithPlugin takes what --with-plugin names apart: names of plugins, and
// extensions, each a path that ends in .wasm with its options behind it.
func splitWithPlugin(items []string) (names []string, specs []extensionSpec, err error) {
	for _, item := range splitOptions(items) {
		key, value, option := strings.Cut(item, "=")
		switch {
		case strings.HasSuffix(item, ".wasm") && (!option || strings.ContainsRune(key, '/')):
			specs = append(specs, extensionSpec{path: item, values: map[string]any{}})
		case !option:
			names = append(names, item)
		case len(specs) == 0:
			return nil, nil, usagef("--with-plugin: %q follows no extension", item)
		default:
			s := &specs[len(specs)-1]
			if err := s.set(key, value); err != nil {
				return nil, nil, usagef("--with-plugin %s: %w", s.path, err)
			}
		}
	}
	for i := range specs {
		if specs[i].name == "" {
			if specs[i].name, err = wasm.NameOf(specs[i].path); err != nil {
				return nil, nil, usagef("--with-plugin %s: %w; give it another with name=NAME", specs[i].path, err)
			}
		}
	}
	return names, specs, nil
}

// over lays s over what a configuration file says of the same extension.
func (s extensionSpec) over(file extensionSpec) extensionSpec {
	out := file
	out.path, out.name = s.path, s.name
	out.grants = append(slices.Clone(file.grants), s.grants...)
	out.values = maps.Clone(file.values)
	maps.Copy(out.values, s.values)
	out.warn = file.warn || s.warn
	if s.deadline != 0 {
		out.deadline = s.deadline
	}
	if s.memory != 0 {
		out.memory = s.memory
	}
	if s.state != 0 {
		out.state = s.state
	}
	if s.log != 0 {
		out.log = s.log
	}
	return out
}

// chooseExtensions returns the extensions in their order: those of the
// configuration files that have a path, then those of the command line.
func chooseExtensions(configured, given []extensionSpec, builtin, disabled []string) ([]extensionSpec, error) {
	var chosen []extensionSpec
	place := map[string]int{}
	for _, s := range configured {
		if s.path != "" && !slices.Contains(disabled, s.name) {
			place[s.name] = len(chosen)
			chosen = append(chosen, s)
		}
	}
	seen := map[string]bool{}
	for _, s := range given {
		if seen[s.name] {
			return nil, usagef("--with-plugin %s: another extension is called %s; give one another name with name=NAME", s.path, s.name)
		}
		seen[s.name] = true
		if i := slices.IndexFunc(configured, func(c extensionSpec) bool { return c.name == s.name }); i >= 0 {
			s = s.over(configured[i])
		}
		if i, ok := place[s.name]; ok {
			chosen[i] = s
			continue
		}
		chosen = append(chosen, s)
	}
	for _, s := range chosen {
		if slices.Contains(builtin, s.name) || s.name == coreLog || s.name == "engine" {
			return nil, usagef("extension %s: %s is the name of a built-in plugin; give it another with name=NAME", s.path, s.name)
		}
	}
	return chosen, nil
}

// config makes what the host of extensions wants to know.
func (s extensionSpec) config(a *app) (wasm.Config, error) {
	values, err := json.Marshal(s.values)
	if err != nil {
		return wasm.Config{}, fmt.Errorf("extension %s: config: %w", s.name, err)
	}
	return wasm.Config{
		Path: s.path, Name: s.name, Grants: s.grants, Values: values, Warn: s.warn,
		Limits:   wasm.Limits{Deadline: s.deadline, Memory: s.memory, State: s.state, Log: s.log},
		CacheDir: wasm.CacheDir(),
		Environ:  os.Environ(),
		Warning:  func(format string, args ...any) { fmt.Fprintf(a.stderr, "hiatus: warning: "+format+"\n", args...) },
	}, nil
}

// runner has the helper run a guest's commands.
func runner(h *helper.Client) wasm.Runner {
	return func(ctx context.Context, cmd abi.Command) (abi.CommandResult, error) {
		r, err := h.Run(ctx, helper.Command{Args: cmd.Args, Stdin: cmd.Stdin, Env: cmd.Env, Dir: cmd.Dir})
		return abi.CommandResult{Code: r.Code, Stdout: r.Stdout, Stderr: r.Stderr}, err
	}
}

// loadExtensions loads the modules, in order.
func (a *app) loadExtensions(ctx context.Context, specs []extensionSpec) ([]plugin.Definition, error) {
	var defs []plugin.Definition
	var programs *helper.Client
	for _, s := range specs {
		cfg, err := s.config(a)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.grants, func(g string) bool { return strings.HasPrefix(g, abi.Exec+":") }) {
			if programs == nil {
				if programs, err = helper.Start(helperCommand); err != nil {
					return nil, err
				}
			}
			cfg.Run = runner(programs)
		}
		m, err := wasm.Load(ctx, cfg)
		if err != nil {
			return nil, err
		}
		defs = append(defs, m.Definition())
	}
	return defs, nil
}
