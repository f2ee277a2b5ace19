package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// credCalls give the thread its credentials. An ordinary user's processes
// have but one user and group, and lose the namespace's capabilities here.
func credCalls(b *args, c *CredState) []call {
	var calls []call
	if os.Geteuid() == 0 {
		u32 := func(ids []int) []byte {
			var out []byte
			for _, id := range ids {
				out = le.AppendUint32(out, uint32(id))
			}
			return out
		}
		calls = append(calls,
			sys(unix.SYS_SETGROUPS, uint64(len(c.Groups)), b.put(u32(c.Groups))).as("setgroups"),
			sys(unix.SYS_SETRESGID, uint64(c.Gid[0]), uint64(c.Gid[1]), uint64(c.Gid[2])).as("setresgid"),
			sys(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1).as("PR_SET_KEEPCAPS"),
			sys(unix.SYS_SETRESUID, uint64(c.Uid[0]), uint64(c.Uid[1]), uint64(c.Uid[2])).as("setresuid"),
			sys(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0).as("PR_SET_KEEPCAPS"))
	}
	header := b.put(le.AppendUint64(nil, unix.LINUX_CAPABILITY_VERSION_3))
	var data []byte
	for _, shift := range []uint{0, 32} {
		for _, set := range c.Caps {
			data = le.AppendUint32(data, uint32(set>>shift))
		}
	}
	return append(calls, sys(unix.SYS_CAPSET, header, b.put(data)).as("capset"))
}
