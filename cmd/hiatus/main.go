// Command hiatus stops a running computation, keeps it on disk and starts it
// again later, as an ordinary user.
//
// `hiatus --help` describes the commands. Options come from flags, over
// HIATUS_* variables, over ./hiatus.yaml, over
// $XDG_CONFIG_HOME/hiatus/config.yaml.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/internal/helper"
	"github.com/hiatus-project/hiatus/plugins"
)

// stubCommand is reserved: the engine executes this binary as `hiatus __stub`
// and takes the process over at the stop of execve(2). Code of ours runs in it
// only if that failed.
const stubCommand = "__stub"

// These are reserved as well: the server that runs programs for extensions,
// see internal/helper.
const (
	helperCommand = "__helper"
	helperServer  = helperCommand + "-server"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == stubCommand {
		os.Exit(exitOwn)
	}
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], helperCommand) {
		if err := helper.Main([]string{helperServer}, os.Args[1] == helperServer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitOwn)
		}
		os.Exit(exitOK)
	}
	os.Exit(run(engine{
		Launch:   core.Launch,
		Restart:  core.Restart,
		Together: core.Together,
		Dial:     dial,
		Running:  coord.ListRunning,
		Plugins:  plugins.Standard(),
	}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole command; it returns the exit code.
func run(e engine, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	a := &app{engine: e, args: args, stdin: stdin, stdout: stdout, stderr: stderr, ready: takeReadiness()}
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	return a.finish(cmd, err)
}

// app is one run of the command.
type app struct {
	engine  engine
	args    []string // behind the command's own name
	stdin   *os.File
	stdout  io.Writer
	stderr  io.Writer
	config  *config
	ready   *readiness // to the command that detached this one, or nil
	started bool       // a command's own code runs: the command line was understood
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "hiatus",
		Short: "Stop a running computation, keep it on disk, start it again later",
		Long: `Hiatus stops a running computation, keeps it on disk and starts it again
later, as an ordinary user. Programs need no change and no recompilation.

Options may also be given by HIATUS_* variables (HIATUS_CKPTDIR for --ckptdir),
in ./hiatus.yaml and in $XDG_CONFIG_HOME/hiatus/config.yaml (~/.config/hiatus/
config.yaml); each of these stands over those behind it, and flags stand over
all. Plugins are configured in the files, under "plugins".`,
		Example: `  hiatus launch --name sim --ckptdir /scratch/ckpt ./simulate input.dat
  hiatus checkpoint sim --kill
  hiatus restart /scratch/ckpt`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("hiatus {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		a.launchCommand(), a.checkpointCommand(), a.restartCommand(),
		a.listCommand(), a.statusCommand(), a.killCommand(), a.intervalCommand(), a.checkCommand(),
		a.inspectCommand(), a.verifyCommand(),
		a.logsCommand(), a.pluginsCommand(), a.pluginCommand(), a.versionCommand(),
	)
	return root
}

// start wraps the code of a command: it reads the configuration first, and
// tells errors of the command line from those of the command.
func (a *app) start(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		c, err := loadConfig(a.engine.Plugins)
		if err != nil {
			return &configError{err}
		}
		if err := c.apply(cmd.Flags()); err != nil {
			return &configError{err}
		}
		a.config = c
		return fn(cmd.Context(), args)
	}
}

// finish reports err and returns the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	usage := !a.started || isA[*usageError](err)
	if a.ready == nil || !a.ready.fail(err) {
		a.report(err)
		if usage {
			a.hint(cmd)
		}
	}
	if e, ok := errors.AsType[*core.Interrupted](err); ok {
		return 128 + int(e.Signal)
	}
	switch {
	case cmd.Name() == "launch" || cmd.Name() == "restart":
		return exitOwn
	case usage || isA[*configError](err):
		return exitUsage
	default:
		return exitFailure
	}
}
