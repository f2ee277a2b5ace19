package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestDeleted(t *testing.T) {
	const size, hole = 1 << 20, 512 << 10
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		t.Run(dir, func(t *testing.T) {
			name := filepath.Join(dir, "hiatus-test-deleted")
			mtime := time.Unix(1000000000, 5)
			var blocks int64
			plugintest.RoundTrip(t, Definition(),
				func(t *testing.T) []int {
					a := open(t, name, unix.O_RDWR|unix.O_CREAT)
					b := open(t, name, unix.O_RDONLY)
					write(t, a, "begin")
					if _, err := unix.Pwrite(a, []byte("end"), hole); err != nil {
						t.Fatal(err)
					}
					if err := unix.Ftruncate(a, size); err != nil {
						t.Fatal(err)
					}
					if err := unix.Fchmod(a, 0o640); err != nil {
						t.Fatal(err)
					}
					if err := os.Chtimes(name, mtime, mtime); err != nil {
						t.Fatal(err)
					}
					if err := unix.Unlink(name); err != nil {
						t.Fatal(err)
					}
					read(t, b, 2)
					blocks = stat(t, a).Blocks
					return []int{a, b}
				},
				func(t *testing.T, fds []int) {
					a, b := fds[0], fds[1]
					st, other := stat(t, a), stat(t, b)
					if st.Ino != other.Ino || st.Nlink != 0 || st.Size != size || st.Mode != unix.S_IFREG|0o640 {
						t.Errorf("stat: %+v and %+v", st, other)
					}
					if st.Blocks > blocks {
						t.Errorf("%d blocks, were %d: the holes are lost", st.Blocks, blocks)
					}
					if time.Unix(st.Mtim.Unix()) != mtime {
						t.Errorf("mtime %v, want %v", time.Unix(st.Mtim.Unix()), mtime)
					}
					if got := offset(t, a); got != 5 {
						t.Errorf("offset %d, want 5", got)
					}
					write(t, a, "+")
					if got := read(t, b, 4); got != "gin+" {
						t.Errorf("read %q, want gin+", got)
					}
					end := make([]byte, 4)
					if _, err := unix.Pread(b, end, hole); err != nil || string(end) != "end\x00" {
						t.Errorf("read %q, %v at the end", end, err)
					}
				})
		})
	}
}

// A file that never had a name can still be given one.
func TestTmpfile(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Skipf("no O_TMPFILE here: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			write(t, fd, "content")
			return []int{fd}
		},
		func(t *testing.T, fds []int) {
			name := filepath.Join(dir, "linked")
			if err := unix.Linkat(unix.AT_FDCWD, procSelf(fds[0]), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(name); err != nil || string(got) != "content" {
				t.Errorf("read %q, %v", got, err)
			}
		})
}

func TestDeletedWithDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	var link string
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			fd := open(t, filepath.Join(dir, "f"), unix.O_RDWR|unix.O_CREAT)
			write(t, fd, "content")
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			link = plugintest.OpenFile(t, 1, fd).Link
			return []int{fd}
		},
		func(t *testing.T, fds []int) {
			b := make([]byte, 9)
			if n, err := unix.Pread(fds[0], b, 0); err != nil || string(b[:n]) != "content" {
				t.Errorf("read %q, %v", b[:n], err)
			}
			if got := plugintest.OpenFile(t, 1, fds[0]).Link; got != link {
				t.Errorf("link %s, want %s", got, link)
			}
		})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the deleted directory is back: %v", err)
	}
}

func TestDeletedTooLarge(t *testing.T) {
	h := plugintest.NewHost(t)
	h.SetConfig(`{"deleted_max": 3}`)
	f := plugintest.OpenFile(t, 1, openDeleted(t, "1234"))
	requireReason(t, refused(t, h, f), f, "the deleted file holds more than deleted_max bytes")
}

// The offset is the program's: the checkpoint must not move it.
func TestClaimMovesNothing(t *testing.T) {
	fd := openDeleted(t, "0123456789")
	read(t, fd, 4)
	checkpoint(t, plugintest.NewHost(t), plugintest.OpenFile(t, 1, fd))
	if got := offset(t, fd); got != 4 {
		t.Errorf("offset %d, want 4", got)
	}
}

// A deleted directory, by which nothing but itself is reached.
func TestDeletedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			a, b := open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), open(t, dir, unix.O_PATH)
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			return []int{a, b}
		},
		func(t *testing.T, fds []int) {
			if a, b := stat(t, fds[0]), stat(t, fds[1]); a.Ino != b.Ino || a.Mode != unix.S_IFDIR|0o700 || status(t, fds[1])&unix.O_PATH == 0 {
				t.Errorf("stat %+v and %+v", a, b)
			}
			if err := unix.Fchdir(fds[0]); err != nil {
				t.Error(err)
			}
			if err := os.Chdir("/"); err != nil {
				t.Error(err)
			}
		})
}

func TestMemfd(t *testing.T) {
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	plugintest.RoundTrip(t, Definition(),
		func(t *testing.T) []int {
			fd, err := unix.MemfdCreate("name", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			write(t, fd, "content")
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
				t.Fatal(err)
			}
			return []int{fd}
		},
		func(t *testing.T, fds []int) {
			b := make([]byte, 9)
			if n, err := unix.Pread(fds[0], b, 0); err != nil || string(b[:n]) != "content" {
				t.Errorf("read %q, %v", b[:n], err)
			}
			if got, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0); err != nil || got != seals {
				t.Errorf("seals %#x, %v, want %#x", got, err, seals)
			}
			if got := plugintest.OpenFile(t, 1, fds[0]).Link; got != "/memfd:name (deleted)" {
				t.Errorf("link %s", got)
			}
		})
}
