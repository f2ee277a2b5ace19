package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// checkpointFlags are the flags of checkpoint.
type checkpointFlags struct {
	kill          bool
	openFiles     bool
	noSnapshot    bool
	selfContained bool
	timeout       time.Duration
	json          bool
}

func (a *app) checkpointCommand() *cobra.Command {
	var f checkpointFlags
	cmd := &cobra.Command{
		Use:   "checkpoint [NAME]",
		Short: "Checkpoint a running computation",
		Long: `Checkpoint a running computation, and return when the generation is committed:
it is whole on the disk. Prints its folder, its size, the pause for which the
program stood still, and the time from the request to the commit. NAME may be left
out where one computation runs.

What cannot be kept is refused: each object is named with process, descriptor and
reason, nothing is written, and the program runs on.

` + helpExit,
		Example:           "  hiatus checkpoint\n  hiatus checkpoint sim --kill\n  hiatus checkpoint sim --timeout 10m --json | jq -r .path",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&f.kill, "kill", false, "end the computation once the generation is committed, and wait for its end")
	cmd.Flags().BoolVar(&f.openFiles, "ckpt-open-files", false, "save the content of open files in the image")
	cmd.Flags().BoolVar(&f.noSnapshot, "no-snapshot", false, "write the memory while the program stands still, also where it has much")
	cmd.Flags().BoolVar(&f.selfContained, "self-contained", false, "save the programs, libraries and other mapped files in the image")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "give up after `DUR`; 0: after the coordinator's own limit, 1h")
	complete(cmd, "timeout", cobra.NoFileCompletions)
	jsonFlag(cmd, &f.json)
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		return a.checkpoint(ctx, optional(args, ""), f)
	})
	return cmd
}

func (a *app) checkpoint(ctx context.Context, name string, f checkpointFlags) error {
	if f.timeout < 0 {
		return usagef("--timeout %s: must not be negative", f.timeout)
	}
	c, err := a.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := faultpoint.At(faultpoint.CommandConnected); err != nil {
		return err
	}
	bar := newProgress(a.stderr)
	result, err := c.Checkpoint(ctx, coord.CheckpointRequest{Kill: f.kill, OpenFiles: f.openFiles, NoSnapshot: f.noSnapshot,
		SelfContained: f.selfContained, Timeout: f.timeout},
		func(p coord.Progress) { bar.show("writing", p.Done, p.Total) })
	bar.end()
	_ = faultpoint.At(faultpoint.CommandAnswered)
	if err != nil {
		return a.refused(ctx, c, err, f.json)
	}
	if err := a.committed(result, f.json); err != nil || !f.kill {
		return err
	}
	if err := c.Ended(ctx); err != nil {
		return fmt.Errorf("the generation is committed, but the computation has not ended: %w", err)
	}
	return nil
}

// committed writes what came of a checkpoint.
func (a *app) committed(result coord.CheckpointResult, asJSON bool) error {
	if asJSON {
		return a.json(result)
	}
	if result.InPause != "" {
		fmt.Fprintf(a.stderr, "hiatus: written while the program stood still: %s\n", printable(result.InPause))
	}
	return pairs(a.stdout, [][2]string{
		{"path", printable(result.Path)},
		{"generation", strconv.FormatUint(result.Generation, 10)},
		{"size", sizes(result.Bytes, result.RawBytes)},
		{"pause", duration(result.Pause)},
		{"time", duration(result.Total)},
		{"tree", treeSize(result.Processes, result.Threads)},
	})
}

// sizes writes what was written and, where it differs, what it was before
// compression.
func sizes(written, raw int64) string {
	if raw <= written {
		return size(written)
	}
	return fmt.Sprintf("%s, of %s", size(written), size(raw))
}

// refused reports a refusal, object by object, and returns any other error.
// The coordinator tells of the first object that was refused; a check tells
// of all.
func (a *app) refused(ctx context.Context, c client, err error, asJSON bool) error {
	list := refusals(err)
	if len(list) == 0 {
		return err
	}
	if found, cerr := c.Check(ctx); cerr == nil {
		list = refusedLater(list, found)
	}
	if asJSON {
		if err := a.json(struct {
			Error    string          `json:"error"`
			Refusals []coord.Refusal `json:"refusals"`
		}{err.Error(), list}); err != nil {
			return err
		}
	}
	fmt.Fprintln(a.stderr, "hiatus: checkpoint refused; the program runs on")
	printRefusals(a.stderr, list)
	return exitCode(exitFailure)
}

// refusedLater joins what a checkpoint refused with what a check has found since. The
// program has run on meanwhile: of an object that both name only the later reason counts,
// for the figures in it may be others.
func refusedLater(first, found []coord.Refusal) []coord.Refusal {
	gone := slices.DeleteFunc(slices.Clone(first), func(r coord.Refusal) bool {
		return slices.ContainsFunc(found, func(f coord.Refusal) bool {
			return f.PID == r.PID && f.FD == r.FD && f.Object == r.Object
		})
	})
	return append(gone, found...)
}
