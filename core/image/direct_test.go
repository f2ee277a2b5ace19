package image

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident counts the pages of a file that the page cache holds.
func resident(t *testing.T, path string) (pages, of int) {
	t.Helper()
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	size := int(must[os.FileInfo](t)(f.Stat()).Size())
	b := must[[]byte](t)(unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED))
	defer unix.Munmap(b)
	vec := make([]byte, (size+testPage-1)/testPage)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(size), uintptr(unsafe.Pointer(&vec[0]))); e != 0 {
		t.Fatal(e)
	}
	for _, v := range vec {
		pages += int(v & 1)
	}
	return pages, len(vec)
}

func TestDirectLeavesThePageCacheAlone(t *testing.T) {
	skipUnlessPage4K(t)
	dir := t.TempDir()
	var st unix.Statfs_t
	check(t, unix.Statfs(dir, &st))
	if st.Type == unix.TMPFS_MAGIC {
		t.Skip("the test's folder is on tmpfs, which is the page cache")
	}
	w := must[*Writer](t)(Create(dir, Options{Stripes: 2, Direct: true}))
	defer w.Abort()
	if err := w.Buffered(); err != nil {
		t.Skip(err)
	}
	for i := range 16 {
		check(t, w.PageWriter(i%2).Write(1, uint64(1+i)<<24, randomBytes(uint64(i), 1<<20+testPage)))
	}
	sum := must[Summary](t)(w.Close(t.Context()))
	for _, f := range sum.Files[1:] {
		if pages, of := resident(t, filepath.Join(dir, f.Name)); pages > of/10 {
			t.Errorf("%s: %d of %d pages are in the page cache", f.Name, pages, of)
		}
	}
}

func TestDirectWhereTheFileSystemHasNone(t *testing.T) {
	f := must[*os.File](t)(os.OpenFile("/dev/null", os.O_WRONLY, 0))
	defer f.Close()
	if _, err := newDirectFile(f); err == nil {
		t.Error("direct writes to /dev/null")
	}
}
