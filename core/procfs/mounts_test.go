package procfs

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFilesystems(t *testing.T) {
	got := parseFilesystems("22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n" +
		"24 22 0:5 / /dev rw - devtmpfs devtmpfs rw,size=4k\n30 24 0:26 /a\\040b /dev/shm rw master:2 propagate_from:1 - tmpfs tmpfs rw\nbroken\n")
	for dev, want := range map[uint64]string{unix.Mkdev(254, 0): "ext4", unix.Mkdev(0, 5): "devtmpfs", unix.Mkdev(0, 26): "tmpfs", unix.Mkdev(0, 9): ""} {
		if got[dev] != want {
			t.Errorf("device %#x: %q, want %q", dev, got[dev], want)
		}
	}
	if own, err := ReadFilesystems(1); err == nil && len(own) == 0 {
		t.Error("init sees no file system")
	}
}
