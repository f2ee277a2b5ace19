package proc

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
)

// refusalsOf freezes the program, asks for all that stands in the way of a
// checkpoint, and lets it go on.
func (x *target) refusalsOf() []*plugin.RefusalError {
	x.tb.Helper()
	tree := x.freeze()
	defer x.release(tree)
	if err := tree.Check(here()); err != nil {
		return refusals(x.tb, err)
	}
	x.open(tree)
	_, err := tree.Inspect(soon(x.tb), here(), noClaim)
	return refusals(x.tb, err)
}

// assertRefused fails the test unless the only refusals are of an object and
// for a reason that contain these words.
func (x *target) assertRefused(object, reason string) {
	x.tb.Helper()
	list := x.refusalsOf()
	found := false
	for _, r := range list {
		found = found || (strings.Contains(r.Object, object) && strings.Contains(r.Reason, reason) && r.PID > 0)
	}
	if !found {
		x.tb.Errorf("refusals %q; want one of %q: %q", list, object, reason)
	}
	if got := x.ask("?"); got != "alive" {
		x.tb.Errorf("the program says %q", got)
	}
	x.assertUntraced()
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	for _, tc := range []struct{ how, object, reason string }{
		{"CLONE_FILES", "process sharing with pid", "descriptor table (CLONE_FILES)"},
		{"CLONE_FS", "process sharing with pid", "working directory (CLONE_FS)"},
		{"CLONE_VM", "process sharing with pid", "memory (CLONE_VM)"},
		{"CLONE_SIGHAND", "process sharing with pid", "signal handlers (CLONE_SIGHAND)"},
		{"own files", "thread", "shares a descriptor table with thread"},

		{"namespaces", "user namespace", "namespace of its own"},
		{"deleted root", "root directory", "deleted"},
		{"device", "mapping", "memory of a device"},
		{"hugetlb", "mapping", "huge pages"},
		{"userfaultfd", "mapping", "userfaultfd"},
	} {
		t.Run(tc.how, func(t *testing.T) {
			tr := newTracer(t)
			x := spawn(t, tr, exec.Command(program(t, "refuse"), tc.how, t.TempDir()))
			switch l := x.line(); l {
			case "cannot":
				t.Skip("not possible here")
			case "ready":
				x.assertRefused(tc.object, tc.reason)
			default:
				t.Fatalf("the program says %q", l)
			}
		})
	}
}

func TestADeletedProgramIsNotRefused(t *testing.T) {
	in, err := os.Open(program(t, "refuse"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(t.TempDir(), "program")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	tr := newTracer(t)
	x := launch(t, tr, path, "nothing", t.TempDir())
	if got := x.refusalsOf(); len(got) != 0 {
		t.Errorf("refusals %q of a program that can be kept", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := x.refusalsOf(); len(got) != 0 {
		t.Errorf("refusals %q of a deleted program", got)
	}
}

func TestA32BitProgramIsRefused(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only where 64-bit kernels run i386 programs")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	path := filepath.Join(t.TempDir(), "i386")
	if b, err := exec.Command(cc, "-m32", "-nostdlib", "-static", "-no-pie", "-o", path, "testdata/i386.S").CombinedOutput(); err != nil {
		t.Skipf("cannot be built: %v: %s", err, b)
	}
	if err := exec.Command(path).Run(); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	tr := newTracer(t)
	x := spawn(t, tr, exec.Command(path))
	x.expect("ready")
	tree := x.freeze()
	got := refusals(t, tree.Check(here()))
	x.release(tree)
	if len(got) != 1 || got[0].Object != "32-bit program" {
		t.Errorf("refusals %q", got)
	}
	if _, err := fmt.Fprint(x.in, "?"); err != nil {
		t.Fatal(err)
	}
	x.expect("alive")
}

// TestSeccomp: a filter is refused to an ordinary user, and suspended by root.
func TestSeccomp(t *testing.T) {
	tr := newTracer(t)
	x := spawn(t, tr, exec.Command(program(t, "refuse"), "seccomp", t.TempDir()))
	x.expect("ready")
	if os.Geteuid() != 0 {
		x.assertRefused("seccomp filter", "forbid")
		return
	}
	if got := x.refusalsOf(); len(got) != 0 {
		t.Errorf("refusals %q", got)
	}
}
