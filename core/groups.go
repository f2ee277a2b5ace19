package core

import (
	"os"
	"strings"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// warnGroups tells of processes in control groups other than the agent's, in
// which a restart has them, cgroups(7): once of each group.
func (a *agent) warnGroups(pids []int) {
	own, err := procfs.Groups(os.Getpid())
	if err != nil { // a kernel without control groups
		return
	}
	for _, pid := range pids {
		groups, err := procfs.Groups(pid)
		if err != nil || groups == own || a.groups[groups] { // it may have ended
			continue
		}
		if a.groups == nil {
			a.groups = map[string]bool{}
		}
		// Of one that ends version 1 says that it is in the root (kernel/cgroup/cgroup.c, cgroup_exit).
		if st, err := procfs.ReadStat(pid); err != nil || st.Flags&pfExiting != 0 {
			continue
		}
		a.groups[groups] = true
		a.log.Warn().Int("host_pid", pid).Msgf("a process is in the control group %s: after a restart it is in that of hiatus, cgroups(7)",
			firstOther(groups, own))
	}
}

// pfExiting is PF_EXITING of include/linux/sched.h.
const pfExiting = 0x4

// firstOther returns the first line of a list of groups that another has not.
func firstOther(groups, other string) string {
	for line := range strings.Lines(groups) {
		if !strings.Contains("\n"+other, "\n"+line) {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}
