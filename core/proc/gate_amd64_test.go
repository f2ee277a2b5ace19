package proc

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/linux"
)

func TestNeeds(t *testing.T) {
	page := uint64(os.Getpagesize())
	m := lateOf([]linux.PageRange{{Start: 10, End: 20}})
	x := &gated{p: &Process{}, th: &Thread{HostTID: os.Getpid()}, m: m, brk: 12 * page}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	self, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for _, c := range []struct {
		name  string
		nr    uint64
		args  [6]uint64
		known bool
		want  []span
	}{
		{"getpid", unix.SYS_GETPID, [6]uint64{}, true, nil},
		{"read", unix.SYS_READ, [6]uint64{uint64(null.Fd()), 100, 200}, true, []span{{100, 200}}},
		{"read of /proc", unix.SYS_READ, [6]uint64{uint64(self.Fd()), 100, 200}, false, nil},
		{"read of nothing", unix.SYS_READ, [6]uint64{9999, 100, 200}, false, nil},
		{"poll", unix.SYS_POLL, [6]uint64{100, 3 | 1<<40, 0}, true, []span{{100, 24}}},
		{"select", unix.SYS_SELECT, [6]uint64{65, 1, 2, 3, 4}, true, []span{{1, 16}, {2, 16}, {3, 16}, {4, 16}}},
		{"munmap elsewhere", unix.SYS_MUNMAP, [6]uint64{20 * page, page}, true, nil},
		{"munmap", unix.SYS_MUNMAP, [6]uint64{9 * page, page + 1}, false, nil},
		{"munmap of all", unix.SYS_MUNMAP, [6]uint64{page, ^uint64(0)}, false, nil},
		{"madvise", unix.SYS_MADVISE, [6]uint64{19 * page, page, unix.MADV_DONTNEED}, false, nil},
		{"mmap", unix.SYS_MMAP, [6]uint64{10 * page, page, 0, unix.MAP_PRIVATE}, true, nil},
		{"mmap fixed", unix.SYS_MMAP, [6]uint64{10 * page, page, 0, unix.MAP_FIXED}, false, nil},
		{"brk asked", unix.SYS_BRK, [6]uint64{0}, true, nil},
		{"brk grown", unix.SYS_BRK, [6]uint64{13 * page}, true, nil},
		{"brk back", unix.SYS_BRK, [6]uint64{11 * page}, false, nil},
		{"mremap", unix.SYS_MREMAP, [6]uint64{30 * page, page, page}, false, nil},
		{"clone", unix.SYS_CLONE, [6]uint64{}, false, nil},
		{"execve", unix.SYS_EXECVE, [6]uint64{}, false, nil},
		{"exit", unix.SYS_EXIT, [6]uint64{}, false, nil},
		{"new stack for signals", unix.SYS_SIGALTSTACK, [6]uint64{100, 0}, false, nil},
		{"ioctl of a terminal", unix.SYS_IOCTL, [6]uint64{0, unix.TCGETS, 100}, true, []span{{100, 64}}},
		{"other ioctl", unix.SYS_IOCTL, [6]uint64{0, 0x1234, 100}, false, nil},
		{"a number without call", 1 << 30, [6]uint64{}, false, nil},
	} {
		got, known := x.needs(&syscallInfo{op: callEntry, arch: auditArch, nr: c.nr, args: c.args})
		if known != c.known || known && !slices.Equal(got.spans, c.want) {
			t.Errorf("%s: %v %v, want %v %v", c.name, got.spans, known, c.want, c.known)
		}
	}
	if _, known := x.needs(&syscallInfo{op: callEntry, arch: 0x40000003, nr: unix.SYS_GETPID}); known {
		t.Error("a call of 32-bit code is taken for one of ours")
	}
}
