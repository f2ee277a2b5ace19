package e2e

import (
	"fmt"
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
	const names = 8
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
			if _, err := fmt.Sscan(line, &key, &id); err != nil || key>>4 != ipcKey(dir)>>4 {
				continue
			}
			if errno := remove(id); errno != 0 {
				t.Errorf("%s %d: %v", kind, id, errno)
			}
		}
	}
	for n := range names {
		name := ipcName(dir, n)
		_ = os.Remove("/dev/shm/" + name)
		_ = os.Remove("/dev/shm/sem." + name) // sem_open(3)
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

// mqueueMount looks at POSIX message queues by their directory: a restored tree
// sees its own there.
func mqueueMount(tr *trial) {
	tr.privately("mkdir -p dev && mount -t tmpfs dev dev && >dev/null && mount --bind /dev/null dev/null && " +
		"mkdir dev/mqueue && mount -t mqueue mqueue dev/mqueue && mount --rbind dev /dev")
	const program = `>/dev/mqueue/queue; exec 3</dev/mqueue; n=0
while :; do
	n=$((n + 1)); echo $n >progress
	while [ ! -e go.$n ]; do sleep 0.02; done
	[ "$(ls /dev/mqueue)" = queue ] && [ "$(ls /proc/self/fd/3/)" = queue ] && grep -q '^QSIZE:0 ' /dev/mqueue/queue || exit 9
	if [ -e stop ]; then echo ok; exit; fi
done`
	tr.launch("sh", "-c", program)
	tr.reach(1)
	for n := range int64(2) {
		tr.suspend()
		tr.restart("--namespaces", "always")
		tr.running()
		tr.write(fmt.Sprintf("go.%d", n+1), "")
		tr.await("the queue", func() bool { return tr.progress() == n+2 })
	}
	tr.write("stop", "")
	tr.write("go.3", "")
	tr.ends(tr.front, 0)
	tr.saysOK(tr.front)
}
