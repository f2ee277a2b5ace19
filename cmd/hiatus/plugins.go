package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
)

// pluginView is what `plugins` prints of one plugin.
type pluginView struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	State   uint16 `json:"state"`  // the state format that it writes
	Oldest  uint16 `json:"oldest"` // the oldest that it reads
}

func (a *app) pluginsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plugins",
		Short: "List the plugins, in order",
		Long: `List the plugins in the order in which they are asked, each with the format of
the state that it writes to images, and the oldest format that it reads.

` + helpExit,
		Example:           "  hiatus plugins\n  hiatus plugins --json | jq -r '.[].name'",
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(context.Context, []string) error {
		views := make([]pluginView, 0, len(a.engine.Plugins))
		rows := make([][]string, 0, len(a.engine.Plugins))
		for _, d := range a.engine.Plugins {
			views = append(views, pluginView{d.Name, d.Summary, d.State, d.Oldest})
			rows = append(rows, []string{d.Name, strconv.Itoa(int(d.State)), strconv.Itoa(int(d.Oldest)), d.Summary})
		}
		if asJSON {
			return a.json(views)
		}
		return table(a.stdout, "PLUGIN STATE OLDEST SUMMARY", rows)
	})
	return cmd
}
