package e2e

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// removeIPC removes the System V and POSIX objects of fixtures, which outlive
// their program: those of test/objects/shm/ipc.h, whose keys and names come
// from HT_DIR.
func removeIPC(t *testing.T, dir string) {
	h := fnv.New32a()
	h.Write([]byte(dir))
	hash, names := h.Sum32(), 8
	for kind, remove := range map[string]func(id int) syscall.Errno{
		"shm": func(id int) syscall.Errno { return control(syscall.SYS_SHMCTL, id, 0) },
		"sem": func(id int) syscall.Errno { return control(syscall.SYS_SEMCTL, id, 0) },
		"msg": func(id int) syscall.Errno { return control(syscall.SYS_MSGCTL, id, 0) },
	} {
		table, err := os.ReadFile("/proc/sysvipc/" + kind)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(table)) {
			var key, id int
			if _, err := fmt.Sscan(line, &key, &id); err != nil || key>>4 != int(0x4800000|hash&0xfffff) {
				continue
			}
			if errno := remove(id); errno != 0 {
				t.Errorf("%s %d: %v", kind, id, errno)
			}
		}
	}
	for n := range names {
		name := fmt.Sprintf("ht.%08x.%d", hash, n)
		_ = os.Remove("/dev/shm/" + name)
		b, err := syscall.BytePtrFromString(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = syscall.Syscall(syscall.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(b)), 0, 0)
	}
}

// control is a call of shmctl, semctl or msgctl with IPC_RMID, whose command
// stands in another place for semaphores.
func control(nr uintptr, id, cmd int) syscall.Errno {
	_, _, errno := syscall.Syscall(nr, uintptr(id), uintptr(cmd), uintptr(cmd))
	return errno
}
