package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

const (
	localConfig   = "hiatus.yaml" // in the current directory
	maxConfigSize = 1 << 20
	// worldWritable is the permission by which any user can change a file.
	worldWritable fs.FileMode = 0o002
)

// settings returns the names of the flags that may also be given by a
// HIATUS_* variable and in a configuration file.
func settings() []string {
	return []string{
		"ckpt-open-files", "ckptdir", "close-fds", "compress", "debug-logs", "direct", "disable-plugin", "full-every",
		"incremental", "interval", "keep", "log-file", "log-level", "name", "namespaces", "no-snapshot", "self-contained", "tcp-outside", "timeout", "with-plugin",
	}
}

// envName returns the variable that gives a setting: HIATUS_LOG_LEVEL for
// log-level.
func envName(setting string) string {
	return "HIATUS_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// config is what stands in the environment and in the configuration files.
type config struct {
	values  *viper.Viper
	origin  map[string]string // of a setting: the file that gave it
	plugins map[string]*pluginSection

	extensions []extensionSpec // a later file's over those before
}

// pluginSection is the configuration of one plugin, merged from the files.
type pluginSection struct {
	values map[string]any
	origin map[string]string // of a key: the file that gave it
}

// loadConfig reads the user's configuration and, over it, that of the current
// directory. A file that does not exist is no error.
func loadConfig(plugins []plugin.Definition) (*config, error) {
	c := &config{values: viper.New(), origin: map[string]string{}, plugins: map[string]*pluginSection{}}
	for _, key := range settings() {
		if err := c.values.BindEnv(key, envName(key)); err != nil {
			return nil, fmt.Errorf("bind %s: %w", envName(key), err)
		}
	}
	files := []struct {
		path string
		own  bool // must belong to the user
	}{{userConfigPath(), false}, {localConfig, true}}
	for _, f := range files {
		data, err := readConfig(f.path, f.own)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		parsed, err := parseConfig(data, pluginNames(plugins), filepath.Dir(f.path))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if err := c.merge(f.path, parsed); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// userConfigPath follows the XDG Base Directory Specification, which has a
// relative $XDG_CONFIG_HOME ignored. It returns "" where there is no home.
func userConfigPath() string {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "hiatus", "config.yaml")
}

// readConfig reads one file. A file of the current directory (own) decides
// which files are written, so one that another user put there, as in /tmp, is
// refused.
func readConfig(path string, own bool) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for a writer, open(2).
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission) && !visible(path) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if own {
		if err := checkOwner(path, st); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxConfigSize)
	}
	return data, nil
}

// visible says whether path can be looked up. It cannot below the home of
// another user, whose $HOME su(1) and the like may leave: such a file is not
// this user's configuration.
func visible(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// checkOwner refuses a file, or a symbolic link to it, that another user
// controls.
func checkOwner(path string, opened fs.FileInfo) error {
	link, err := os.Lstat(path)
	if err != nil {
		return err
	}
	for _, st := range []fs.FileInfo{link, opened} {
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no owner known", path)
		}
		if int(sys.Uid) != os.Geteuid() {
			return fmt.Errorf("%s: belongs to user %d, not to you: refused; remove it or work in another directory", path, sys.Uid)
		}
	}
	if opened.Mode().Perm()&worldWritable != 0 {
		return fmt.Errorf("%s: any user may write to it (mode %04o): refused", path, opened.Mode().Perm())
	}
	return nil
}

// parsedConfig is one configuration file: a string or a []string for each
// setting, and the sections of plugins.
type parsedConfig struct {
	settings map[string]any
	plugins  map[string]map[string]any

	extensions []extensionSpec
}

// parseConfig reads YAML. Its errors name line and key.
//
// dir is what paths in it are relative to.
func parseConfig(data []byte, plugins []string, dir string) (parsedConfig, error) {
	p := parsedConfig{settings: map[string]any{}, plugins: map[string]map[string]any{}}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return p, err
	}
	if len(doc.Content) == 0 {
		return p, nil // nothing but comments
	}
	err := eachKey(doc.Content[0], "the file", func(key string, value *yaml.Node) (err error) {
		if key == "plugins" {
			return parsePlugins(value, plugins, p.plugins)
		}
		if key == "extensions" {
			p.extensions, err = parseExtensions(value, dir)
			return err
		}
		if !slices.Contains(settings(), key) {
			return fmt.Errorf("unknown key %q; known: %s, plugins, extensions", key, strings.Join(settings(), ", "))
		}
		v, err := settingValue(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		p.settings[key] = v
		return nil
	})
	return p, err
}

// parsePlugins reads the section of each plugin into dst.
func parsePlugins(section *yaml.Node, known []string, dst map[string]map[string]any) error {
	return eachKey(section, "plugins", func(name string, value *yaml.Node) error {
		if !slices.Contains(known, name) {
			return fmt.Errorf("plugins: unknown key %q; known: %s", name, strings.Join(known, ", "))
		}
		if isNull(value) {
			return nil
		}
		var values map[string]any
		if err := value.Decode(&values); err != nil {
			return fmt.Errorf("plugins: %s: %w", name, err)
		}
		dst[name] = values
		return nil
	})
}

