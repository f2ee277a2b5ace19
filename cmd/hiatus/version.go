package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionView is what `version --json` prints.
type versionView struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, where the build knows it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Long:              "Print the version of hiatus.\n\n" + helpExit,
		Example:           "  hiatus version --json",
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(*cobra.Command, []string) error {
		a.started = true // without a.start: the version needs no configuration
		v := versionView{version(), revision(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		if asJSON {
			return a.json(v)
		}
		_, err := fmt.Fprintf(a.stdout, "hiatus %s (%s, %s)\n", v.Version, v.Go, v.Platform)
		return err
	}
	return cmd
}

// version is the module's, as the build recorded it: a tag with `go install
// module@version`, "(devel)" from a work tree.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// revision is the commit, where the build recorded it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
