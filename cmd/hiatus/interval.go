package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) intervalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "interval NAME DUR",
		Short: "Set the time between checkpoints",
		Long: `Set the time between the checkpoints that a running computation takes by itself.
DUR is as 90s, 10m or 1h30m; 0 turns them off.

` + helpExit,
		Example:           "  hiatus interval sim 30m\n  hiatus interval sim 0",
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeName,
	}
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return usagef("DUR %q: must be as 90s, 10m or 1h30m", args[1])
		}
		if d < 0 {
			return usagef("DUR %s: must not be negative", args[1])
		}
		c, err := a.connect(ctx, args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		return c.SetInterval(ctx, d)
	})
	return cmd
}
