package file

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// checkVirtual makes sure that a file of /proc or /sys will be there in a
// restart, when the processes are, but not yet their threads and descriptors. Most
// programs that open others have read them in a moment, and close them.
func (p *Plugin) checkVirtual(f plugin.OpenFile, s *file) error {
	w := strings.Split(f.Link, "/") // "", "proc", "PID", ...
	if len(w) < 3 || w[1] != "proc" {
		return p.checkPath(f, s)
	}
	pid, err := strconv.Atoi(w[2])
	if err != nil {
		return p.checkPath(f, s)
	}
	switch {
	case strings.HasSuffix(f.Link, deletedSuffix) || !p.saving.procs[pid]:
		return plugin.Refuse(f, "%v", plugin.Passing(fmt.Sprintf("it belongs to process %d, which is not a living one of the computation", pid)))
	case len(w) > 4 && w[3] == "task" && w[4] != w[2]:
		return plugin.Refuse(f, "%v", plugin.Passing("files of the threads of a process are not kept"))
	case len(w) > 4 && (w[3] == "fdinfo" || w[3] == "map_files"):
		return plugin.Refuse(f, "%v", plugin.Passing("files of the descriptors and mappings of a process are not kept"))
	}
	return p.checkPath(f, s)
}

// isPressure says whether who writes to a file makes a trigger for poll(2), as
// Documentation/accounting/psi.rst of the kernel tells: it is the description's,
// and only poll shows that there is one, which takes its event. Those of
// cgroups(7) have the names cpu.pressure, io.pressure and so on; cgroup.pressure
// is a switch.
func isPressure(link string, magic int64) bool {
	dir, name := path.Split(strings.TrimSuffix(link, deletedSuffix))
	if magic == unix.CGROUP2_SUPER_MAGIC {
		return strings.HasSuffix(name, ".pressure") && name != "cgroup.pressure"
	}
	return magic == unix.PROC_SUPER_MAGIC && strings.HasSuffix(dir, "/pressure/")
}

// isVirtual says whether a file system is made of what the kernel knows.
func isVirtual(magic int64) bool { return magic == unix.PROC_SUPER_MAGIC || magic == unix.SYSFS_MAGIC }
