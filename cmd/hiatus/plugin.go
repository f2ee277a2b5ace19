package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/plugin/wasm"
	"github.com/hiatus-project/hiatus/sdk/abi"
	"github.com/hiatus-project/hiatus/sdk/c"
	"github.com/hiatus-project/hiatus/sdk/rust"
)

//go:embed templates
var templates embed.FS

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Make, look into and test an extension",
		Long: `Make, look into and test an extension: a plugin in WebAssembly, for
launch --with-plugin FILE.wasm. See docs/writing-an-extension.md.

` + helpExit,
		Example: "  hiatus plugin new --lang go mine\n  hiatus plugin inspect mine.wasm\n  hiatus plugin test mine.wasm,grant=mem.read",
		Args:    usageArgs(cobra.NoArgs),
	}
	cmd.AddCommand(a.pluginNewCommand(), a.pluginInspectCommand(), a.pluginTestCommand())
	return cmd
}

func (a *app) pluginNewCommand() *cobra.Command {
	lang, sdk := "go", ""
	cmd := &cobra.Command{
		Use:               "new NAME",
		Short:             "Write the folder of a new extension",
		Long:              "Write the folder NAME with an extension that does a little: source, README, Makefile\nand, in Go, a test.\n\n" + helpExit,
		Example:           "  hiatus plugin new --lang c mine && make -C mine test",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().Var(choice{&lang, []string{"go", "c", "rust"}}, "lang", "language")
	completeChoice(cmd, "lang", "go", "c", "rust")
	cmd.Flags().StringVar(&sdk, "sdk", "", "with --lang go: take the kit from the source tree of Hiatus in `DIR`")
	completeDir(cmd, "sdk")
	cmd.RunE = a.start(func(_ context.Context, args []string) error { return a.newPlugin(args[0], lang, sdk) })
	return cmd
}

func (a *app) newPlugin(dir, lang, sdk string) error {
	name := filepath.Base(dir)
	if err := wasm.CheckName(name); err != nil {
		return &usageError{err}
	}
	files := map[string]string{}
	for _, root := range []string{"templates", "templates/" + lang} {
		entries, err := fs.ReadDir(templates, root)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			text, err := fs.ReadFile(templates, root+"/"+e.Name())
			if err != nil {
				return err
			}
			fill := strings.NewReplacer("NAME", name, "VERSION", moduleVersion())
			files[fill.Replace(strings.TrimSuffix(e.Name(), ".tmpl"))] = fill.Replace(string(text))
		}
	}
	switch lang {
	case "c":
		files["hiatus_plugin.h"] = c.Header()
	case "rust":
		files["hiatus.rs"] = rust.Library()
	case "go":
		if sdk != "" {
			abs, err := filepath.Abs(sdk)
			if err != nil {
				return err
			}
			files["go.mod"] += "\nreplace github.com/hiatus-project/hiatus => " + abs + "\n"
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o666); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stdout, "%s: an extension in %s; next: make -C %s test\n", dir, map[string]string{"go": "Go", "c": "C", "rust": "Rust"}[lang], dir)
	return nil
}

// moduleVersion is the version of this binary as go.mod wants it.
func moduleVersion() string {
	if v := version(); strings.HasPrefix(v, "v") && !strings.ContainsAny(v, " +") {
		return v
	}
	return "v0.0.0"
}

func (a *app) pluginInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "inspect FILE.wasm",
		Short:   "Show what an extension is and asks for",
		Long:    "Show what an extension is and asks for, without running it.\n\n" + helpExit,
		Example: "  hiatus plugin inspect mine.wasm --json | jq .capabilities",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		info, err := wasm.Inspect(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return a.json(info)
		}
		return pairs(a.stdout, [][2]string{
			{"abi", strconv.Itoa(info.ABI)},
			{"size", size(info.Size)},
			{"sha256", info.SHA256},
			{"memory", size(int64(info.MinMemory)) + " at first"},
			{"capabilities", cmp.Or(strings.Join(info.Capabilities, ", "), "none")},
			{"imports", printable(strings.Join(info.Imports, ", "))},
			{"exports", printable(strings.Join(info.Exports, ", "))},
		})
	})
	return cmd
}

func (a *app) pluginTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test FILE.wasm[,OPTION=VALUE...]",
		Short: "Run an extension through every event",
		Long: `Run an extension through every event of a made-up computation of two processes:
a launch, a checkpoint that is committed, one that is given up, a check, a restart
from the state that it saved, and the end. Options are those of --with-plugin. Where
none grants anything, all capabilities that it asks for are granted; programs and
hosts must be named.

` + helpExit,
		Example: "  hiatus plugin test mine.wasm\n  hiatus plugin test notify.wasm,grant=http:localhost:8080,set=url=http://localhost:8080",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	cmd.RunE = a.start(func(ctx context.Context, args []string) error { return a.testPlugin(ctx, args[0]) })
	return cmd
}

func (a *app) testPlugin(ctx context.Context, arg string) error {
	names, specs, err := splitWithPlugin([]string{arg})
	if err != nil {
		return err
	}
	if len(names) > 0 || len(specs) != 1 {
		return usagef("%s: wants one extension, FILE.wasm", arg)
	}
	s := specs[0]
	if len(s.grants) == 0 {
		info, err := wasm.Inspect(ctx, s.path)
		if err != nil {
			return err
		}
		for _, name := range info.Capabilities {
			s.grants = append(s.grants, map[string]string{abi.Exec: "exec:/nothing/is/granted", abi.HTTP: "http:nothing.invalid"}[name])
			if g := &s.grants[len(s.grants)-1]; *g == "" {
				*g = name
			}
		}
	}
	cfg, err := s.config(a)
	if err != nil {
		return err
	}
	m, err := wasm.Load(ctx, cfg)
	if err != nil {
		return err
	}
	defer m.Close(ctx)
	steps, err := wasm.Exercise(ctx, m)
	rows := make([][]string, 0, len(steps))
	for _, step := range steps {
		result := "ok"
		switch {
		case step.Err != nil:
			result = "FAILED: " + printable(step.Err.Error())
		case !step.Wanted:
			result = "not wanted"
		}
		rows = append(rows, []string{step.Sequence, step.Event, duration(step.Took), result})
		for line := range bytes.Lines(step.Log) {
			rows = append(rows, []string{"", "", "", "  " + printable(strings.TrimSpace(string(line)))})
		}
	}
	if terr := table(a.stdout, "SEQUENCE EVENT TOOK RESULT", rows); terr != nil {
		return terr
	}
	if errors.Is(err, wasm.ErrExercise) {
		return exitCode(exitFailure)
	}
	return err
}