// eachKey calls fn for each pair of a mapping, in order, and adds the line to
// its errors. what names the mapping.
func eachKey(n *yaml.Node, what string, fn func(key string, value *yaml.Node) error) error {
	n = resolveAlias(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s is not a mapping of keys to values", n.Line, what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			return fmt.Errorf("line %d: key %q stands there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		if err := fn(key.Value, resolveAlias(n.Content[i+1])); err != nil {
			return fmt.Errorf("line %d: %w", key.Line, err)
		}
	}
	return nil
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// settingValue returns a scalar as it is written, or a list of scalars.
func settingValue(n *yaml.Node) (any, error) {
	switch {
	case isNull(n):
		return nil, errors.New("has no value")
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind != yaml.SequenceNode:
		return nil, errors.New("wants a value or a list of values")
	}
	list := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		item = resolveAlias(item)
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return nil, errors.New("wants a list of plain values")
		}
		list = append(list, item.Value)
	}
	return list, nil
}

// merge lays the file at path over what is there.
func (c *config) merge(path string, p parsedConfig) error {
	for key := range p.settings {
		c.origin[key] = path
	}
	if err := c.values.MergeConfigMap(p.settings); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, s := range p.extensions {
		if i := slices.IndexFunc(c.extensions, func(o extensionSpec) bool { return o.name == s.name }); i >= 0 {
			c.extensions[i] = s
		} else {
			c.extensions = append(c.extensions, s)
		}
	}
	for name, values := range p.plugins {
		s := c.plugins[name]
		if s == nil {
			s = &pluginSection{values: map[string]any{}, origin: map[string]string{}}
			c.plugins[name] = s
		}
		for key, v := range values {
			s.values[key], s.origin[key] = v, path
		}
	}
	return nil
}

// apply sets the flags that the command line did not, from the environment
// and the files. Its errors name the variable or the file.
func (c *config) apply(flags *pflag.FlagSet) error {
	for _, key := range settings() {
		f := flags.Lookup(key)
		if f == nil || f.Changed || !c.values.IsSet(key) {
			continue
		}
		if err := setFlag(f, c.values.Get(key)); err != nil {
			return fmt.Errorf("%s: %s: %w", c.source(key), key, err)
		}
	}
	return nil
}

// fromEnvironment says whether a variable gives a setting; viper, too, takes an empty one
// as unset.
func fromEnvironment(key string) bool {
	return slices.Contains(settings(), key) && os.Getenv(envName(key)) != ""
}

// source names where a setting comes from.
func (c *config) source(key string) string {
	if fromEnvironment(key) {
		return envName(key)
	}
	return c.origin[key]
}

// setFlag gives f a string or a list, and leaves f.Changed as it is.
func setFlag(f *pflag.Flag, value any) error {
	switch v := value.(type) {
	case string:
		if list, ok := f.Value.(pflag.SliceValue); ok {
			return list.Replace(splitList(v))
		}
		if err := f.Value.Set(v); err != nil {
			return fmt.Errorf("invalid value %q: %w", v, err)
		}
		return nil
	case []string:
		if list, ok := f.Value.(pflag.SliceValue); ok {
			return list.Replace(v)
		}
		return errors.New("wants one value, not a list")
	default:
		return fmt.Errorf("invalid value %v", value)
	}
}

// splitList splits at commas, without blanks and empty items.
func splitList(s string) []string {
	var list []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// plugin decodes the section of the plugin name into dst, by the rules of
// encoding/json. A key that dst does not have is an error, which names the
// file. Without a section, dst is left as it is.
func (c *config) plugin(name string, dst any) error {
	s := c.plugins[name]
	if s == nil {
		return nil
	}
	// Key by key, for each may come from another file.
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		if err := decodeStrictly(map[string]any{key: s.values[key]}, dst); err != nil {
			return fmt.Errorf("%s: plugins: %s: %s: %w", s.origin[key], name, key, err)
		}
	}
	return nil
}

// pluginConfig decodes the configuration of the plugin name.
type pluginConfig func(name string, dst any) error

// with lays values of the command line over those of the plugin name, where
// they are given: true, or not empty.
func (c pluginConfig) with(name string, values map[string]any) pluginConfig {
	maps.DeleteFunc(values, func(_ string, v any) bool { return v == false || v == "" })
	return func(of string, dst any) error {
		err := c(of, dst)
		if err != nil || of != name {
			return err
		}
		return decodeStrictly(values, dst)
	}
}

// decodeStrictly adds values to dst, which must have all their keys.
func decodeStrictly(values map[string]any, dst any) error {
	object, err := json.Marshal(values)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.DisallowUnknownFields()
	return dec.Decode(dst)
}
