package procfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadFilesystems reads the types of the file systems that pid sees mounted, by their
// device, as stat(2) has it: /proc/PID/mountinfo, proc_pid_mountinfo(5).
func ReadFilesystems(pid int) (map[uint64]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	return parseFilesystems(string(raw)), nil
}

func parseFilesystems(table string) map[uint64]string {
	found := map[uint64]string{}
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		f, rest := strings.Fields(before), strings.Fields(after)
		var major, minor uint32
		if len(f) < 3 || len(rest) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err == nil {
			found[unix.Mkdev(major, minor)] = rest[0]
		}
	}
	return found
}
