package e2e

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// TestIPCInPlace restarts IPC objects in the namespace of all others, as root does where
// their ids and names are free.
func TestIPCInPlace(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newSuite(t)
	if id := s.identities[0]; id.uid != 0 {
		t.Skip("only root restarts in the current namespaces")
	}
	s.buildFaults(t)
	s.require(t, "gcc")
	for _, name := range []string{"shm/sysv_unattached", "shm/sysv_removed", "shm/sem_undo", "shm/msg_users", "shm/mq_content"} {
		t.Run(name, func(t *testing.T) { // one after the other: their ids are to be free
			dir, file := filepath.Split(name)
			o := readObject(t, filepath.Join("../objects", dir, file+".c"))
			binary := s.buildObject(t, o)
			t.Run("failed", func(t *testing.T) { s.newFaulted(t, s.identities[0]).failsInPlace(o, binary) })
			t.Run("taken", func(t *testing.T) { s.newFaulted(t, s.identities[0]).isTaken(o, binary) })
		})
	}
}

// suspendObject leaves only the image of a fixture, and returns its processes and the
// ids of its segments.
func (f *faulted) suspendObject(o object, binary string) (pids, segments []int) {
	f.Helper()
	f.Cleanup(func() { removeIPC(f.T, f.dir) })
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--", binary)
	f.await("the first point", func() bool { return f.progress() >= 1 })
	pids = slices.DeleteFunc(f.processes(), func(pid int) bool { return pid == f.front.cmd.Process.Pid })
	for _, o := range readIPC(f.T, "shm") {
		if slices.Contains(pids, o.creator) {
			segments = append(segments, o.id)
		}
	}
	f.must("checkpoint", f.name, "--kill")
	f.wait(f.front)
	f.gone()
	removeIPC(f.T, f.dir)
	return pids, segments
}

// failsInPlace: of a restart that fails when all objects are there none is left.
func (f *faulted) failsInPlace(o object, binary string) {
	pids, _ := f.suspendObject(o, binary)
	f.front = nil
	for _, step := range []faultpoint.Step{faultpoint.RestartObjects, faultpoint.RestartFinished} {
		f.order(string(step) + ": error ENOMEM")
		out := f.hiatus("restart", f.images(), "--namespaces", "never")
		if out.code != 99 || !strings.Contains(out.stderr, "fault at "+string(step)) {
			f.Fatalf("restart: %s: want exit code 99 and the step", out)
		}
		if left := leftIPC(f.T, f.dir); left != "" {
			f.Errorf("%s: left: %s", step, left)
		}
		f.await("free process ids", func() bool { // orphans wait for the machine's init
			return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) == nil })
		})
	}
	f.order()
	f.front = f.run("restart", f.images(), "--namespaces", "never")
	f.pass(1)
	f.endsWith("ok\n")
}

// isTaken: what is taken when its place was found free is made in new namespaces, and
// whoever took it keeps it.
func (f *faulted) isTaken(o object, binary string) {
	_, segments := f.suspendObject(o, binary)
	fifo := f.fifo()
	f.order(fmt.Sprintf("%s: wait %s", faultpoint.RestartPrivate, fifo))
	f.front = f.run("restart", f.images())
	w := f.meet(fifo)
	present := f.takeIPC(o, segments)
	w.Close()
	f.pass(1)
	if !strings.Contains(f.read("hiatus.log"), "restart in new namespaces instead") {
		f.Error("its place was not found taken")
	}
	if !present() {
		f.Error("what has taken the place is gone")
	}
	f.endsWith("ok\n")
}

// endsWith asks the program to end, which prints text last.
func (f *faulted) endsWith(text string) {
	f.Helper()
	f.write("stop", "")
	f.ends(f.front, 0)
	if out := f.read("stdout"); !strings.HasSuffix(out, text) {
		f.Errorf("the program did not print %q, but %q: %s", text, out, f.read("failed"))
	}
	f.nothingLeft()
}

