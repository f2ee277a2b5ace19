package proc

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
)

// What only one thread has, or what two processes share that are not parent
// and child, stands in the way as well.
func TestCheckRefusesThreadsAndSiblings(t *testing.T) {
	seccomp := "seccomp filter"
	if os.Geteuid() == 0 { // who may read filters
		seccomp = ""
	}
	for _, tc := range []struct {
		mode string
		want string // in a refusal; none: it can be kept
	}{
		{"seccomp-thread", seccomp},
		{"vm-sibling", "CLONE_VM"},
		{"files-sibling", "CLONE_FILES"},
		{"all-namespaces", "net namespace"},
		{"exe", ""},
		{"replaced", ""},
	} {
		t.Run(tc.mode, func(t *testing.T) { checkRefused(t, tc.mode, tc.want) })
	}
}

func checkRefused(t *testing.T, mode, want string) {
	dir := t.TempDir()
	prog := filepath.Join(dir, "prog")
	content, err := os.ReadFile(built(t, "state_refused"))
	if err == nil {
		err = os.WriteFile(prog, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(prog, mode, filepath.Join(dir, "file")))
	if l := x.line(); l != "ready" {
		t.Skipf("the program says %q", l)
	}
	tree := x.freeze()
	err = tree.Check(x.where)
	if err == nil {
		x.open(tree)
		_, err = tree.Inspect(soon(t), x.where, noClaim)
	}
	x.release(tree)
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	refused := refusals(t, err)
	if !slices.ContainsFunc(refused, func(r *plugin.RefusalError) bool { return strings.Contains(r.Error(), want) && r.PID > 0 }) {
		t.Errorf("%v: want a refusal that names %q", err, want)
	}
}
