package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hiatus-project/hiatus/core"
	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/plugin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hiatus": func() { os.Exit(run(fakeEngine(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/xdg")
			env.Setenv("XDG_RUNTIME_DIR", env.WorkDir+"/run")
			env.Setenv("NOBODY", "65534")
			return os.Mkdir(env.WorkDir+"/run", 0o700)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"isjson": isJSON,
		},
	})
}

// isJSON fails unless the file is exactly one JSON value.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: isjson file")
	}
	if !json.Valid([]byte(ts.ReadFile(args[0]))) {
		ts.Fatalf("%s is not one JSON value", args[0])
	}
}

// fakeEngine prints the options that it gets, and runs nothing.
func fakeEngine() engine {
	return engine{
		Launch: func(_ context.Context, o core.LaunchOptions) (int, error) {
			if err := describe(o.Options, "args", o.Args); err != nil {
				return 0, err
			}
			return fakeEnd(o.Options)
		},
		Restart: func(_ context.Context, o core.RestartOptions) (int, error) {
			if err := describe(o.Options, "generation", o.Generation, "namespaces", o.Namespaces); err != nil {
				return 0, err
			}
			return fakeEnd(o.Options)
		},
		Dial: dial,
		Running: func(context.Context) ([]coord.Status, error) {
			var all []coord.Status
			for _, name := range splitList(os.Getenv("FAKE_RUNNING")) {
				all = append(all, coord.Status{Name: name, State: coord.StateRunning})
			}
			return all, nil
		},
		Plugins: []plugin.Definition{
			{Name: "file", Summary: "files", State: 2, Oldest: 1},
			{Name: "event", Summary: "events", State: 1, Oldest: 1},
			{Name: "socket", Summary: "sockets", State: 1, Oldest: 1},
		},
	}
}

// describe prints the options as JSON, and logs a line for each plugin.
func describe(o core.Options, more ...any) error {
	var file struct {
		Limit int               `json:"limit"`
		Wait  string            `json:"wait"`
		Paths map[string]string `json:"paths"`
	}
	if err := o.PluginConfig("file", &file); err != nil {
		return err
	}
	m := map[string]any{
		"name": o.Name, "unique": o.UniqueName, "dir": o.Dir, "interval": o.Interval.String(), "keep": o.Keep,
		"compress": o.Compress, "detached": o.Detached, "plugins": strings.Join(pluginNames(o.Plugins), " "),
		"limit": file.Limit, "wait": file.Wait, "paths": fmt.Sprint(file.Paths),
	}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	for _, name := range []string{"", "file"} {
		log := o.Log(name)
		log.Warn().Msg("a warning")
		log.Debug().Msg("a detail")
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// fakeEnd ends as the environment says.
func fakeEnd(o core.Options) (int, error) {
	if why := os.Getenv("FAKE_ERROR"); why != "" {
		return 0, errors.New(why)
	}
	if fifo := os.Getenv("FAKE_HANG"); fifo != "" { // says that it is here, and never gets ready
		if err := os.WriteFile(fifo, []byte("here\n"), 0o600); err != nil {
			return 0, err
		}
		_, err := os.ReadFile(fifo)
		return 0, err
	}
	if o.Ready != nil {
		o.Ready(o.Name)
	}
	if fifo := os.Getenv("FAKE_FIFO"); fifo != "" { // until somebody writes
		if _, err := os.ReadFile(fifo); err != nil {
			return 0, err
		}
		if err := os.WriteFile(fifo+".out", []byte("went on\n"), 0o600); err != nil {
			return 0, err
		}
	}
	code := 0
	if s := os.Getenv("FAKE_CODE"); s != "" {
		if _, err := fmt.Sscan(s, &code); err != nil {
			return 0, err
		}
	}
	return code, nil
}
