package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/spf13/pflag"
)

func TestFlagsFor(t *testing.T) {
	fs := pflag.NewFlagSet("restart", pflag.ContinueOnError)
	fs.String("name", "", "")
	fs.Bool("allow", false, "")
	fs.StringSlice("disable", nil, "")
	fs.StringArray("with", nil, "")
	fs.String("level", "", "")
	err := fs.Parse([]string{"--name", "x", "--disable=a,b", "--with", "p.wasm,grant=env", "--with=q", "--allow"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--allow=true", "--disable=a", "--disable=b", "--with=p.wasm,grant=env", "--with=q"}
	if got := flagsFor(fs, "name"); !slices.Equal(got, want) {
		t.Errorf("flags %q, want %q", got, want)
	}
}

func TestStatusOfAgents(t *testing.T) {
	c := &fakeClient{status: coord.Status{Name: "sim", Agents: []coord.AgentStatus{
		{ID: "0", Host: "h", PID: 10, Processes: []coord.ProcessStatus{{PID: 2, Command: "one"}}},
		{ID: "1", Host: "h", PID: 20, Processes: []coord.ProcessStatus{{PID: 2, Command: "two"}}},
	}}}
	code, out, _ := command(t, c, "status")
	var rows []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 6 && f[1] == "2" {
			rows = append(rows, f[0]+f[len(f)-1])
		}
	}
	if code != 0 || strings.Join(rows, " ") != "0one 1two" {
		t.Errorf("code %d, rows %q:\n%s", code, rows, out)
	}
}
