package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryRoom is how many bytes of memory a process could get without harm to
// others: what the host has (MemAvailable of /proc/meminfo), and what its
// control groups allow, cgroups(7).
func memoryRoom(pid int) (uint64, error) {
	info, err := readNumbers("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	room, ok := info["MemAvailable:"]
	if !ok {
		return 0, errors.New("/proc/meminfo: no MemAvailable")
	}
	room <<= 10
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return room, nil // a kernel without them
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0":
			room = min(room, groupRoom("/sys/fs/cgroup", parts[2], "memory.max", "memory.current", ""))
		case strings.Contains(","+parts[1]+",", ",memory,"):
			room = min(room, groupRoom("/sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
		}
	}
	return room, nil
}

// groupRoom is the least room of a control group and those above it. Pages of
// files count as room: they are given up first.
func groupRoom(root, group, limit, usage, total string) uint64 {
	room := ^uint64(0)
	for dir := filepath.Join(root, group); strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
		most, err := readNumber(filepath.Join(dir, limit))
		if err != nil { // "max", or the file system shows another part of the hierarchy
			continue
		}
		used, err := readNumber(filepath.Join(dir, usage))
		if err != nil {
			continue
		}
		stat, _ := readNumbers(filepath.Join(dir, "memory.stat"))
		used -= min(used, stat[total+"inactive_file"]+stat[total+"active_file"])
		room = min(room, most-min(most, used))
	}
	return room
}

func readNumber(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
}

// readNumbers reads lines of a name and a number.
func readNumbers(path string) (map[string]uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				out[f[0]] = n
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrInvalid)
	}
	return out, nil
}
