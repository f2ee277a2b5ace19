package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// memGroup is a control group of memory, of either version of cgroups(7).
type memGroup struct {
	f              *faulted
	dir            string
	max, usage     string // names of its files
	inactive, file string // of lines of memory.stat: what is given up first
}

// memoryGroup makes one, as root.
func (f *faulted) memoryGroup() *memGroup {
	f.Helper()
	if os.Geteuid() != 0 {
		f.Skip("only root may make a control group")
	}
	g := &memGroup{f: f, dir: "/sys/fs/cgroup/memory/", max: "memory.limit_in_bytes", usage: "memory.usage_in_bytes",
		inactive: "total_inactive_file", file: "total_active_file"}
	if _, err := os.Stat(g.dir + g.max); err != nil {
		g = &memGroup{f: f, dir: "/sys/fs/cgroup/", max: "memory.max", usage: "memory.current", inactive: "inactive_file", file: "active_file"}
		if err := os.WriteFile(g.dir+"cgroup.subtree_control", []byte("+memory"), 0); err != nil {
			f.suite.lacks(f.T, fmt.Sprintf("control groups of memory: %v", err))
			f.SkipNow()
		}
	}
	g.dir += filepath.Base(f.dir)
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(g.remove)
	return g
}

// remove ends what is in the group, and removes it.
func (g *memGroup) remove() {
	for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
		err := unix.Rmdir(g.dir)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.f.Errorf("rmdir %s: %v", g.dir, err)
			return
		}
		procs, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
	}
}

// under is a command of root's that runs another one in the group, as id.
func (g *memGroup) under(id identity) []string {
	return []string{"sh", "-c", `echo 0 >"$0/cgroup.procs" && exec "$@"`, g.dir,
		"setpriv", fmt.Sprintf("--reuid=%d", id.uid), fmt.Sprintf("--regid=%d", id.gid), "--clear-groups", "--"}
}

// limit sets what the group may use. The kernel first takes back what it can.
func (g *memGroup) limit(n int64) {
	g.f.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, g.max), []byte(strconv.FormatInt(n, 10)), 0); err != nil {
		g.f.Fatal(err)
	}
}

// used is what the group cannot give back.
func (g *memGroup) used() int64 {
	g.f.Helper()
	n := g.number(g.read(g.usage))
	for line := range strings.Lines(g.read("memory.stat")) {
		if name, value, _ := strings.Cut(line, " "); name == g.inactive || name == g.file {
			n -= g.number(value)
		}
	}
	return n
}

func (g *memGroup) read(name string) string {
	g.f.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		g.f.Fatal(err)
	}
	return string(b)
}

func (g *memGroup) number(text string) int64 {
	g.f.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		g.f.Fatal(err)
	}
	return n
}
