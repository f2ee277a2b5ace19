package e2e

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// object is a fixture of test/objects: a self-checking program for one kind of
// kernel object, whose first comment tells how it is run.
type object struct {
	name    string // PLUGIN/FILE
	source  string
	refused string              // the checkpoint must be refused with this text
	words   map[string][]string // the other keys
}

// objectKeys may stand in the first comment of a fixture, each with words.
var objectKeys = []string{"alone", "as", "launch", "restart", "checkpoint", "needs", "cc", "beside", "network", "serial"}

// TestObjects shows each kernel object in place, with an agent that dies in the
// pause, and through two generations of kill and restart.
func TestObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newSuite(t)
	s.buildFaults(t)
	table := &results{head: "OBJECT\tAS\tCHECKPOINT\tRESTART\tSECOND RESTART"}
	t.Cleanup(func() { table.publish(t) })
	for _, o := range findObjects(t) {
		t.Run(o.name, func(t *testing.T) {
			if o.words["serial"] == nil {
				t.Parallel()
			}
			s.require(t, append([]string{"gcc"}, o.words["needs"]...)...)
			binary := s.buildObject(t, o)
			for _, id := range s.identities {
				if as := o.words["as"]; as == nil || slices.Contains(as, id.name) {
					t.Run(id.name, func(t *testing.T) { s.showObject(t, o, binary, id, table) })
				}
			}
		})
	}
}

func findObjects(t *testing.T) []object {
	sources, err := filepath.Glob("../objects/*/*.c")
	if err != nil {
		t.Fatal(err)
	}
	objects := make([]object, len(sources))
	for i, path := range sources {
		objects[i] = readObject(t, path)
	}
	return objects
}

// readObject reads the keys in the first comment of a fixture.
func readObject(t *testing.T, path string) object {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir, file := filepath.Split(path)
	o := object{name: filepath.Base(dir) + "/" + strings.TrimSuffix(file, ".c"), source: path, words: map[string][]string{}}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.Trim(lines.Text(), " *")
		key, value, _ := strings.Cut(line, ":")
		switch {
		case strings.HasSuffix(line, "/") || strings.HasPrefix(line, "#"):
			return o
		case key == "refused":
			o.refused = strings.TrimSpace(value)
		case slices.Contains(objectKeys, key):
			o.words[key] = strings.Fields(value)
		}
	}
	return o
}

func (s *suite) buildObject(t *testing.T, o object) string {
	source, err := filepath.Abs(o.source)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(s.dir, strings.ReplaceAll(o.name, "/", "-"))
	if _, err := os.Stat(binary); err == nil && s.built {
		return binary
	}
	command := append([]string{"gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", binary, source, "-lrt"}, o.words["cc"]...)
	if err := buildOne(command); err != nil {
		t.Fatal(err)
	}
	return binary
}

// showObject adds one line to the table of objects.
func (s *suite) showObject(t *testing.T, o object, binary string, id identity, table *results) {
	inPlace, restarts := "-", [2]string{"-", "-"}
	defer func() { table.add(o.name, id.name, inPlace, restarts[0], restarts[1]) }()
	t.Run("in-place", func(t *testing.T) {
		inPlace = "failed"
		tr := s.newTrial(t, id)
		t.Cleanup(func() { removeIPC(t, tr.dir) })
		tr.launchObject(o, binary)
		if o.refused != "" {
			tr.isRefused(o)
		} else {
			tr.must(append([]string{"checkpoint", tr.name}, o.words["checkpoint"]...)...)
		}
		tr.pass(1)
		tr.finish()
		tr.gone()
		inPlace = "ok"
		if o.refused != "" {
			inPlace = "refused"
		}
	})
	if o.refused != "" {
		return
	}
	if o.words["alone"] == nil && slices.Contains(s.faultIdentities(), id) { // it tells what the death of its agent changes
		t.Run("agent-killed", func(t *testing.T) { s.newFaulted(t, id).killedInPause(o, binary) })
	}
	t.Run("restart", func(t *testing.T) {
		tr := s.newTrial(t, id)
		t.Cleanup(func() { removeIPC(t, tr.dir) })
		tr.launchObject(o, binary)
		for generation := range restarts {
			restarts[generation] = "failed"
			tr.must(append([]string{"checkpoint", tr.name, "--kill"}, o.words["checkpoint"]...)...)
			tr.wait(tr.front)
			tr.gone()
			tr.restart(o.words["restart"]...)
			tr.pass(generation + 1)
			restarts[generation] = "ok"
		}
		tr.finish()
		tr.gone()
	})
}

