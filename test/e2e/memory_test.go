package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// sharer is two processes that count, each for itself, and in shared memory that each has
// by its name: the first as an open file, the second only mapped. What they have in common
// and what each remembers must fit. The second file grows by a page at each step, up to a
// limit, and has two links, which are not the name by which it was opened.
const sharer = `
import mmap, os, struct, time
folder = open("folder").read()
progress = os.open("progress", os.O_RDWR | os.O_CREAT, 0o600)
name, other = folder + "/one", folder + "/two"
f = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
def get(m, at):
    return memoryview(m).cast("i")[at // 4]
def put(m, at, n):
    memoryview(m).cast("i")[at // 4] = n # struct.pack_into writes zeros first
def wrong(text):
    open("failed", "w").write(text)
    os._exit(3)
if os.fork() == 0:
    g = os.open(name, os.O_RDWR)
    mine = mmap.mmap(g, 1 << 20)
    os.close(g)
    os.close(f)
    m.close()
    n = 0
    while True:
        while get(mine, 0) == n:
            time.sleep(0.001)
        if get(mine, 0) == -1:
            os._exit(0)
        n += 1
        if get(mine, 0) != n:
            wrong("the second process expects %d, and finds %d" % (n, get(mine, 0)))
        put(mine, 500000, n)
two = os.open(other + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.ftruncate(two, 4096)
os.link(other + ".new", other)
os.link(other + ".new", other + "-linked")
os.unlink(other + ".new")
small = mmap.mmap(two, 4096)
n = 0
while not os.path.exists("stop"):
    if get(m, 500000) != n or get(small, 0) != n or os.fstat(two).st_size != 4096 + 4096 * min(n, 50):
        wrong("the first process is at %d, and finds %d, %d, %d bytes" % (n, get(m, 500000), get(small, 0), os.fstat(two).st_size))
    n += 1
    put(m, 0, n)
    put(small, 0, n)
    os.ftruncate(two, 4096 + 4096 * min(n, 50))
    while get(m, 500000) != n:
        time.sleep(0.001)
    third = os.open(name, os.O_RDWR)
    if os.pread(third, 4, 500000) != struct.pack("i", n) or os.stat(name).st_mode & 0o777 != 0o640:
        wrong("by its name it is another")
    os.close(third)
    os.pwrite(progress, b"%08d" % n, 0)
    time.sleep(0.01)
put(m, 0, -1)
os.wait()
print("ok", flush=True)
os._exit(0)
`

// launchSharer starts the sharer, and returns the folder with its memory.
func (tr *trial) launchSharer(flags ...string) string {
	tr.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "ht-")
	if err != nil {
		tr.Fatal(err)
	}
	tr.Cleanup(func() { _ = os.RemoveAll(folder) })
	tr.own(folder)
	tr.write("folder", folder)
	tr.write("sharer.py", sharer)
	tr.launchWith(flags, "python3", "sharer.py")
	tr.advance(2)
	return folder
}

// adviceAllTheTime has a program that changes advices of its memory without a pause, so that what is read of
// them before the program stands still is never true any more.
func adviceAllTheTime(tr *trial) {
	tr.launch("python3", "-c", `
import mmap, os
ballast = bytearray(b"x") * (32 << 20)
advised = [mmap.mmap(-1, 16384) for _ in range(40)]
progress = os.open("progress", os.O_RDWR | os.O_CREAT, 0o600)
n = 0
while not os.path.exists("stop"):
    n += 1
    for i, m in enumerate(advised): # MADV_DONTDUMP and MADV_DODUMP, another pattern each time
        m.madvise(16 + (n * 2654435761 >> (i % 24) & 1))
    if n % 50 == 0:
        os.pwrite(progress, b"%08d" % (n // 50), 0)
print("ok", flush=True)
`)
	tr.advance(2)
	tr.checkpoint()
	tr.advance(2)
	tr.checkpoint()
	tr.crash()
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// crash ends the program without a word.
func (tr *trial) crash() {
	tr.Helper()
	tr.killAll()
	tr.wait(tr.front)
	tr.gone()
	tr.write("progress", "00000000")
}

// refusesMemory expects a restart to be refused because of a file, which stays as it is.
func (tr *trial) refusesMemory(file, want string, flags ...string) {
	tr.Helper()
	before := tr.contentOf(file)
	o := tr.hiatus(append([]string{"restart", tr.images()}, flags...)...)
	if o.code != 99 || !strings.Contains(o.stderr, file) || !strings.Contains(o.stderr, want) {
		tr.Fatalf("restart: %s: want exit code 99, %s and %q", o, file, want)
	}
	if tr.contentOf(file) != before {
		tr.Errorf("%s has changed", file)
	}
	tr.onlyNamed(filepath.Dir(file))
}

func (tr *trial) contentOf(file string) string {
	tr.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tr.Fatal(err)
	}
	return string(b)
}

