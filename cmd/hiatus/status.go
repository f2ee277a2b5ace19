package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Describe a running computation",
		Long: `Describe a running computation: its generations, the last checkpoint with the
time that each plugin took, its plugins and its processes. PID is a process's id
as the program sees it, HOST PID the one that ps shows; after a restart they
differ. NAME may be left out where one computation runs.

` + helpExit,
		Example:           "  hiatus status\n  hiatus status sim --json | jq .generations",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeName,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		return a.status(ctx, optional(args, ""), asJSON)
	})
	return cmd
}

func (a *app) status(ctx context.Context, name string, asJSON bool) error {
	c, err := a.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return a.json(s)
	}
	return a.printStatus(s)
}

func (a *app) printStatus(s coord.Status) error {
	processes, threads := count(s)
	list := [][2]string{
		{"name", s.Name},
		{"state", fmt.Sprintf("%s, since %s", s.State, s.Started.Local().Format("2006-01-02 15:04:05"))},
		{"directory", printable(s.Dir)},
		{"generations", generations(s.Generations)},
		{"interval", interval(s.Interval)},
		{"last checkpoint", lastCheckpoint(s)},
		{"tree", treeSize(processes, threads)},
	}
	for _, agent := range s.Agents {
		list = append(list,
			[2]string{"agent", fmt.Sprintf("%s on %s, pid %d", agent.ID, agent.Host, agent.PID)},
			[2]string{"plugins", strings.Join(agent.Plugins, ", ")})
		if m := agent.Arriving; m != nil {
			list = append(list, [2]string{"memory", fmt.Sprintf("still arriving: %s of %s", size(m.Done), size(m.Total))})
		}
		if agent.Error != "" {
			list = append(list, [2]string{"no answer", printable(agent.Error)})
		}
	}
	if err := pairs(a.stdout, list); err != nil {
		return err
	}
	if rows := timingRows(s.LastTimings); len(rows) > 0 {
		fmt.Fprintln(a.stdout)
		if err := table(a.stdout, "PLUGIN TIME PHASES", rows); err != nil {
			return err
		}
	}
	if processes == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	if len(s.Agents) > 1 {
		return table(a.stdout, "AGENT PID PPID HOST_PID THREADS STATE COMMAND", processRows(s, true))
	}
	return table(a.stdout, "PID PPID HOST_PID THREADS STATE COMMAND", processRows(s, false))
}

// processRows has a row for each process. The process ids of two agents may be
// the same after a restart.
func processRows(s coord.Status, withAgent bool) [][]string {
	var rows [][]string
	for _, agent := range s.Agents {
		for _, p := range agent.Processes {
			row := []string{
				strconv.Itoa(p.PID), strconv.Itoa(p.PPID), strconv.Itoa(p.HostPID), strconv.Itoa(p.Threads),
				p.State, printable(p.Command),
			}
			if withAgent {
				row = append([]string{agent.ID}, row...)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// timingRows has a row for each plugin, and the engine: what it took, and of
// that its longest phases first. What took less than a microsecond is left out.
func timingRows(timings []coord.Timing) [][]string {
	var names []string
	sums, phases := map[string]time.Duration{}, map[string][]coord.Timing{}
	for _, t := range timings {
		if !slices.Contains(names, t.Plugin) {
			names = append(names, t.Plugin)
		}
		sums[t.Plugin] += t.Took
		if t.Took >= time.Microsecond {
			phases[t.Plugin] = append(phases[t.Plugin], t)
		}
	}
	var rows [][]string
	for _, name := range names {
		slices.SortStableFunc(phases[name], func(a, b coord.Timing) int { return cmp.Compare(b.Took, a.Took) })
		var words []string
		for _, t := range phases[name] {
			words = append(words, printable(t.Phase)+" "+duration(t.Took))
		}
		rows = append(rows, []string{printable(name), duration(sums[name]), strings.Join(words, ", ")})
	}
	return rows
}

func generations(list []uint64) string {
	if len(list) == 0 {
		return "none"
	}
	words := make([]string, 0, len(list))
	for _, n := range list {
		words = append(words, strconv.FormatUint(n, 10))
	}
	return strings.Join(words, ", ")
}

// lastCheckpoint describes the last one that was tried.
func lastCheckpoint(s coord.Status) string {
	switch {
	case s.LastTime.IsZero():
		return "none"
	case s.LastError != "":
		return fmt.Sprintf("%s, failed: %s", humanize.Time(s.LastTime), printable(strings.ReplaceAll(s.LastError, "\n", "; ")))
	default:
		return fmt.Sprintf("%s: %s, pause %s, time %s", humanize.Time(s.LastTime), size(s.LastBytes), duration(s.LastPause), duration(s.LastTotal))
	}
}
