package proc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// swapOn gives the host 64 MiB of swap.
func swapOn(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give the host swap")
	}
	if _, err := exec.LookPath("mkswap"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "swap")
	if out, err := exec.Command("sh", "-c", `dd if=/dev/zero of="$1" bs=1M count=64 status=none && chmod 600 "$1" && mkswap "$1"`, "sh", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name := append([]byte(path), 0)
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&name[0])), 0, 0); errno != 0 {
		t.Skipf("swapon: %v", errno)
	}
	t.Cleanup(func() {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(&name[0])), 0, 0); errno != 0 {
			t.Errorf("swapoff: %v", errno)
		}
	})
}

// TestSwappedSharedMemory saves shared memory with holes that is swapped out: all of it,
// and no page is made in the holes.
func TestSwappedSharedMemory(t *testing.T) {
	swapOn(t)
	const pages = 256 // that testdata/swapped.c has written to
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "swapped")))
	var start uint64
	if _, err := fmt.Sscanf(x.line(), "%v", &start); err != nil {
		t.Fatal(err)
	}
	if rss, swap := residentAt(t, x.pid, start); rss+swap != pages*4096 || swap == 0 {
		t.Skipf("%d bytes are present, and %d swapped out", rss, swap)
	}
	tree := x.freeze()
	st := x.inspect(tree)
	m := tree.NewMemory(st, nil)
	defer m.Close()
	runs, err := m.pageRuns(soon(t), nil, everything, itself)
	if err != nil {
		t.Fatal(err)
	}
	saved := 0
	for _, r := range runs {
		if r.addr < start || r.addr >= start+16<<20 {
			continue
		}
		b := make([]byte, r.len)
		if err := r.read(b); err != nil {
			t.Fatal(err)
		}
		for off := 0; off < len(b); off += 4096 {
			i := (r.addr + uint64(off) - start) / 4096
			if want := byte(1 + i/16%255); i%16 != 0 || b[off] != want || b[off+4095] != want {
				t.Errorf("page %d: %d, want %d", i, b[off], want)
			}
			saved++
		}
	}
	if saved != pages {
		t.Errorf("%d pages are saved, want %d", saved, pages)
	}
	x.release(tree)
	if rss, swap := residentAt(t, x.pid, start); rss+swap != pages*4096 {
		t.Errorf("then %d bytes are present and %d swapped out, want %d together", rss, swap, pages*4096)
	}
	if got := x.ask("check"); got != "ready" {
		t.Error(got)
	}
}

// residentAt returns how much of the mapping at start is present, and how much swapped out.
func residentAt(t *testing.T, pid int, start uint64) (rss, swap uint64) {
	t.Helper()
	vmas, err := procfs.ReadSmaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vmas {
		if v.Start == start {
			return v.Rss, v.Swap
		}
	}
	t.Fatalf("no mapping at %#x", start)
	return 0, 0
}

// TestDeathInThePause ends the program when it has been copied, and its shared memory is still
// to be read: nobody takes it for zeros, or for nothing.
func TestDeathInThePause(t *testing.T) {
	x := launchCopied(t)
	tree := x.freeze()
	defer x.release(tree)
	m := tree.NewMemory(x.inspect(tree), nil)
	defer m.Close()
	runs, err := m.pageRuns(soon(t), nil, func(_ *Process, s *MapState) bool { return s.Shared }, itself)
	if err != nil || len(runs) == 0 {
		t.Fatal(runs, err)
	}
	if err := unix.Kill(x.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return stateOf(t, x.pid) == 'Z' })
	for i := range runs {
		runs[i].holes = true
	}
	if err := m.hold(soon(t), runs); err == nil {
		t.Error("memory of a process that has ended was read")
	}
	if _, err := m.pageRuns(soon(t), nil, everything, itself); err == nil {
		t.Error("pages of a process that has ended were listed")
	}
}
