package event

import "strings"

// refusals are descriptors that wait for events and cannot come back, by
// their link, proc_pid_fd(5).
var refusals = map[string]string{
	"anon_inode:[fanotify]":    "a fanotify group is not kept: what it has reported and waits to be answered cannot be queued again (fanotify(7))",
	"anon_inode:[userfaultfd]": "the faults that a userfaultfd handles cannot be held back during a checkpoint (userfaultfd(2))",
	"anon_inode:[io_uring]":    "the requests of an io_uring cannot be read from outside (io_uring(7)); programs of libuv, as node, do without where UV_USE_IO_URING=0 is set, MariaDB with innodb_use_native_aio=0",
	"anon_inode:[perf_event]":  "the counters and the buffer of a perf event cannot be set (perf_event_open(2))",
}

// refusalOf returns why a descriptor with this link is refused, or "".
func refusalOf(link string) string {
	if name, ok := strings.CutPrefix(link, "anon_inode:"); ok {
		name = strings.Trim(name, "[]")
		if strings.HasPrefix(name, "bpf") || name == "btf" {
			return "BPF programs, maps and links live in the kernel and cannot be made again (bpf(2))"
		}
	}
	return refusals[link]
}
