package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestParseConfig(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"empty", "", ""},
		{"comment", "# nothing\n", ""},
		{"null", "~\n", ""},
		{"scalars", "keep: 3\nlog-level: debug\ninterval: 1h\n", ""},
		{"list", "disable-plugin: [file, socket]\n", ""},
		{"alias", "keep: &n 3\nname: *n\n", ""},
		{"plugins", "plugins: {file: {a: 1, B: {x.y: 2}}, socket: ~}\n", ""},
		{"unknown", "\nfrob: 3\n", `line 2: unknown key "frob"`},
		{"case", "Keep: 3\n", `unknown key "Keep"`},
		{"twice", "keep: 3\nkeep: 4\n", `line 2: key "keep" stands there twice`},
		{"no value", "keep:\n", "keep: has no value"},
		{"a mapping", "keep: {a: 1}\n", "keep: wants a value"},
		{"a list of lists", "disable-plugin: [[a]]\n", "wants a list of plain values"},
		{"not a mapping", "- keep\n", "line 1: the file is not a mapping"},
		{"plugins not a mapping", "plugins: 3\n", "plugins is not a mapping"},
		{"plugin not a mapping", "plugins: {file: 3}\n", "plugins: file: "},
		{"unknown plugin", "plugins: {frob: {}}\n", `plugins: unknown key "frob"`},
		{"no YAML", "a: [\n", "yaml: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig([]byte(tt.yaml), []string{"file", "socket"}, ".")
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case tt.want != "" && err == nil:
				t.Errorf("no error, want %q", tt.want)
			case tt.want != "" && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}

// The home of another user has no configuration for this one; a file that is
// there and cannot be read is an error.
func TestReadConfigOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := filepath.Join(t.TempDir(), "home")
	path := filepath.Join(dir, "config.yaml")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, nil, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(path, false); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable file: %v", err)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if _, err := readConfig(path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("hidden file: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("keep: 3\nplugins: {file: {a: 1}}\n"))
	f.Add([]byte("disable-plugin: [a, &x b, *x]\n"))
	f.Add([]byte("<<: {keep: 1}\n? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseConfig(data, []string{"file"}, ".")
		if err != nil {
			return
		}
		for key, v := range p.settings {
			switch v.(type) {
			case string, []string:
			default:
				t.Errorf("%s has the type %T", key, v)
			}
		}
	})
}

// Each setting is a flag of some command, so that no key is without effect.
func TestSettingsAreFlags(t *testing.T) {
	flags := map[string]bool{}
	eachCommand(t, func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	})
	for _, s := range settings() {
		if !flags[s] {
			t.Errorf("no command has the flag --%s", s)
		}
	}
}

// Each flag with a value completes, to something or to nothing, but for
// those that are files.
func TestFlagsComplete(t *testing.T) {
	eachCommand(t, func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if _, ok := cmd.GetFlagCompletionFunc(f.Name); !ok && f.NoOptDefVal == "" && f.Name != "log-file" {
				t.Errorf("%s --%s has no completion", cmd.Name(), f.Name)
			}
		})
	})
}

// Each command has help in full.
func TestHelp(t *testing.T) {
	eachCommand(t, func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" || !strings.Contains(cmd.Long, "Exit code:") {
			t.Errorf("%s lacks a summary, an example or its exit codes", cmd.Name())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(strings.TrimRight(line, "\n")) > 84 {
				t.Errorf("%s: line of %d characters: %s", cmd.Name(), len(line), line)
			}
		}
	})
}

func eachCommand(t *testing.T, fn func(*cobra.Command)) {
	t.Helper()
	a := &app{engine: fakeEngine()}
	for _, cmd := range a.rootCommand().Commands() {
		fn(cmd)
	}
}
