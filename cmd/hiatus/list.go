package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
)

func (a *app) listCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the running computations",
		Long:              "List your running computations on this host.\n\n" + helpExit,
		Example:           "  hiatus list\n  hiatus list --json | jq -r '.[].name'",
		Aliases:           []string{"ls"},
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, _ []string) error { return a.list(ctx, asJSON) })
	return cmd
}

func (a *app) list(ctx context.Context, asJSON bool) error {
	all, err := a.engine.Running(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		if all == nil {
			all = []coord.Status{}
		}
		return a.json(all)
	}
	if len(all) == 0 {
		fmt.Fprintln(a.stderr, "no computation is running")
		return nil
	}
	rows := make([][]string, 0, len(all))
	for _, s := range all {
		processes, _ := count(s)
		rows = append(rows, []string{
			s.Name, s.State, strconv.Itoa(processes), generation(s.Generation), interval(s.Interval),
			printable(s.Dir), rootCommand(s),
		})
	}
	return table(a.stdout, "NAME STATE PROCESSES GENERATION INTERVAL DIR COMMAND", rows)
}

// count returns how many processes and threads the computation has.
func count(s coord.Status) (processes, threads int) {
	for _, agent := range s.Agents {
		processes += len(agent.Processes)
		for _, p := range agent.Processes {
			threads += p.Threads
		}
	}
	return processes, threads
}

// rootCommand is the command line of the first process.
func rootCommand(s coord.Status) string {
	for _, agent := range s.Agents {
		if len(agent.Processes) > 0 {
			return printable(agent.Processes[0].Command)
		}
	}
	return "-"
}

// generation writes the number of a generation, which 0 is not.
func generation(n uint64) string {
	if n == 0 {
		return "none"
	}
	return strconv.FormatUint(n, 10)
}
