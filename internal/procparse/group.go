package procparse

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ProcessGroup returns the process group of a process, as this /proc shows it and
// as the process itself sees it: the first and the last column of NSpgid,
// proc_pid_status(5).
func ProcessGroup(hostPID int) (host, inner int, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", hostPID))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(raw)) {
		columns, ok := strings.CutPrefix(line, "NSpgid:")
		if !ok {
			continue
		}
		ids := strings.Fields(columns)
		if len(ids) == 0 {
			break
		}
		host, err1 := strconv.Atoi(ids[0])
		inner, err2 := strconv.Atoi(ids[len(ids)-1])
		return host, inner, errors.Join(err1, err2)
	}
	return 0, 0, errors.New("no NSpgid in status")
}
