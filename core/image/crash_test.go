package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
)

// Tests that need a process of their own run the test binary again with this
// variable set to an argument.
const childEnv = "HIATUS_IMAGE_TEST_CHILD"

// child is the named test in a new process, in the folder dir.
func child(test, dir, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), childEnv+"="+arg)
	return cmd
}

// TestCrash kills a writer with SIGKILL behind each step of a generation, while
// one is committed, and looks at what it left.
func TestCrash(t *testing.T) {
	if step := os.Getenv(childEnv); step != "" {
		crashAt(t, step)
		return
	}
	tests := []struct {
		step  string
		gens  []uint64
		names []string // after the next Begin
	}{
		{"made", []uint64{1}, []string{"00001"}},
		{"begun", []uint64{1}, []string{"00001"}},
		{"agent", []uint64{1}, []string{"00001"}},
		{"writing", []uint64{1}, []string{"00001"}},
		{"written", []uint64{1}, []string{"00001"}},
		{"manifest", []uint64{1}, []string{"00001"}},
		{"renamed", []uint64{1, 2}, []string{"00001", "00002"}},
		{"committed", []uint64{1, 2}, []string{"00001", "00002"}},
		{"set aside", []uint64{2}, []string{"00002"}},
		{"pruned", []uint64{2}, []string{"00002"}},
	}
	for _, tt := range tests {
		t.Run(tt.step, func(t *testing.T) {
			s := newStore(t)
			dir := filepath.Dir(s.Path())
			commit(t, s, 1, testComputation)
			out, err := child("TestCrash", dir, tt.step).CombinedOutput()
			if err == nil || err.Error() != "signal: killed" {
				t.Fatalf("writer was not killed: %v\n%s", err, out)
			}
			wantGenerations(t, s, tt.gens...)
			newest := tt.gens[len(tt.gens)-1]
			got := must[string](t)(Resolve(dir, 0))
			if got != filepath.Join(s.Path(), generationName(newest)) {
				t.Errorf("newest is %s, want generation %d", got, newest)
			}
			must[[]CodecStats](t)(Verify(t.Context(), got, nil))
			p := must[*Pending](t)(s.Begin(must[uint64](t)(s.Next())))
			check(t, p.Abort())
			wantNames(t, s, tt.names...)
		})
	}
}

// crashAt writes generation 2 of the store in the working directory, prunes
// generation 1, and dies behind the named step.
func crashAt(t *testing.T, step string) {
	reached := func(s string) {
		if s == step {
			check(t, unix.Kill(os.Getpid(), unix.SIGKILL))
			select {}
		}
	}
	s := must[*Store](t)(OpenStore(".", "job"))
	if step == "made" {
		check(t, private.MakeDir(filepath.Join(s.Path(), tmpName(2))))
	}
	reached("made")
	p := must[*Pending](t)(s.Begin(2))
	reached("begun")
	dir := must[string](t)(p.AgentDir("0"))
	reached("agent")
	w := must[*Writer](t)(Create(dir, Options{Stripes: 2}))
	check(t, w.PageWriter(0).Write(1, 0, randomBytes(1, 3<<20)))
	reached("writing")
	sum := must[Summary](t)(w.Close(t.Context()))
	reached("written")
	m := testManifest(2, testComputation, AgentManifest{ID: "0", Folder: filepath.Base(dir), Files: sum.Files})
	if step == "manifest" || step == "renamed" {
		check(t, p.writeManifest(m))
		reached("manifest")
		check(t, p.publish(filepath.Join(s.Path(), generationName(2))))
		reached("renamed")
	}
	must[string](t)(p.Commit(m))
	reached("committed")
	if step == "set aside" {
		_, _, err := s.setAside(testComputation, 1, nil)
		check(t, err)
		reached("set aside")
	}
	must[[]uint64](t)(s.Prune(testComputation, 1, nil))
	reached("pruned")
}

// TestFileSizeLimit writes with a limit to the size of files (EFBIG), which
// comes at every step as ENOSPC and EDQUOT do, and needs no file system of its
// own.
func TestFileSizeLimit(t *testing.T) {
	if limit := os.Getenv(childEnv); limit != "" {
		writeLimited(t, limit)
		return
	}
	sizes := limitSteps(t)
	for _, limit := range sizes {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			dir := t.TempDir()
			if out, err := child("TestFileSizeLimit", dir, fmt.Sprint(limit)).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			wantNames(t, must[*Store](t)(OpenStore(dir, "job")))
		})
	}
}

// limitSteps returns limits that the stripes, the sections, the index or the
// manifest reach.
func limitSteps(t *testing.T) []int64 {
	s := newStore(t)
	p := must[*Pending](t)(s.Begin(1))
	defer p.Abort()
	m := limitedGeneration(t, p, func(err error) { check(t, err) })
	manifest := must[[]byte](t)(m.encode())
	files := m.Agents[0].Files
	return []int64{0, 10, int64(len(manifest)) - 1, files[0].Size - 1, 100_000, files[1].Size / 2, files[1].Size - 1}
}

// limitedGeneration writes a generation with a manifest that is smaller than
// image.hia, smaller than the stripe; failed gets the first error.
func limitedGeneration(t *testing.T, p *Pending, failed func(error)) *Manifest {
	dir := must[string](t)(p.AgentDir("0"))
	w := must[*Writer](t)(Create(dir, Options{Stripes: 1}))
	defer w.Abort()
	section := w.Section("core", 1, []byte(strings.Repeat(" ", 20_000)))
	write := w.PageWriter(0).Write(1, 0, randomBytes(1, 3<<20))
	sum, err := w.Close(t.Context())
	failed(errors.Join(section, write, err))
	return testManifest(1, testComputation, AgentManifest{ID: "0", Folder: filepath.Base(dir), Files: sum.Files})
}

// writeLimited fails unless a generation cannot be written and is given up
// without a trace. SIGXFSZ comes with EFBIG: setrlimit(2).
func writeLimited(t *testing.T, limit string) {
	n := must[uint64](t)(strconv.ParseUint(limit, 10, 64))
	signal.Ignore(unix.SIGXFSZ)
	p := must[*Pending](t)(must[*Store](t)(OpenStore(".", "job")).Begin(1))
	var old unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	check(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: old.Max}))
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old) // for the coverage files
	var failure error
	m := limitedGeneration(t, p, func(err error) { failure = err })
	if failure == nil {
		_, failure = p.Commit(m)
	}
	if !errors.Is(failure, unix.EFBIG) {
		t.Errorf("got error %v, want EFBIG", failure)
	}
	check(t, p.Abort())
}
