package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core"
)

// launchFlags are the flags of launch only.
type launchFlags struct {
	ckptdir  string
	join     string // a running computation
	userns   bool
	closeFDs bool
}

func (a *app) launchCommand() *cobra.Command {
	var f runFlags
	var l launchFlags
	cmd := &cobra.Command{
		Use:   "launch [flags] [--] CMD [ARG...]",
		Short: "Run a command so that it can be checkpointed",
		Long: `Run CMD, with all processes that come of it, so that it can be checkpointed.

Hiatus stays in front as if CMD ran alone: signals, the terminal and job control
reach CMD, and hiatus ends when the last process of the tree has ended. Flags end
at the first word that is not one.

Images go to DIR/NAME/GENERATION, where DIR is --ckptdir. NAME is --name, or comes
from CMD, with a number where a running computation has that name, or DIR/NAME is
no folder of the user's, as with a CMD in DIR itself.

With --detach, hiatus returns as soon as CMD runs. CMD then has no terminal:
where stdout or stderr was one, it is DIR/NAME/output.log; where stdin was one,
it is /dev/null. What is not a terminal stays as it is. With --json stdout has the
report alone: what CMD writes there, or to a stderr that is a pipe, goes to that
file.

The kernel lets an ordinary user trace no program that is not dumpable, prctl(2), as
ssh-agent, or one whose file the user may not read: a checkpoint of it is refused.
With --userns CMD runs in a user namespace, user_namespaces(7), in which it may be
traced. There setuid programs as sudo gain nothing, and the files of others belong
to nobody. Root needs no --userns: it has no effect then.

With --join NAME, CMD becomes part of the computation that runs under NAME: all
its trees are checkpointed together, into one image, and restarted together. The
hiatus commands see one computation. The directory, --interval and --keep are
those of the first launch. A checkpoint that one tree refuses is given up for all.

CMD inherits the descriptors of this command. A pipe or socket above 2 whose other
end is not in the tree, as batch systems and build tools leave behind, is refused
by every checkpoint: --close-fds closes all above 2.

` + helpRun,
		Example: `  hiatus launch ./simulate input.dat
  hiatus launch --name sim --ckptdir /scratch/ckpt --interval 1h -- ./simulate -v input.dat
  hiatus launch --detach --name build make -j8
  hiatus launch --debug-logs file,socket=trace --log-file hiatus.log python3 train.py`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
	}
	f.register(a, cmd, "from CMD")
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&l.ckptdir, "ckptdir", ".", "keep images in `DIR`")
	completeDir(cmd, "ckptdir")
	cmd.Flags().BoolVar(&l.closeFDs, "close-fds", false, "close all descriptors above 2 that this command has inherited")
	cmd.Flags().BoolVar(&l.userns, "userns", false, "run CMD in a user namespace, so that programs that are not dumpable can be checkpointed")
	cmd.Flags().StringVar(&l.join, "join", "", "make CMD part of the running computation `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("join", func(cmd *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeName(cmd, nil, word)
	})
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		for _, other := range []string{"name", "ckptdir", "interval", "keep"} {
			if l.join != "" && cmd.Flags().Changed(other) {
				return usagef("--%s does not go with --join: the computation has its own", other)
			}
		}
		return a.launch(ctx, &f, l, args)
	})
	return cmd
}

func (a *app) launch(ctx context.Context, f *runFlags, l launchFlags, args []string) (err error) {
	if err := l.checkPaths(); err != nil {
		return err
	}
	opts, done, err := f.options(ctx, a)
	if err != nil {
		return err
	}
	defer closeLog(done, &err)
	if err := findCommand(args[0]); err != nil {
		return err
	}
	if l.join != "" {
		err = a.joined(ctx, &opts, l.join)
	} else if opts.Name, opts.UniqueName, err = computationName(f.name, defaultName(args[0])); err == nil {
		opts.Dir, err = imageDir(l.ckptdir)
	}
	if err != nil {
		return err
	}
	if l.closeFDs {
		if err := closeInherited(); err != nil {
			return err
		}
	}
	if f.detach && a.ready == nil {
		return a.detach(ctx, opts, f.json)
	}
	keepSIGPIPE()
	code, err := a.engine.Launch(ctx, core.LaunchOptions{Options: opts, Args: args, Env: os.Environ(), UserNamespace: l.userns})
	return programEnd(code, err)
}

// checkPaths refuses what no image could hold, before anything is made.
func (l launchFlags) checkPaths() error {
	// CMD runs here, also where the images are elsewhere: restart would not find
	// it. It is the kernel's path that counts, not $PWD.
	if cwd, err := unix.Getwd(); err == nil && !utf8.ValidString(cwd) {
		return notUTF8("working directory", cwd)
	}
	if l.join != "" {
		return nil // the computation has its directory
	}
	return checkUTF8("ckptdir", l.ckptdir)
}

// joined takes what the running computation name has.
func (a *app) joined(ctx context.Context, opts *core.Options, name string) error {
	c, err := a.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	opts.Join, opts.Name, opts.Dir = true, s.Name, filepath.Dir(s.Dir)
	return nil
}

// closeInherited closes the descriptors above 2 that are not this command's
// own: those would be closed by execve(2), as the Go runtime opens them, and
// inherited ones never are.
func closeInherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("--close-fds: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// computationName returns the name and whether a suffix may make it unique.
func computationName(given, byDefault string) (name string, unique bool, err error) {
	if given == "" {
		return byDefault, true, nil
	}
	if err := validName(given); err != nil {
		return "", false, &usageError{err}
	}
	return given, false, nil
}

// programEnd turns what the core returns into what the command returns.
func programEnd(code int, err error) error {
	if err != nil || code == 0 {
		return err
	}
	return exitCode(code)
}

// closeLog closes the log file; its error counts where there is no other.
func closeLog(done func() error, err *error) {
	if cerr := done(); *err == nil {
		*err = cerr
	}
}
