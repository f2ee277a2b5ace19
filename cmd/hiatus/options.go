package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/private"
	"github.com/hiatus-project/hiatus/plugin"
)

// choice is a flag's value out of a few.
type choice struct {
	value   *string
	allowed []string
}

func (c choice) String() string {
	if c.value == nil { // pflag asks a zero value for its default
		return ""
	}
	return *c.value
}

func (c choice) Type() string { return strings.Join(c.allowed, "|") }

func (c choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("must be one of %s", strings.Join(c.allowed, ", "))
	}
	*c.value = s
	return nil
}

// generationNumber is the value of --generation.
type generationNumber struct{ value *uint64 }

func (g generationNumber) String() string {
	if g.value == nil || *g.value == 0 {
		return ""
	}
	return strconv.FormatUint(*g.value, 10)
}

func (g generationNumber) Type() string { return "uint" }

func (g generationNumber) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return errors.New("must be a number from 1 on")
	}
	*g.value = n
	return nil
}

// generationFlag adds --generation.
func generationFlag(cmd *cobra.Command, value *uint64, usage string) {
	cmd.Flags().Var(generationNumber{value}, "generation", usage)
	complete(cmd, "generation", cobra.NoFileCompletions)
}

// compression is the value of --compress.
type compression struct{ value *string }

func (c compression) String() string { return choice{value: c.value}.String() }

func (compression) Type() string { return strings.Join(image.Compressions(), "|") + "[:LEVEL]" }

func (c compression) Set(s string) error {
	if err := image.CheckCompression(s); err != nil {
		return err
	}
	*c.value = s
	return nil
}

// runFlags are the flags that launch and restart share.
type runFlags struct {
	name           string
	interval       time.Duration
	keep           int
	withPlugins    []string
	disablePlugins []string
	compress       string
	incremental    bool
	fullEvery      int
	direct         bool
	openFiles      bool
	noSnapshot     bool
	selfContained  bool
	logLevel       string
	debugLogs      []string
	logFile        string
	detach         bool
	json           bool

	allowOutsideShm bool
	tcpOutside      string

	set *pflag.FlagSet // that has them
}

// register adds the flags to cmd. nameDefault says where a name comes from
// that is not given.
func (f *runFlags) register(a *app, cmd *cobra.Command, nameDefault string) {
	f.compress, f.logLevel = image.CompressAuto, "warn"
	fs := cmd.Flags()
	f.set = fs
	fs.StringVar(&f.name, "name", "", "`NAME` of the computation (default: "+nameDefault+")")
	fs.DurationVar(&f.interval, "interval", 0, "checkpoint each `DUR` (10m, 1h30m); 0: on request only")
	fs.IntVar(&f.keep, "keep", 2, "keep the last `N` generations (of each launch: those of earlier ones under the same name stay)")
	fs.StringArrayVar(&f.withPlugins, "with-plugin", nil, "use plugin `P`, even where --disable-plugin names it, or the extension P (FILE.wasm[,grant=CAPABILITY+...][,OPTION=VALUE...]); may be repeated")
	fs.StringSliceVar(&f.disablePlugins, "disable-plugin", nil, "do not use plugin `P`; may be repeated")
	fs.Var(compression{&f.compress}, "compress", "compress images; auto: as suits the speed of the directory")
	fs.BoolVar(&f.incremental, "incremental", false, "store only memory that has changed since the generation before")
	fs.IntVar(&f.fullEvery, "full-every", 10, "with --incremental: every `N`th generation stores all")
	fs.BoolVar(&f.direct, "direct", false, "write images past the page cache (O_DIRECT), where the file system can")
	fs.BoolVar(&f.openFiles, "ckpt-open-files", false, "save the content of open files in each image; restart makes those again that are gone")
	fs.BoolVar(&f.noSnapshot, "no-snapshot", false, "write the memory of each checkpoint while the program stands still, also where it has much")
	fs.BoolVar(&f.selfContained, "self-contained", false, "save the programs, libraries and other mapped files in each image; restart takes those that are gone or changed from there")
	fs.Var(choice{&f.logLevel, logLevels()}, "log-level", "log messages of this level and above")
	fs.StringSliceVar(&f.debugLogs, "debug-logs", nil, "a level for single plugins: `PLUGIN[=LEVEL],...` (LEVEL is debug where not given; \"core\" is the engine)")
	fs.StringVar(&f.logFile, "log-file", "", "log to `FILE` in JSON; only warnings and errors go to stderr as well")
	fs.Var(choice{&f.tcpOutside, []string{"refuse", "close"}}, "tcp-outside", "TCP connections to outside of the computation: refuse the checkpoint (the default), or keep them as connections that were reset")
	fs.BoolVar(&f.allowOutsideShm, "allow-outside-shm", false, "keep a copy of shared memory, semaphores and message queues that processes outside use too")
	fs.BoolVar(&f.detach, "detach", false, "return as soon as it runs; output that would go to the terminal goes to a file")
	fs.BoolVar(&f.json, "json", false, "with --detach: print JSON on stdout, and nothing else; output goes to a file")
	a.completeRunFlags(cmd)
}

