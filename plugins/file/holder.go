package file

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
)

// outsider names who holds an end of a pipe that no process of the computation has,
// open for reading or writing as mode says: the first of those whose descriptors may be seen.
func outsider(link string, mode int) string {
	const nobody = "a process outside the computation"
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, fd := range fds {
			if l, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); l == link && opened(pid, fd.Name(), mode) {
				comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				return fmt.Sprintf("%s, %d (%s)", nobody, pid, strings.TrimSpace(string(comm)))
			}
		}
	}
	return nobody
}

// opened says whether a descriptor was opened for reading or writing, as mode says.
func opened(pid int, fd string, mode int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
	if err != nil {
		return false
	}
	info, err := procparse.ParseFDInfo(raw)
	has := info.Flags & unix.O_ACCMODE
	return err == nil && (has == mode || has == unix.O_RDWR)
}
