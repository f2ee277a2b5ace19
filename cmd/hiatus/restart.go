package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/image"
)

// restartFlags are the flags of restart only.
type restartFlags struct {
	generation uint64
	namespaces string
	ignore     []string
	lazy       bool
	// Of files that are not as they were.
	allowChanged   bool
	allowMissing   bool
	allowFeatures  bool
	allowOverwrite bool
	// Of one agent of several, which this command starts: see together.
	agent string
	join  bool
}

func (a *app) restartCommand() *cobra.Command {
	var f runFlags
	r := restartFlags{namespaces: "auto"}
	cmd := &cobra.Command{
		Use:   "restart [DIR|MANIFEST]",
		Short: "Start a computation again from its image",
		Long: `Start a computation again from the newest generation in DIR, a --ckptdir (by
default HIATUS_CKPTDIR, else the current directory), or from the generation of a
MANIFEST.

All images are verified before anything of the program runs. From then on it is as
with launch: hiatus stays in front, and further checkpoints go to the same
directory (those of root, of another user's image, to one beside it, with a number).
The terminal of this command takes the place of the one that was.
--interval, --keep, --compress, --incremental, --full-every, --direct,
--no-snapshot, --ckpt-open-files, --self-contained, --tcp-outside and
--allow-outside-shm are those of the image, unless they are given here, or by
HIATUS_* variables.

An open file whose size or time of change is not as in the image is refused. One
that the program itself had open for writing may have grown where it ran on after
the checkpoint, or after an earlier restart. --allow-changed-files goes on with
files as they are now. Of an image with the content of open files
(--ckpt-open-files), files that are gone are made again; --allow-file-overwrite
replaces changed ones too.

Shared memory with a name, as in /dev/shm, gets the content that it had. Where other
processes use it now, the restart is refused; --allow-changed-files goes on with it
as it is.

TCP connections within the computation keep their addresses on every host. Where
another socket had one that this host does not have, the restart is refused;
--allow-missing-address goes on: nobody reaches it there.

Programs and libraries must have the bytes that they had: restart compares them
before it makes anything. An image made with --self-contained has them with it. The
processor must have the features that the image's had, as programs choose by them at
their start; --allow-missing-features goes on without.

With --lazy the program runs at once, whatever its size, and its memory comes behind
it: what it touches first, then the rest. Each piece of memory is compared with its
checksum before the program sees it; where that fails, or where hiatus is killed
meanwhile, the program is ended. "status" shows what is still to come. Until it is
there, system calls are slow or wait, as those of fork, execve and thread creation
do, and a checkpoint waits too.

A computation of several trees (hiatus launch --join) comes back as a whole, and
this command returns when all have ended, with the exit code of the first. That
one is in front; the others have no terminal, but DIR/NAME/output-N.log for it.
What went to these files, or to the output.log of --detach, goes to those of
the new name, where there is one (but with --ckpt-open-files, which keeps it).

Programs find their old process ids, paths and clocks in new namespaces, which
an ordinary user may make. "never" takes the current ones, which wants privileges
and free process ids; "auto" does so where it can.

^C, SIGTERM, SIGQUIT, SIGHUP and "hiatus kill" give a restart up as long as the
program does not run: nothing is left of it. A second signal ends it at once.

` + helpRun,
		Example: `  hiatus restart /scratch/ckpt
  hiatus restart /scratch/ckpt --generation 3 --name sim-again
  hiatus restart /scratch/ckpt/sim/00003/manifest.json --detach
  hiatus restart --lazy /scratch/ckpt`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
	}
	f.register(a, cmd, "as in the image")
	generationFlag(cmd, &r.generation, "restart generation `N` (default: the newest)")
	cmd.Flags().Var(choice{&r.namespaces, []string{"auto", "always", "never"}}, "namespaces", "make new namespaces")
	completeChoice(cmd, "namespaces", "auto", "always", "never")
	cmd.Flags().StringSliceVar(&r.ignore, "ignore-plugin", nil, "leave out what the image holds of plugin `P`; may be repeated")
	complete(cmd, "ignore-plugin", cobra.NoFileCompletions)
	cmd.Flags().BoolVar(&r.lazy, "lazy", false, "run the program before its memory is there")
	cmd.Flags().BoolVar(&r.allowChanged, "allow-changed-files", false, "go on with open files as they are now, where they have changed since the checkpoint")
	cmd.Flags().BoolVar(&r.allowOverwrite, "allow-file-overwrite", false, "put the content that --ckpt-open-files has saved in the place of files that have changed since")
	cmd.Flags().BoolVar(&r.allowFeatures, "allow-missing-features", false, "go on where the processor lacks features that the image's had: a program that uses one dies")
	cmd.Flags().BoolVar(&r.allowMissing, "allow-missing-address", false, "bind sockets to their addresses where this host does not have those: nobody reaches them there, until it has")
	cmd.Flags().StringVar(&r.agent, "agent", "", "restart agent `ID` only")
	cmd.Flags().BoolVar(&r.join, "join", false, "join the restart that is in progress under --name")
	complete(cmd, "agent", cobra.NoFileCompletions)
	for _, flag := range []string{"agent", "join"} {
		_ = cmd.Flags().MarkHidden(flag) // they exist
	}
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		return a.restart(ctx, &f, r, cmp.Or(optional(args, ""), a.config.values.GetString("ckptdir"), "."), cmd.Flags())
	})
	return cmd
}