// options makes the core's options, but for Name, Dir and UniqueName. The
// caller calls done at the end.
func (f *runFlags) options(ctx context.Context, a *app) (opts core.Options, done func() error, err error) {
	if f.interval < 0 {
		return opts, nil, usagef("--interval %s: must not be negative", f.interval)
	}
	if f.keep < 1 {
		return opts, nil, usagef("--keep %d: at least one generation must be kept", f.keep)
	}
	if f.fullEvery < 1 || f.fullEvery > image.MaxChain {
		return opts, nil, usagef("--full-every %d: must be 1 to %d", f.fullEvery, image.MaxChain)
	}
	if f.json && !f.detach {
		return opts, nil, usagef("--json wants --detach: in front, the output is the program's")
	}
	active, specs, err := f.plugins(a)
	if err != nil {
		return opts, nil, err
	}
	extensions, err := a.loadExtensions(ctx, specs)
	if err != nil {
		return opts, nil, err
	}
	active = append(active, extensions...)
	log, done, err := f.logging(a, active)
	if err != nil {
		return opts, nil, err
	}
	opts = core.Options{
		Interval:    f.interval,
		Keep:        f.keep,
		Compress:    f.compress,
		Incremental: f.incremental,
		FullEvery:   f.fullEvery,
		Direct:      f.direct,
		Detached:    a.ready != nil && leadsSession(),
		Plugins:     active,
		Log:         log,
	}
	f.setLasting(&opts, a.config)
	if f.logFile != "" {
		if opts.LogFile, err = filepath.Abs(f.logFile); err != nil {
			return opts, nil, errors.Join(err, done())
		}
	}
	if a.ready != nil {
		opts.Ready = a.ready.done
	}
	return opts, done, nil
}

// lastingFlags say what images hold, and what they do with what is outside of the
// computation: a restart goes on with them.
func lastingFlags() []string {
	return []string{"allow-outside-shm", "ckpt-open-files", "no-snapshot", "self-contained", "tcp-outside"}
}

// setLasting sets the options that lastingFlags give.
func (f *runFlags) setLasting(opts *core.Options, c *config) {
	opts.OpenFiles, opts.NoSnapshot, opts.SelfContained = f.openFiles, f.noSnapshot, f.selfContained
	opts.PluginConfig = f.pluginConfig(c)
	opts.Flags = map[string]string{}
	for _, name := range lastingFlags() {
		if flag := f.set.Lookup(name); flag.Value.String() != flag.DefValue {
			opts.Flags[name] = flag.Value.String()
		}
	}
}

// leadsSession says whether this process has a session of its own, as with
// --detach.
func leadsSession() bool {
	sid, err := unix.Getsid(0)
	return err == nil && sid == os.Getpid()
}