// onlyNamed makes sure that nothing of a restart is left in a folder.
func (tr *trial) onlyNamed(folder string) {
	tr.Helper()
	if left, err := filepath.Glob(folder + "/.*"); err != nil || len(left) > 0 {
		tr.Errorf("left behind: %q, %v", left, err)
	}
}

// namedMemory lets the program run on behind a checkpoint and crash: what it shares by a
// name comes back as it was, as all else.
func namedMemory(tr *trial) {
	folder := tr.launchSharer()
	for range 2 {
		tr.checkpoint()
		var before, after unix.Stat_t
		if err := unix.Stat(folder+"/two", &before); err != nil {
			tr.Fatal(err)
		}
		tr.advance(3)
		tr.crash()
		for range 2 { // of one image
			tr.restart()
			tr.advance(3)
			tr.crash()
		}
		tr.restart("--allow-changed-files") // which it is not
		tr.advance(3)
		if err := unix.Stat(folder+"/two-linked", &after); err != nil || before.Ino != after.Ino {
			tr.Errorf("it is another file: %v", err)
		}
		tr.onlyNamed(folder)
	}
	tr.suspend()
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// namedMemorySaved keeps the content of open files too: memory stays memory.
func namedMemorySaved(tr *trial) {
	tr.launchSharer("--ckpt-open-files")
	tr.checkpoint()
	for _, flag := range []string{"--allow-changed-files", "--allow-file-overwrite"} {
		tr.advance(3)
		tr.crash()
		tr.restart(flag)
	}
	tr.advance(3)
	tr.finish()
}

// namedMemoryGone removes what the program shares, as a boot does.
func namedMemoryGone(tr *trial) {
	folder := tr.launchSharer("--incremental")
	for range 2 {
		tr.checkpoint()
		tr.advance(2)
	}
	tr.crash()
	for _, flags := range [][]string{nil, {"--lazy"}} {
		if err := os.RemoveAll(folder); err != nil {
			tr.Fatal(err)
		}
		tr.restart(flags...)
		tr.advance(3)
		tr.crash()
	}
	if _, err := unix.Getxattr(folder+"/one", "user.hiatus.remade", nil); err == nil { // Linux 6.6
		tr.restart()
		tr.advance(3)
		tr.crash()
	}
	tr.restart("--allow-file-overwrite")
	tr.advance(3)
	tr.suspend()
	tr.restart()
	tr.advance(3)
	tr.finish()
}

// namedMemoryUsed restarts a program whose memory others use: itself, and somebody
// outside.
func namedMemoryUsed(tr *trial) {
	folder := tr.launchSharer()
	tr.checkpoint()
	original := tr.front
	tr.refusesMemoryOfTwin(folder + "/one")
	tr.front = original
	tr.advance(3)
	tr.suspend()
	file, err := os.OpenFile(folder+"/two", os.O_RDWR, 0)
	if err != nil {
		tr.Fatal(err)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err := errors.Join(err, file.Close()); err != nil {
		tr.Fatal(err)
	}
	tr.refusesMemory(folder+"/two", "other processes use it now")
	tr.write("progress", "00000000")
	tr.restart("--allow-changed-files")
	tr.advance(3)
	if log := tr.read("hiatus.log"); !strings.Contains(log, "shared memory is as it is now") {
		tr.Error("no warning")
	}
	if err := unix.Munmap(memory); err != nil {
		tr.Error(err)
	}
	tr.finish()
}

// refusesMemoryOfTwin expects a second restart beside the running program to be refused.
func (tr *trial) refusesMemoryOfTwin(file string) {
	tr.Helper()
	o := tr.hiatus("restart", tr.images(), "--name", "twin")
	if o.code != 99 || !strings.Contains(o.stderr, file) || !strings.Contains(o.stderr, "other processes use it now") {
		tr.Fatalf("restart: %s: want exit code 99 and %s", o, file)
	}
}

// namedMemoryReplaced has another file take the name.
func namedMemoryReplaced(tr *trial) {
	folder := tr.launchSharer("--ckpt-open-files")
	tr.suspend()
	one := folder + "/one"
	if err := os.Remove(one); err != nil {
		tr.Fatal(err)
	}
	if err := os.WriteFile(one, []byte("somebody's own"), 0o640); err != nil {
		tr.Fatal(err)
	}
	tr.own(one)
	tr.refusesMemory(one, "another file has taken its name")
	tr.restart("--allow-file-overwrite")
	tr.advance(3)
	tr.onlyNamed(folder)
	tr.finish()
}

// namedMemoryRead has memory that the program could write to, and only reads, as that of
// a daemon's: it may be in use at a restart.
func namedMemoryRead(tr *trial) {
	file, err := os.CreateTemp("/dev/shm", "ht-")
	if err != nil {
		tr.Fatal(err)
	}
	defer file.Close()
	tr.Cleanup(func() { _ = os.Remove(file.Name()) })
	tr.own(file.Name())
	if _, err := file.WriteString("before"); err != nil {
		tr.Fatal(err)
	}
	tr.launch("python3", "-c", fmt.Sprintf(progresses+`
import mmap, os, time
m = mmap.mmap(os.open("%s", os.O_RDWR), 6, prot=mmap.PROT_READ)
n = 0
while not os.path.exists("stop"):
    n += 1
    progress(n)
    time.sleep(0.02)
print("ok" if m[:] == b"behind" else m[:], flush=True)
`, file.Name()))
	tr.advance(2)
	tr.suspend()
	if _, err := file.WriteAt([]byte("behind"), 0); err != nil {
		tr.Fatal(err)
	}
	tr.restart()
	tr.advance(2)
	tr.suspend()
	other := file.Name() + "-other" // as another's, who may make such a file anew
	if err := errors.Join(os.WriteFile(other, []byte("behind"), 0o600), os.Rename(other, file.Name())); err != nil {
		tr.Fatal(err)
	}
	tr.own(file.Name())
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// namedMemoryCut cuts shared memory of which a process has private pages too, and locks it.
func namedMemoryCut(tr *trial) {
	name := filepath.Join("/dev/shm", filepath.Base(tr.dir))
	tr.Cleanup(func() { _ = os.Remove(name) })
	tr.launch("python3", "-c", fmt.Sprintf(progresses+`
import ctypes, mmap, os, time
f = os.open("%s", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(f, 1 << 20)
shared = mmap.mmap(f, 1 << 20)
own = mmap.mmap(f, 1 << 20, flags=mmap.MAP_PRIVATE)
libc = ctypes.CDLL(None, use_errno=True)
if libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(shared, 900000)), 4096):
    print("mlock", ctypes.get_errno(), flush=True)
shared[1000000], own[1000000] = 1, 2
n = 0
while not os.path.exists("stop"):
    n += 1
    progress(n)
    time.sleep(0.02)
locked = [l for l in open("/proc/self/status") if l.startswith("VmLck")][0].split()[1]
print("ok" if (shared[1000000], own[1000000], locked) == (1, 2, "8") else (shared[1000000], own[1000000], locked), flush=True)
`, name))
	tr.advance(2)
	tr.suspend()
	if err := os.Truncate(name, 4096); err != nil {
		tr.Fatal(err)
	}
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// lockedWithoutAccess is a program that keeps a secret as libraries do: in locked memory to
// which it has no access but when it needs it. It is locked again, and nothing warns that it is not.
func lockedWithoutAccess(tr *trial) {
	tr.write("secret.py", progresses+`import ctypes, mmap, os, time
c = ctypes.CDLL(None, use_errno=True)
m = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m[:6] = b"secret"
at = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m)))
assert c.mlock(at, 8192) == 0
n = 0
while not os.path.exists("stop"):
    assert c.mprotect(at, 8192, 3) == 0
    assert m[:6] == b"secret"
    assert c.mprotect(at, 8192, 0) == 0
    time.sleep(0.02)
    head = "%x-" % at.value
    lines = open("/proc/self/smaps").read().split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith(head))
    assert " lo " in next(line for line in lines[first:] if line.startswith("VmFlags:")) + " "
    n += 1
    progress(n)
print("ok", flush=True)
`)
	tr.launch("python3", "secret.py")
	tr.advance(2)
	tr.suspend()
	tr.restart()
	tr.advance(2)
	if said := tr.read("stderr"); strings.Contains(said, "unlocked") {
		tr.Errorf("want no warning of locked memory, got %q", said)
	}
	tr.finish()
}

// joinedSharer counts for itself, and in shared memory that the other trees have too.
const joinedSharer = `
import mmap, os, sys, time
os.chdir(os.environ["HT_DIR"])
name, at, n = sys.argv[1], int(sys.argv[2]), 0
f = os.open(sys.argv[3], os.O_RDWR)
m = mmap.mmap(f, 8192)
progress = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
while not os.path.exists("stop"):
    if m[at] != n % 256:
        open("failed", "w").write("%s is at %d, and finds %d" % (name, n % 256, m[at]))
        os._exit(3)
    n += 1
    m[at] = n % 256
    os.pwrite(progress, b"%08d %06d" % (n, os.getpid()), 0)
    time.sleep(0.01)
print("ok", flush=True)
`

// showJoinedMemory has two trees share memory by its name.
func showJoinedMemory(tr *trial) {
	memory := filepath.Join("/dev/shm", filepath.Base(tr.dir))
	if err := os.WriteFile(memory, make([]byte, 8192), 0o600); err != nil {
		tr.Fatal(err)
	}
	tr.Cleanup(func() { _ = os.Remove(memory) })
	tr.own(memory)
	tr.write("sharer.py", joinedSharer)
	tr.launch("python3", tr.path("sharer.py"), "one", "0", memory)
	tr.steps(1, "one")
	tr.start("launch", "--join", tr.name, "--", "python3", tr.path("sharer.py"), "two", "5000", memory)
	tr.steps(1, "two")
	tr.checkpoint()
	for range 3 {
		tr.steps(20, "one", "two")
		tr.killAll()
		for _, f := range tr.fronts {
			tr.wait(f)
		}
		tr.gone()
		tr.write("one", "00000000 000000")
		tr.write("two", "00000000 000000")
		if err := os.WriteFile(memory, bytes.Repeat([]byte("longer"), 10<<20), 0o600); err != nil { // both cut it
			tr.Fatal(err)
		}
		tr.restart()
		tr.steps(1, "one", "two")
	}
	tr.finish()
	tr.gone()
}

// TestMemoryFaults fails restarts, and ends their agents: shared memory with a name is as
// it was, or at worst, where the agent was ended in the moment, as the next restart makes it.
func TestMemoryFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newFaultSuite(t)
	s.require(t, "python3")
	for _, id := range s.faultIdentities() {
		t.Run(id.name, func(t *testing.T) {
			t.Parallel()
			f := s.newFaulted(t, id)
			memoryFaults(f)
		})
	}
}

func memoryFaults(f *faulted) {
	folder := f.launchSharer()
	f.checkpoint()
	f.advance(3)
	f.crash()
	one, two := f.contentOf(folder+"/one"), f.contentOf(folder+"/two")
	for _, action := range []string{"error ENOMEM", "kill"} {
		for _, step := range []faultpoint.Step{faultpoint.RestartMemory, faultpoint.RestartThreads, faultpoint.RestartPublished, faultpoint.RestartRestored} {
			f.order(string(step) + ": " + action)
			f.front = f.start("restart", f.images())
			if code := f.wait(f.front); code == 0 {
				f.Errorf("%s: the restart has succeeded", step)
			}
			f.gone()
			published := action == "kill" && (step == faultpoint.RestartPublished || step == faultpoint.RestartRestored)
			if changed := f.contentOf(folder+"/one") != one || f.contentOf(folder+"/two") != two; changed != published {
				f.Errorf("%s: %s: the memory has changed: %t, want %t", step, action, changed, published)
			}
			f.onlyNamed(folder)
		}
	}
	if err := errors.Join(os.Remove(folder+"/one"), os.Remove(folder+"/two"), os.Remove(folder+"/two-linked")); err != nil {
		f.Fatal(err)
	}
	f.order(string(faultpoint.RestartThreads) + ": kill")
	f.front = f.start("restart", f.images())
	f.wait(f.front)
	f.gone()
	f.order()
	f.restart()
	f.advance(3)
	f.onlyNamed(folder)
	f.finish()
}