// restart starts a generation again.
func (a *app) restart(ctx context.Context, f *runFlags, r restartFlags, path string, flags *pflag.FlagSet) (err error) {
	if err := checkUTF8("image", path); err != nil {
		return err
	}
	opts, done, err := f.options(ctx, a)
	if err != nil {
		return err
	}
	defer closeLog(done, &err)
	gen, err := resolveGeneration(path, r.generation)
	if err != nil {
		return err
	}
	m, err := image.ReadManifest(gen)
	if err != nil {
		return err
	}
	if err := f.goOnAs(&opts, m.Settings, a.config); err != nil {
		return fmt.Errorf("%s: %w", gen, err)
	}
	// DIR/NAME/GENERATION: see the image format.
	named := filepath.Dir(gen)
	opts.Dir = filepath.Dir(named)
	if opts.Name, opts.UniqueName, err = computationName(f.name, imageName(named)); err != nil {
		return err
	}
	if f.detach && a.ready == nil {
		return a.detach(ctx, opts, f.json)
	}
	if len(m.Agents) > 1 && r.lazy {
		return fmt.Errorf("%s: made by %d agents, none of whose programs runs before all memory is verified: --lazy is for one", gen, len(m.Agents))
	}
	if len(m.Agents) > 1 && r.agent == "" {
		return a.together(ctx, opts, gen, m.Agents, flagsFor(flags, "name", "generation", "detach", "json", "interval", "keep"))
	}
	opts.Join = r.join
	opts.PluginConfig = pluginConfig(opts.PluginConfig).with("file", map[string]any{
		"allow_changed_files": r.allowChanged, "allow_file_overwrite": r.allowOverwrite, "output": filepath.Join(named, outputLog)}).
		with("socket", map[string]any{"allow_missing_address": r.allowMissing})
	keepSIGPIPE()
	code, err := a.engine.Restart(ctx, core.RestartOptions{Options: opts, Generation: gen, Namespaces: r.namespaces,
		Ignore: r.ignore, Agent: r.agent, Lazy: r.lazy, AllowMissingFeatures: r.allowFeatures})
	return programEnd(code, err)
}

// goOnAs takes the settings that are not given from the image.
func (f *runFlags) goOnAs(opts *core.Options, s image.Settings, c *config) error {
	given := func(name string) bool { return f.set.Changed(name) || fromEnvironment(name) }
	if !given("interval") {
		opts.Interval = s.Interval
	}
	if !given("keep") {
		opts.Keep = max(s.Keep, 1)
	}
	if !given("compress") {
		opts.Compress = cmp.Or(s.Compress, opts.Compress)
	}
	if !given("incremental") {
		opts.Incremental = s.Incremental
	}
	if !given("direct") {
		opts.Direct = s.Direct
	}
	if !given("full-every") {
		opts.FullEvery = cmp.Or(s.FullEvery, opts.FullEvery)
	}
	for _, name := range lastingFlags() {
		value, ok := s.Flags[name]
		if !ok || given(name) {
			continue
		}
		if err := f.set.Lookup(name).Value.Set(value); err != nil {
			return fmt.Errorf("--%s: invalid value %q: %w", name, value, err)
		}
	}
	f.setLasting(opts, c)
	return nil
}

// imageName is the name of the computation whose images are in dir. Others may
// have renamed the folder, so it is made valid.
func imageName(dir string) string {
	if name := filepath.Base(dir); validName(name) == nil {
		return name
	}
	return defaultName(dir)
}

// resolveGeneration returns the folder of the generation that path names, as
// an absolute path.
func resolveGeneration(path string, generation uint64) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return image.Resolve(abs, generation)
}