// killedInPause ends the agent when the state of the object is saved, and
// nothing is put back yet: the program finds it as it was.
func (f *faulted) killedInPause(o object, binary string) {
	f.Cleanup(func() { removeIPC(f.T, f.dir) })
	if o.words["network"] != nil {
		f.under = ownNetwork(f.id)
	}
	if o.words["beside"] != nil {
		f.beside(binary, f.dir)
	}
	f.front = f.run(slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images()}, o.words["launch"], []string{"--", binary})...)
	f.await("the first point", func() bool { return f.progress() >= 1 })
	f.order("saved: kill")
	f.hiatus(append([]string{"checkpoint", f.name}, o.words["checkpoint"]...)...)
	f.orphaned()
	f.pass(1)
	f.write("stop", "")
	f.nothingLeft()
	if text := f.read("failed"); text != "" {
		f.Fatalf("the program failed: %s", text)
	}
	if out := f.read("stdout"); !strings.HasSuffix(out, "ok\n") {
		f.Errorf("the program did not print ok, but %q", out)
	}
}

// launchObject starts a fixture and waits for its first point.
func (tr *trial) launchObject(o object, binary string) {
	tr.Helper()
	if o.words["network"] != nil {
		tr.under = ownNetwork(tr.id)
	}
	if o.words["beside"] != nil {
		tr.beside(binary, tr.dir)
	}
	args := append([]string{"launch", "--name", tr.name, "--ckptdir", tr.images()}, o.words["launch"]...)
	tr.front = tr.start(append(args, "--", binary)...)
	tr.reach(1)
}

// ownNetwork is a command under which the program of its arguments runs in a
// network namespace of its own, in which all groups may have ping sockets,
// icmp(7). The ordinary user is root of a user namespace there.
func ownNetwork(id identity) []string {
	const script = `ip link set lo up && echo 0 0 >/proc/sys/net/ipv4/ping_group_range && exec "$@"`
	flags := "-n"
	if id.name != "root" {
		flags = "-rn"
	}
	return []string{"unshare", flags, "sh", "-c", script, "sh"}
}

// beside starts a process of the identity's that is not of the tree, and ends
// with the test.
func (tr *trial) beside(name string, args ...string) {
	tr.Helper()
	cmd := tr.command(context.Background(), name, args...)
	cmd.Env = slices.DeleteFunc(slices.Clone(cmd.Env), func(v string) bool { return strings.HasPrefix(v, "HT_DIR=") })
	if err := cmd.Start(); err != nil {
		tr.Fatal(err)
	}
	tr.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
}

// isRefused makes sure that a checkpoint and a check name the object, and the log once for each try.
func (tr *trial) isRefused(o object) {
	tr.Helper()
	for _, command := range []string{"check", "checkpoint"} {
		out := tr.hiatus(append([]string{command, tr.name}, o.words[command]...)...)
		if out.code != 1 || !strings.Contains(out.stdout+out.stderr, o.refused) {
			tr.Fatalf("hiatus %s: want a refusal with %q, got %s", command, o.refused, out)
		}
		if noise := "unknown kind of memory"; o.refused != noise && strings.Contains(out.stdout+out.stderr, noise) {
			tr.Fatalf("hiatus %s: want no more than a refusal with %q, got %s", command, o.refused, out)
		}
	}
	told, log := 0, tr.read("stderr")
	for line := range strings.Lines(log) {
		if strings.Contains(line, o.refused) {
			told++
		}
	}
	if tries := strings.Count(log, "checkpoint given up"); told != tries || tries == 0 {
		tr.Fatalf("the refusal with %q stands %d times in the log of %d tries:\n%s", o.refused, told, tries, log)
	}
}

// pass lets a fixture go on from its nth point and check its object, to the
// next.
func (tr *trial) pass(n int) {
	tr.Helper()
	if err := os.Symlink(strconv.Itoa(n), tr.path("go.new")); err != nil {
		tr.Fatal(err)
	}
	if err := os.Rename(tr.path("go.new"), tr.path("go")); err != nil {
		tr.Fatal(err)
	}
	tr.reach(int64(n) + 1)
}
