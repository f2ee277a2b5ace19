package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/image"
)

func (a *app) inspectCommand() *cobra.Command {
	var asJSON bool
	var generation uint64
	cmd := &cobra.Command{
		Use:   "inspect PATH",
		Short: "Describe an image on disk",
		Long: `Describe a generation: what was kept of which processes, by which plugins, and
how large it is. PATH is a --ckptdir (the newest generation in it), the folder of a
generation, or its manifest.json. With --json, all that the image says is printed,
but for the content of memory.

` + helpExit,
		Example: "  hiatus inspect /scratch/ckpt\n  hiatus inspect /scratch/ckpt/sim/00003 --json | jq .manifest.command",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	generationFlag(cmd, &generation, "describe generation `N` (default: the newest)")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(_ context.Context, args []string) error {
		path, err := image.Resolve(args[0], generation)
		if err != nil {
			return err
		}
		report, err := image.Inspect(path)
		if err != nil {
			return err
		}
		if asJSON {
			return a.json(report)
		}
		return printReport(a.stdout, report)
	})
	return cmd
}

func printReport(w io.Writer, r *image.Report) error {
	m := r.Manifest
	list := [][2]string{
		{"path", printable(r.Path)},
		{"name", printable(m.Name)},
		{"computation", printable(m.Computation)},
		{"generation", strconv.FormatUint(m.Generation, 10)},
		{"created", m.Created.Local().Format("2006-01-02 15:04:05")},
		{"command", printable(strings.Join(m.Command, " "))},
		{"directory", printable(m.Cwd)},
		{"system", printable(fmt.Sprintf("%s, Linux %s, hiatus %s", m.Arch, m.Kernel, m.Hiatus))},
	}
	for _, agent := range m.Agents {
		list = append(list, [2]string{"agent", printable(fmt.Sprintf("%s on %s: %s, %s, pause %s",
			agent.ID, agent.Host, treeSize(agent.Processes, agent.Threads), size(agent.Bytes), duration(agent.Pause)))})
	}
	if err := pairs(w, list); err != nil {
		return err
	}
	for i := range r.Agents {
		if err := printAgent(w, &r.Agents[i]); err != nil {
			return err
		}
	}
	return nil
}

func printAgent(w io.Writer, agent *image.AgentReport) error {
	rows := make([][]string, 0, len(agent.Sections))
	for _, s := range agent.Sections {
		rows = append(rows, []string{printable(s.Name), strconv.Itoa(int(s.Version)), size(s.Size)})
	}
	fmt.Fprintln(w)
	if err := table(w, "SECTION VERSION SIZE", rows); err != nil {
		return err
	}
	rows = make([][]string, 0, len(agent.Spaces)+1)
	for _, s := range agent.Spaces {
		rows = append(rows, spaceRow(strconv.FormatUint(uint64(s.Space), 10), s.SpaceStats))
	}
	rows = append(rows, spaceRow("all", agent.Memory))
	fmt.Fprintln(w)
	if err := table(w, "MEMORY EXTENTS COMPRESSED SIZE STORED INHERITED", rows); err != nil {
		return err
	}
	if err := printCodecs(w, agent.Codecs); err != nil || len(agent.Chain) < 2 {
		return err
	}
	rows = make([][]string, 0, len(agent.Chain))
	for _, c := range agent.Chain {
		rows = append(rows, []string{strconv.FormatUint(c.Generation, 10), size(c.Bytes), size(c.Stored)})
	}
	fmt.Fprintln(w)
	return table(w, "CHAIN MEMORY STORED", rows)
}

func printCodecs(w io.Writer, codecs []image.CodecStats) error {
	rows := make([][]string, 0, len(codecs))
	for _, c := range codecs {
		rows = append(rows, []string{c.Codec, strconv.Itoa(c.Extents), size(c.Bytes), size(c.Stored)})
	}
	fmt.Fprintln(w)
	return table(w, "CODEC EXTENTS SIZE STORED", rows)
}

func spaceRow(name string, s image.SpaceStats) []string {
	return []string{name, strconv.Itoa(s.Extents), strconv.Itoa(s.Compressed), size(s.Bytes), size(s.Stored), size(s.Inherited)}
}
