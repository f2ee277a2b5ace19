package e2e

import (
	"fmt"
	"os"
	"path/filepath"
)

// namedMemoryReadByWriter has memory that the program maps for reading, and writes to by
// write(2): the user wants the saved content.
func namedMemoryReadByWriter(tr *trial) {
	name := filepath.Join("/dev/shm", filepath.Base(tr.dir))
	tr.Cleanup(func() { _ = os.Remove(name) })
	tr.launchWith([]string{"--ckpt-open-files"}, "python3", "-c", fmt.Sprintf(progresses+`
import mmap, os, time
f = os.open("%s", os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(f, b"%%08d" %% 0, 0)
m = mmap.mmap(f, 8, prot=mmap.PROT_READ)
n, said = 0, "ok"
while not os.path.exists("stop"):
    if int(m[:]) != n:
        said = "%%s, not %%d" %% (m[:], n)
    n += 1
    os.pwrite(f, b"%%08d" %% n, 0)
    progress(n)
    time.sleep(0.02)
print(said, flush=True)
`, name))
	tr.advance(2)
	tr.checkpoint()
	tr.advance(2)
	tr.crash()
	tr.restart("--allow-file-overwrite")
	tr.advance(3)
	tr.finish()
}

// savedAndMappedSince has a file in memory that the program maps behind the checkpoint: what
// it writes to a page there that it has read before moves no time of change.
func savedAndMappedSince(tr *trial) {
	name := filepath.Join("/dev/shm", filepath.Base(tr.dir))
	tr.Cleanup(func() { _ = os.Remove(name) })
	tr.launchWith([]string{"--ckpt-open-files"}, "python3", "-c", fmt.Sprintf(progresses+`
import mmap, os, time
f = os.open("%s", os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(f, b"%%08d" %% 0, 0)
written, m, n, said = 0, None, 0, "ok"
while not os.path.exists("stop"):
    if int(os.pread(f, 8, 0)) != written:
        said = "%%s, not %%d" %% (os.pread(f, 8, 0), written)
    if m is None and os.path.exists("go"):
        m = mmap.mmap(f, 8)
        m[:]
    if m is not None:
        written += 1
        m[:] = b"%%08d" %% written
    n += 1
    progress(n)
    time.sleep(0.02)
print(said, flush=True)
`, name))
	tr.advance(2)
	tr.checkpoint()
	tr.write("go", "")
	tr.advance(3)
	tr.crash()
	tr.restart("--allow-file-overwrite")
	tr.advance(3)
	tr.finish()
}

// carriedBesideWritten has a file mapped to which the program writes without end: no
// self-contained image carries it.
func carriedBesideWritten(tr *trial) {
	tr.launchWith([]string{"--self-contained"}, "python3", "-c", progresses+`
import mmap, os
f = os.open("data", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(f, 1 << 24)
m = mmap.mmap(f, 1 << 24, flags=mmap.MAP_PRIVATE)
n, said = 0, "ok"
while not os.path.exists("stop"):
    n += 1
    os.pwrite(f, b"%08d" % n, 1 << 23)
    if int(m[1 << 23:(1 << 23) + 8]) != n:
        said = "%s, not %d" % (m[1 << 23:(1 << 23) + 8], n)
    progress(n)
print(said, flush=True)
`)
	tr.advance(2)
	for range 3 {
		tr.checkpoint()
		tr.advance(2)
	}
	tr.suspend()
	tr.restart()
	tr.advance(2)
	tr.finish()
}