// plugins chooses the built-in plugins and the extensions.
func (f *runFlags) plugins(a *app) ([]plugin.Definition, []extensionSpec, error) {
	with, given, err := splitWithPlugin(f.withPlugins)
	if err != nil {
		return nil, nil, err
	}
	builtin, configured := pluginNames(a.engine.Plugins), a.config.extensions
	isExtension := func(name string) bool {
		return slices.ContainsFunc(configured, func(s extensionSpec) bool { return s.name == name && s.path != "" })
	}
	specs, err := chooseExtensions(configured, given, builtin, f.disablePlugins)
	if err != nil {
		return nil, nil, err
	}
	active, err := selectPlugins(a.engine.Plugins, slices.DeleteFunc(with, isExtension), slices.DeleteFunc(slices.Clone(f.disablePlugins), isExtension))
	return active, specs, err
}

// pluginConfig is the configuration of plugins, under the flags that stand for
// a key of theirs.
func (f *runFlags) pluginConfig(c *config) pluginConfig {
	return pluginConfig(c.plugin).
		with("shm", map[string]any{"allow_outside": f.allowOutsideShm}).
		with("socket", map[string]any{"tcp_outside": f.tcpOutside})
}

func (f *runFlags) logging(a *app, active []plugin.Definition) (func(string) zerolog.Logger, func() error, error) {
	level, err := parseLevel(f.logLevel)
	if err != nil {
		return nil, nil, usagef("--log-level: %w", err)
	}
	levels, err := parseDebugLogs(f.debugLogs, append(pluginNames(a.engine.Plugins), extensionNames(a.engine.Plugins, active)...))
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return logging{level: level, plugins: levels, file: f.logFile}.open(a.stderr)
}

// selectPlugins leaves the disabled plugins out, unless they are asked for.
func selectPlugins(all []plugin.Definition, with, disabled []string) ([]plugin.Definition, error) {
	known := pluginNames(all)
	for _, name := range slices.Concat(with, disabled) {
		if !slices.Contains(known, name) {
			return nil, usagef("unknown plugin %q; known: %s", name, strings.Join(known, ", "))
		}
	}
	var active []plugin.Definition
	for _, d := range all {
		if !slices.Contains(disabled, d.Name) || slices.Contains(with, d.Name) {
			active = append(active, d)
		}
	}
	return active, nil
}

// extensionNames names those of active that are not built in.
func extensionNames(builtin, active []plugin.Definition) []string {
	return slices.DeleteFunc(pluginNames(active), func(name string) bool { return slices.Contains(pluginNames(builtin), name) })
}

func pluginNames(defs []plugin.Definition) []string {
	names := make([]string, 0, len(defs))
	for _, d := range defs {
		names = append(names, d.Name)
	}
	return names
}

// findCommand says whether name can be executed, before anything starts.
func findCommand(name string) error {
	// exec.ErrDot is Go's own caution: a PATH with "." is the user's choice.
	_, err := exec.LookPath(name)
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%s: command not found", name)
	case errors.Is(err, os.ErrNotExist): // a path, which is not looked up in PATH
		return fmt.Errorf("%s: %w", name, unix.ENOENT)
	default:
		if e, ok := errors.AsType[*exec.Error](err); ok {
			err = e.Err
		}
		return fmt.Errorf("%s: cannot be executed: %w", name, err)
	}
}

// imageDir makes the directory of images an absolute path, and makes the
// directory itself: what is wrong with it is better said now than at the
// first checkpoint.
func imageDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("ckptdir: %w", err)
	}
	if err := private.MakeDirs(abs); err != nil {
		return "", fmt.Errorf("ckptdir: %w", err)
	}
	return abs, nil
}

// Names are as the coordinator takes them: they stand in paths and on command
// lines.
const (
	maxName   = 64
	maxSuffix = len("-9999")
)

func validName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %q: must have 1 to %d characters", name, maxName)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }); i >= 0 {
		return fmt.Errorf("name %q: only letters, digits and the four of \"._+-\" may stand in a name", name)
	}
	if name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("name %q: must not begin with %q", name, name[0])
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._+-", r)
}

// defaultName makes a valid name of the command's base name.
func defaultName(command string) string {
	name := strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '_'
	}, filepath.Base(command))
	name = strings.TrimLeft(name, ".-")
	if len(name) > maxName-maxSuffix {
		name = name[:maxName-maxSuffix]
	}
	if name == "" {
		return "computation"
	}
	return name
}
