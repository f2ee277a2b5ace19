package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readme is the project's first page, as seen from this folder.
const readme = "../../README.md"

// step is a command of the tour, and what it prints. "..." in it stands for
// anything, a number (with its unit) for any number.
type step struct {
	command string
	output  string
}

// readmeTour runs the first console block of the README.
func readmeTour(tr *trial) {
	text, err := os.ReadFile(readme)
	if err != nil {
		tr.Fatal(err)
	}
	steps := parseTour(string(text))
	if len(steps) < 4 {
		tr.Fatalf("the tour has %d commands", len(steps))
	}
	bin := tr.path("bin")
	tr.mkdir("bin")
	if err := os.Symlink(tr.suite.hiatus(), filepath.Join(bin, "hiatus")); err != nil {
		tr.Fatal(err)
	}
	for i, e := range tr.env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			tr.env[i] = "PATH=" + bin + ":" + path
		}
	}
	for _, s := range steps {
		o := tr.exec("/bin/sh", "-ec", s.command)
		if o.code != 0 {
			tr.Fatalf("$ %s\n%s", s.command, o)
		}
		if !matches(s.output, o.stdout+o.stderr) {
			tr.Errorf("$ %s\nprinted:\n%swant:\n%s", s.command, o.stdout+o.stderr, s.output)
		}
	}
	tr.gone()
}

// parseTour returns the commands of the first console block.
func parseTour(text string) []step {
	_, rest, found := strings.Cut(text, "\n```console\n")
	if !found {
		return nil
	}
	block, _, _ := strings.Cut(rest, "```")
	var steps []step
	for line := range strings.Lines(block) {
		command, starts := strings.CutPrefix(line, "$ ")
		more, continues := strings.CutPrefix(line, "> ")
		last := len(steps) - 1
		switch {
		case starts:
			steps = append(steps, step{command: command})
		case last >= 0 && continues:
			steps[last].command += more
		case last >= 0:
			steps[last].output += line
		}
	}
	return steps
}

// matches compares output with a pattern. How much blank is between words does
// not count.
func matches(pattern, output string) bool {
	words := strings.Fields(withoutNumbers(pattern))
	for i, w := range words {
		words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), regexp.QuoteMeta("..."), `.*`)
	}
	re, err := regexp.Compile(`(?s)^` + strings.Join(words, ` `) + `$`)
	return err == nil && re.MatchString(strings.Join(strings.Fields(withoutNumbers(output)), " "))
}

// withoutNumbers replaces each number, with the unit behind it.
func withoutNumbers(text string) string {
	number := regexp.MustCompile(`[0-9]+(\.[0-9]+)?( ?([KMG]iB|B)\b|(µs|ms|s)\b)?`)
	return number.ReplaceAllString(text, "#")
}

func TestParseTour(t *testing.T) {
	got := parseTour("# x\n\n```console\n$ one <<E\n> a\n> E\nout ... put\n$ two | three\n```\n\n```console\n$ four\n```\n")
	want := []step{{"one <<E\na\nE\n", "out ... put\n"}, {"two | three\n", ""}}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct {
		pattern, output string
		want            bool
	}{
		{"out ... put\n", "out 1 2  put\n", true},
		{"a.b", "axb", false},
		{"", "", true},
		{"", "more", false},
		{"path  ...\nsize ...\n", "path   /x\nsize   3 MiB\n", true},
		{"size 3.5 MiB pause 4.8ms", "size  900 KiB pause 12µs", true},
		{"count 1", "count x", false},
	} {
		if got := matches(c.pattern, c.output); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.output, got)
		}
	}
}

// TestScripts checks that the shell scripts of this project can be read by
// their shell.
func TestScripts(t *testing.T) {
	for _, path := range []string{"../setup.sh", "../demo.sh", "../as-user.sh", "../../.ci/run", "../fixtures/job.sh"} {
		if out, err := exec.Command("bash", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}
