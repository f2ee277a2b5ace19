package main

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/plugin"
)

// engine is what the commands ask of the rest of Hiatus. Tests have their own.
type engine struct {
	Launch  func(context.Context, core.LaunchOptions) (code int, err error)
	Restart func(context.Context, core.RestartOptions) (code int, err error)
	// Together opens the coordinator of a restart of several agents.
	Together func(ctx context.Context, o core.Options, generation string) (name string, end func() error, err error)
	Dial     func(ctx context.Context, name string) (client, error)
	Running  func(context.Context) ([]coord.Status, error)
	Plugins  []plugin.Definition
}

// client is a command's connection to a running computation.
type client interface {
	Checkpoint(context.Context, coord.CheckpointRequest, func(coord.Progress)) (coord.CheckpointResult, error)
	Status(context.Context) (coord.Status, error)
	Check(context.Context) ([]coord.Refusal, error)
	Kill(context.Context, syscall.Signal) error
	Ended(context.Context) error
	SetInterval(context.Context, time.Duration) error
	Close() error
}

// dial connects to the computation name.
func dial(ctx context.Context, name string) (client, error) {
	c, err := coord.Dial(ctx, name)
	if err != nil {
		return nil, err // not c: a nil pointer is no nil interface
	}
	return c, nil
}

// connect connects to the computation name, or to the only one that runs
// where name is "".
func (a *app) connect(ctx context.Context, name string) (client, error) {
	if name != "" {
		if err := validName(name); err != nil {
			return nil, &usageError{err}
		}
	}
	return a.engine.Dial(ctx, name)
}

func names(all []coord.Status) []string {
	list := make([]string, 0, len(all))
	for _, s := range all {
		list = append(list, s.Name)
	}
	slices.Sort(list)
	return list
}

// usageArgs makes the errors of an argument check usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// optional returns the first argument, or byDefault where there is none.
func optional(args []string, byDefault string) string {
	if len(args) == 0 {
		return byDefault
	}
	return args[0]
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON (times in nanoseconds, sizes in bytes)")
}
