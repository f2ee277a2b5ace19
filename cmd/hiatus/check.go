package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
)

func (a *app) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [NAME]",
		Short: "Say what could not be checkpointed now",
		Long: `Say what of a running computation could not be checkpointed now: process,
descriptor, object and reason, one a line. It changes nothing. NAME may be left
out where one computation runs.

Exit code: 0 nothing stands in the way; 1 something does, or check failed; 2 wrong
usage or configuration.`,
		Example:           "  hiatus check sim && hiatus checkpoint sim",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeName,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		return a.check(ctx, optional(args, ""), asJSON)
	})
	return cmd
}

func (a *app) check(ctx context.Context, name string, asJSON bool) error {
	c, err := a.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	found, err := c.Check(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		if found == nil {
			found = []coord.Refusal{}
		}
		if err := a.json(found); err != nil {
			return err
		}
	} else {
		printRefusals(a.stdout, found)
	}
	if len(found) > 0 {
		return exitCode(exitFailure)
	}
	return nil
}

// printRefusals writes pid, fd, object and reason of each on a line.
func printRefusals(w io.Writer, list []coord.Refusal) {
	for i := range list {
		perhaps := ""
		if list[i].Passing {
			perhaps = " (only for a moment, perhaps)"
		}
		fmt.Fprintln(w, printable(list[i].Error())+perhaps)
	}
}
