package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
)

// followEvery is how often a log is looked at for more. A log may be on a file
// system that tells of no changes, as NFS.
const followEvery = 200 * time.Millisecond

// logsFlags are the flags of logs.
type logsFlags struct {
	plugins []string
	since   string
	follow  bool
	json    bool
}

func (a *app) logsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Show the log of a running computation",
		Long: `Show the log of a running computation that was launched or restarted with
--log-file, as a whole or what single plugins wrote; where several trees were
joined, the logs of all. NAME may be left out where one computation runs.

` + helpExit,
		Example:           "  hiatus logs sim --plugin file,core --since 10m\n  hiatus logs sim --follow --json | jq .message",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeName,
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.plugins, "plugin", nil, "lines of plugin or extension `P` only (\"core\" is the engine); may be repeated")
	completeList(cmd, "plugin", append([]string{coreLog}, pluginNames(a.engine.Plugins)...)...)
	fs.StringVar(&f.since, "since", "", "lines since `TIME`: a duration before now (10m), or as in RFC 3339")
	complete(cmd, "since", cobra.NoFileCompletions)
	fs.BoolVar(&f.follow, "follow", false, "wait for more, until the computation has ended")
	fs.BoolVar(&f.json, "json", false, "print the lines as they are: JSON")
	cmd.RunE = a.start(func(ctx context.Context, args []string) error { return a.logs(ctx, optional(args, ""), f) })
	return cmd
}

func (a *app) logs(ctx context.Context, name string, f logsFlags) error {
	since, err := parseSince(f.since, time.Now())
	if err != nil {
		return &usageError{err}
	}
	c, err := a.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	paths := logFiles(status.Agents)
	if len(paths) == 0 {
		return fmt.Errorf("%s has no log file: launch or restart it with --log-file", status.Name)
	}
	var out io.Writer = a.stdout
	if !f.json {
		out = zerolog.ConsoleWriter{Out: a.stdout, TimeFormat: "2006-01-02 15:04:05.000", NoColor: !isTerminal(a.stdout) || os.Getenv("NO_COLOR") != ""}
	}
	alive := func() bool {
		_, err := c.Status(ctx)
		return err == nil
	}
	filter := logFilter{f.plugins, since}
	out = zerolog.SyncWriter(out)
	following := make(chan error)
	for _, path := range paths {
		if f.follow {
			go func() { following <- copyLogFile(out, path, filter, true, alive) }()
		} else {
			err = errors.Join(err, copyLogFile(out, path, filter, false, nil))
		}
	}
	for range paths {
		if f.follow {
			err = errors.Join(err, <-following)
		}
	}
	return err
}

// logFiles are the files of all agents, each once.
func logFiles(agents []coord.AgentStatus) []string {
	var paths []string
	for _, agent := range agents {
		if agent.Log != "" && !slices.Contains(paths, agent.Log) {
			paths = append(paths, agent.Log)
		}
	}
	return paths
}

func copyLogFile(out io.Writer, path string, filter logFilter, follow bool, alive func() bool) error {
	log, err := os.Open(path)
	if err != nil {
		return err
	}
	defer log.Close()
	return copyLog(out, log, filter, follow, alive)
}

// parseSince reads a duration before now or a time; "" is the beginning.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("--since %q: want a duration (10m) or a time (2006-01-02T15:04:05Z)", s)
	}
	return t, nil
}

// logFilter says which lines are shown.
type logFilter struct {
	plugins []string // none: all
	since   time.Time
}

func (f logFilter) wants(line []byte) bool {
	var fields struct {
		Plugin string    `json:"plugin"`
		Time   time.Time `json:"time"`
	}
	if json.Unmarshal(line, &fields) != nil {
		return false // cut off where the disk was full
	}
	return (len(f.plugins) == 0 || slices.Contains(f.plugins, fields.Plugin)) && !fields.Time.Before(f.since)
}

// copyLog writes the lines that the filter wants. With follow it goes on while
// alive says so, and once more after that.
func copyLog(out io.Writer, log io.Reader, filter logFilter, follow bool, alive func() bool) error {
	lines := bufio.NewReader(log)
	var line []byte
	for last := false; ; {
		part, err := lines.ReadBytes('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			if line = bytes.TrimSpace(line); len(line) > 0 && filter.wants(line) {
				if _, err := out.Write(append(line, '\n')); err != nil {
					return err
				}
			}
			line = line[:0]
		case !errors.Is(err, io.EOF):
			return err
		case !follow || last:
			return nil
		default:
			last = !alive()
			if !last {
				time.Sleep(followEvery)
			}
		}
	}
}
