package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

func TestDefaultName(t *testing.T) {
	tests := []struct{ command, want string }{
		{"python3", "python3"},
		{"/usr/bin/g++", "g++"},
		{"./a.out", "a.out"},
		{"./.hidden", "hidden"},
		{"my prog", "my_prog"},
		{"--", "computation"},
		{"é", "_"},
		{strings.Repeat("x", 100), strings.Repeat("x", maxName-maxSuffix)},
	}
	for _, tt := range tests {
		t.Run(tt.command, func(t *testing.T) {
			got := defaultName(tt.command)
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if err := validName(got); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"a", "A-1_b.c+", strings.Repeat("x", maxName)} {
		if err := validName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "-x", "a/b", "a b", "a\n", "é", strings.Repeat("x", maxName+1)} {
		if validName(name) == nil {
			t.Errorf("%q is valid", name)
		}
	}
}

func TestFindCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("plain", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"no-such-command-here": "no-such-command-here: command not found",
		"../nothere":           "../nothere: no such file or directory",
		"./plain":              "./plain: cannot be executed: permission denied",
		"./plain/x":            "./plain/x: cannot be executed: stat ./plain/x: not a directory",
	} {
		if err := findCommand(name); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	tests := []struct {
		in   string
		want syscall.Signal
	}{
		{"KILL", syscall.SIGKILL}, {"sigterm", syscall.SIGTERM}, {"15", syscall.SIGTERM}, {"RTMIN", 34},
		{"SIGRTMIN+2", 36}, {"rtmax-1", 63}, {"64", 64},
		{"", 0}, {"SIG", 0}, {"0", 0}, {"65", 0}, {"-9", 0}, {"RTMAX+1", 0}, {"RTMIN-1", 0}, {"RTMIN1", 0}, {"RTMIN+", 0},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := parseSignal(tt.in)
			if got != tt.want || (err == nil) != (tt.want != 0) {
				t.Errorf("%d, %v; want %d", got, err, tt.want)
			}
		})
	}
}

func TestParseDebugLogs(t *testing.T) {
	plugins := []string{"file", "socket"}
	got, err := parseDebugLogs([]string{"file", "socket=trace", "core=off"}, plugins)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]zerolog.Level{"file": zerolog.DebugLevel, "socket": zerolog.TraceLevel, "core": zerolog.Disabled}
	for name, level := range want {
		if got[name] != level {
			t.Errorf("%s: %v, want %v", name, got[name], level)
		}
	}
	for _, spec := range []string{"", "frob", "file=", "file=loud", "=debug"} {
		if _, err := parseDebugLogs([]string{spec}, plugins); err == nil {
			t.Errorf("%q: no error", spec)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	f.Add("RTMIN+1")
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := parseSignal(s)
		if err == nil && (sig < 1 || sig > sigRTMax) {
			t.Errorf("%q is signal %d", s, sig)
		}
	})
}
