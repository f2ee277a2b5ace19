package main

import (
	"cmp"
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/plugin/wasm"
)

// pluginView is what `plugins` prints of one plugin.
type pluginView struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	State   uint16 `json:"state"`  // the state format that it writes
	Oldest  uint16 `json:"oldest"` // the oldest that it reads

	// Of an extension only.
	Path   string   `json:"path,omitempty"`
	Grants []string `json:"grants,omitempty"`
	Events []string `json:"events,omitempty"`
	Error  string   `json:"error,omitempty"` // why it cannot be loaded
}

func (a *app) pluginsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plugins",
		Short: "List the plugins, in order",
		Long: `List the plugins in the order in which they are asked, each with the format of
the state that it writes to images, and the oldest format that it reads; then the
extensions of the configuration files, with what they are granted.

` + helpExit,
		Example:           "  hiatus plugins\n  hiatus plugins --json | jq -r '.[].name'",
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, _ []string) error {
		views := make([]pluginView, 0, len(a.engine.Plugins))
		rows := make([][]string, 0, len(a.engine.Plugins))
		for _, d := range a.engine.Plugins {
			views = append(views, pluginView{Name: d.Name, Summary: d.Summary, State: d.State, Oldest: d.Oldest})
			rows = append(rows, []string{d.Name, strconv.Itoa(int(d.State)), strconv.Itoa(int(d.Oldest)), d.Summary})
		}
		for _, s := range a.config.extensions {
			v := a.viewExtension(ctx, s)
			views = append(views, v)
			about := printable(cmp.Or(v.Error, v.Summary))
			rows = append(rows, []string{v.Name, strconv.Itoa(int(v.State)), strconv.Itoa(int(v.Oldest)),
				about + " (" + printable(v.Path) + ", granted: " + cmp.Or(strings.Join(v.Grants, "+"), "nothing") + ")"})
		}
		if asJSON {
			return a.json(views)
		}
		return table(a.stdout, "PLUGIN STATE OLDEST SUMMARY", rows)
	})
	return cmd
}

// viewExtension loads an extension to see what it is.
func (a *app) viewExtension(ctx context.Context, s extensionSpec) pluginView {
	v := pluginView{Name: s.name, Path: s.path, Grants: s.grants}
	if s.path == "" {
		v.Error = "has no path: used where --with-plugin gives one"
		return v
	}
	cfg, err := s.config(a)
	if err == nil {
		var m *wasm.Module
		if m, err = wasm.Load(ctx, cfg); err == nil {
			defer m.Close(ctx)
			d := m.Definition()
			v.Summary, v.State, v.Oldest = d.Summary, d.State, d.Oldest
			for _, k := range m.Kinds {
				v.Events = append(v.Events, k.String())
			}
			return v
		}
	}
	v.Error = err.Error()
	return v
}