// takeIPC makes an object with the key, name or id of one of the fixture's.
func (f *faulted) takeIPC(o object, segments []int) (present func() bool) {
	f.Helper()
	const create = 0o1000 | 0o2000 | 0o600 // IPC_CREAT, IPC_EXCL
	key := uintptr(ipcKey(f.dir))
	get := map[string]func() (uintptr, uintptr, syscall.Errno){
		"shm/sysv_unattached": func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(syscall.SYS_SHMGET, key, 1, create) },
		"shm/sysv_removed": func() (uintptr, uintptr, syscall.Errno) {
			if len(segments) != 1 {
				f.Fatalf("segments %v: want one", segments)
			}
			if err := os.WriteFile("/proc/sys/kernel/shm_next_id", []byte(strconv.Itoa(segments[0])), 0); err != nil {
				f.Fatal(err)
			}
			return syscall.Syscall(syscall.SYS_SHMGET, 0, 1, create)
		},
		"shm/sem_undo":  func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(syscall.SYS_SEMGET, key, 1, create) },
		"shm/msg_users": func() (uintptr, uintptr, syscall.Errno) { return syscall.Syscall(syscall.SYS_MSGGET, key, create, 0) },
		"shm/mq_content": func() (uintptr, uintptr, syscall.Errno) {
			return openQueue(f.T, ipcName(f.dir, 0), unix.O_CREAT|unix.O_EXCL)
		},
	}[o.name]
	id, _, errno := get()
	if errno != 0 {
		f.Fatalf("take the place: %v", errno)
	}
	if o.name == "shm/mq_content" {
		_ = unix.Close(int(id))
		return func() bool { return leftIPC(f.T, f.dir) == "POSIX message queue "+ipcName(f.dir, 0) }
	}
	kind := map[string]string{"shm/sem_undo": "sem", "shm/msg_users": "msg"}[o.name]
	if kind == "" {
		kind = "shm"
	}
	there := func() bool {
		for _, o := range readIPC(f.T, kind) {
			if o.id == int(id) {
				return true
			}
		}
		return false
	}
	if kind == "shm" {
		f.Cleanup(func() { _ = control(syscall.SYS_SHMCTL, int(id), 0) })
	}
	return there
}

// ipcObject is a line of /proc/sysvipc.
type ipcObject struct{ key, id, creator int }

func readIPC(t *testing.T, kind string) (objects []ipcObject) {
	table, err := os.ReadFile("/proc/sysvipc/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		var o ipcObject
		var mode, size int
		if _, err := fmt.Sscan(line, &o.key, &o.id, &mode, &size, &o.creator); err == nil {
			objects = append(objects, o)
		}
	}
	return objects
}

// leftIPC names an object of the fixture in dir that exists here.
func leftIPC(t *testing.T, dir string) string {
	for _, kind := range []string{"shm", "sem", "msg"} {
		for _, o := range readIPC(t, kind) {
			if o.key>>4 == ipcKey(dir)>>4 {
				return fmt.Sprintf("%s %d", kind, o.id)
			}
		}
	}
	fd, _, errno := openQueue(t, ipcName(dir, 0), 0)
	if errno == 0 {
		_ = unix.Close(int(fd))
		return "POSIX message queue " + ipcName(dir, 0)
	}
	return ""
}

func openQueue(t *testing.T, name string, flags uintptr) (uintptr, uintptr, syscall.Errno) {
	b, err := syscall.BytePtrFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	return syscall.Syscall6(syscall.SYS_MQ_OPEN, uintptr(unsafe.Pointer(b)), flags|unix.O_RDONLY|unix.O_CLOEXEC, 0o600, 0, 0, 0)
}

func ipcHash(dir string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(dir))
	return h.Sum32()
}

// ipcKey is the first key of the fixture in dir, and ipcName a name: as in
// test/objects/shm/ipc.h.
func ipcKey(dir string) int { return 0x48000000 | int(ipcHash(dir)&0xfffff)<<4 }

func ipcName(dir string, n int) string { return fmt.Sprintf("ht.%08x.%d", ipcHash(dir), n) }
