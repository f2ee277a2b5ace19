package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
)

// openAll opens an image and reads everything in it.
func openAll(t testing.TB, dir string) error {
	r, err := Open(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.VerifyPages(t.Context(), nil); err != nil {
		return err
	}
	buf := make([]byte, maxExtent)
	for _, e := range r.Extents() {
		if err := r.ReadExtent(e, buf[:e.Len]); err != nil {
			return err
		}
	}
	return nil
}

func TestRawImage(t *testing.T) {
	check(t, openAll(t, newRawImage().write(t)))
}

// TestLies opens images whose sums are right and whose content is not.
func TestLies(t *testing.T) {
	tests := []struct {
		name string
		lie  func(im *rawImage)
		want string
	}{
		{"machine", func(im *rawImage) { im.header.machine = 3 }, "unknown machine 3"},
		{"page size zero", func(im *rawImage) { im.header.pageSize = 0 }, "page size 0"},
		{"page size odd", func(im *rawImage) { im.header.pageSize = 5000 }, "page size 5000"},
		{"page size huge", func(im *rawImage) { im.header.pageSize = 1 << 31 }, "page size"},
		{"no stripes", func(im *rawImage) { im.header.stripes = 0 }, "0 stripes"},
		{"stripes huge", func(im *rawImage) { im.header.stripes = math.MaxUint32 }, "stripes"},
		{"stripe missing", func(im *rawImage) { im.header.stripes = 3 }, "missing"},
		{"size huge", func(im *rawImage) { im.header.size = math.MaxUint64 }, "header says"},
		{"sections huge", func(im *rawImage) { im.header.sections = math.MaxUint32 }, "section 2"},
		{"extents huge", func(im *rawImage) { im.header.extents = math.MaxUint64 }, "index of 18446744073709551615"},
		{"one extent more", func(im *rawImage) { im.header.extents++ }, "truncated"},
		{"one extent less", func(im *rawImage) { im.header.extents-- }, "damaged"},
		{"no extents", func(im *rawImage) { im.header.extents = 0 }, "behind its index"},
		{"tail", func(im *rawImage) { im.tail = []byte{0} }, "1 bytes behind its index"},
		{"payload huge", func(im *rawImage) { im.sections[0].length = math.MaxUint64 >> 1 }, "section 0 is damaged"},
		{"payload too long", func(im *rawImage) { im.sections[1].length = 100000 }, "section 1 is damaged"},
		{"payload short", func(im *rawImage) { im.sections[1].length = 1 }, "section 1 is damaged"},
		{"section twice", func(im *rawImage) { im.sections[1].name = "core" }, "stands twice"},
		{"section unnamed", func(im *rawImage) { im.sections[1].name = "" }, "name of 0 bytes"},
		{"section name long", func(im *rawImage) { im.sections[1].name = strings.Repeat("a", 256) }, "name of 256 bytes"},
		{"section name bytes", func(im *rawImage) { im.sections[1].name = "a\x1b[2J" }, "not printable"},
		{"length zero", func(im *rawImage) { im.extents[0].Len, im.extents[0].Stored = 0, 0 }, "extent 0: length 0"},
		{"length odd", func(im *rawImage) { im.extents[0].Len = 100 }, "extent 0: length 100"},
		{"length huge", func(im *rawImage) { im.extents[0].Len = 2 << 20 }, "extent 0: length 2097152"},
		{"address odd", func(im *rawImage) { im.extents[0].Addr = 1 }, "address 0x1"},
		{"address high", func(im *rawImage) { im.extents[2].Addr = math.MaxUint64 - testPage + 1 }, "address"},
		{"stripe number", func(im *rawImage) { im.extents[2].Stripe = 2 }, "stripe 2 of 2"},
		{"codec", func(im *rawImage) { im.extents[2].Codec = 9 }, "unknown codec 9"},
		{"raw shorter", func(im *rawImage) { im.extents[0].Stored = 1 }, "stored as 1 bytes of raw"},
		{"zstd longer", func(im *rawImage) { im.extents[0].Codec = Zstd }, "of zstd"},
		{"zstd empty", func(im *rawImage) { im.extents[0].Codec, im.extents[0].Stored = Zstd, 0 }, "stored as 0 bytes of zstd"},
		{"offset huge", func(im *rawImage) { im.extents[1].Offset = math.MaxUint64 }, "extent 1: offset"},
		{"offset beyond", func(im *rawImage) { im.extents[1].Offset = 1 << 40 }, "the one before ends at"},
		{"same stored bytes", func(im *rawImage) { im.extents[1].Offset = 0 }, "begins at offset 0"},
		{"same memory", func(im *rawImage) { im.extents[1].Addr = 0x1000 }, "overlaps"},
		{"memory overlaps", func(im *rawImage) {
			im.extents[0].Len, im.extents[0].Stored = 3*testPage, 3*testPage
			im.extents[1].Offset = 3 * testPage
		}, "overlaps"},
		{"spaces out of order", func(im *rawImage) { im.extents[2].Space = 0 }, "overlaps"},
		{"stripe long", func(im *rawImage) { im.stripes[0] = append(im.stripes[0], 0) }, "has 8193 bytes"},
		{"stripe short", func(im *rawImage) { im.stripes[1] = im.stripes[1][1:] }, "has 4095 bytes"},
		{"stripes swapped", func(im *rawImage) { im.stripes[0], im.stripes[1] = im.stripes[1], im.stripes[0] }, "has 4096 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			im := newRawImage()
			tt.lie(im)
			dir := im.write(t)
			before := allocated()
			err := openAll(t, dir)
			if n := allocated() - before; n > boundedMemory {
				t.Errorf("%d bytes were allocated", n)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				wantFormatError(t, err)
			}
		})
	}
}

// TestBadBlocks reads extents whose sums are right and whose blocks are not.
func TestBadBlocks(t *testing.T) {
	// RFC 8878: magic, a frame header with an 8-byte content size of 2^60;
	// and the length before an s2 block.
	bombs := map[Codec][]byte{
		Zstd: append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, binary.LittleEndian.AppendUint64(nil, 1<<60)...),
		S2:   append(binary.AppendUvarint(nil, 1<<31), 0, 0),
		LZ4:  append([]byte{0x1f, 'a', 1, 0}, bytes.Repeat([]byte{255}, testPage/2)...), // a match of 510 KiB
	}
	for _, codec := range []Codec{Zstd, S2, LZ4} {
		c := must[*compressor](t)(newCompressor(codec.String()))
		block := func(n int) []byte {
			stored, _, ok := c.encode(nil, textBytes(n))
			if !ok {
				t.Fatalf("%v: text does not shrink", codec)
			}
			return stored
		}
		for name, stored := range map[string][]byte{
			"no block":        []byte("not a block at all"),
			"too short":       block(testPage / 2),
			"too long":        block(2 * testPage),
			"truncated":       block(testPage)[:20],
			"claims too much": bombs[codec],
		} {
			t.Run(codec.String()+"/"+name, func(t *testing.T) {
				im := newRawImage()
				e := &im.extents[2]
				e.Codec, e.Stored, e.Sum = codec, uint64(len(stored)), xxh3.Hash(stored)
				im.stripes[1] = stored
				dir := im.write(t)
				before := allocated()
				wantFormatError(t, openAll(t, dir))
				if n := allocated() - before; n > boundedMemory {
					t.Errorf("%d bytes were allocated", n)
				}
			})
		}
	}
}

// boundedMemory is what the tests' small images may cost, whatever they claim.
const boundedMemory = 64 << 20

// allocated is how many bytes were allocated by now, freed or not.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestOtherFormat: an image of a later version is told from a damaged one, though
// its header may have another form.
func TestOtherFormat(t *testing.T) {
	im := newRawImage()
	dir, b := im.write(t), im.bytes()
	binary.LittleEndian.PutUint16(b[len(magic):], formatVersion+1)
	check(t, os.WriteFile(filepath.Join(dir, imageFile), b, fileMode))
	fe := wantFormatError(t, openAll(t, dir))
	if want := fmt.Sprintf("image format %d, want %d", formatVersion+1, formatVersion); fe.What != want {
		t.Errorf("%q, want %q", fe.What, want)
	}
}

// TestFlippedBits flips each bit of image.hia, and bits all over the stripes.
func TestFlippedBits(t *testing.T) {
	for _, compress := range []string{"none", "zstd", "s2", "lz4"} {
		dir := t.TempDir()
		sum := writeImage(t, dir, compress)
		check(t, openAll(t, dir))
		for i, info := range sum.Files {
			t.Run(compress+"/"+info.Name, func(t *testing.T) {
				f := must[*os.File](t)(os.OpenFile(filepath.Join(dir, info.Name), os.O_RDWR, 0))
				defer f.Close()
				step := int64(1)
				if i > 0 {
					step = 101 // bits
				}
				for bit := int64(0); bit < 8*info.Size; bit += step {
					flip(t, f, bit)
					wantFormatError(t, openAll(t, dir))
					flip(t, f, bit)
				}
			})
		}
		check(t, openAll(t, dir))
	}
}

func flip(t *testing.T, f *os.File, bit int64) {
	var b [1]byte
	must[int](t)(f.ReadAt(b[:], bit/8))
	b[0] ^= 1 << (bit % 8)
	must[int](t)(f.WriteAt(b[:], bit/8))
}

// TestTruncated cuts each file at each length.
func TestTruncated(t *testing.T) {
	im := newRawImage()
	whole := im.bytes()
	for n := range whole {
		dir := im.write(t)
		check(t, os.Truncate(filepath.Join(dir, imageFile), int64(n)))
		wantFormatError(t, openAll(t, dir))
	}
	// With a header that agrees: what is behind a border is missing.
	for n := headerSize; n < len(whole); n++ {
		dir := im.write(t)
		h := im.header
		h.size = uint64(n)
		check(t, os.WriteFile(filepath.Join(dir, imageFile), append(h.encode(), whole[headerSize:n]...), fileMode))
		wantFormatError(t, openAll(t, dir))
	}
}

// TestSwappedStripes exchanges stripes of the same size.
func TestSwappedStripes(t *testing.T) {
	im := newRawImage()
	im.extents = im.extents[1:]
	im.extents[0].Offset = 0
	im.header.extents = 2
	im.stripes[0] = im.stripes[0][testPage:]
	check(t, openAll(t, im.write(t)))
	im.stripes[0], im.stripes[1] = im.stripes[1], im.stripes[0]
	dir := im.write(t)
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	fe := wantFormatError(t, r.VerifyPages(t.Context(), nil))
	if !strings.Contains(fe.What, "checksum differs") {
		t.Error(fe)
	}
	for _, e := range r.Extents() {
		wantFormatError(t, r.ReadExtent(e, make([]byte, e.Len)))
	}
}

func TestTruncatedWhileOpen(t *testing.T) {
	dir := newRawImage().write(t)
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	check(t, os.Truncate(filepath.Join(dir, "pages.0"), 10))
	wantFormatError(t, r.VerifyPages(t.Context(), nil))
	e := r.Extents()[0]
	wantFormatError(t, r.ReadExtent(e, make([]byte, e.Len)))
}

func TestReadExtentRefuses(t *testing.T) {
	r := must[*Reader](t)(Open(newRawImage().write(t)))
	defer r.Close()
	page := make([]byte, testPage)
	for name, change := range map[string]func(e *Extent){
		"stripe": func(e *Extent) { e.Stripe = 5 },
		"length": func(e *Extent) { e.Len = 2 * testPage },
		"stored": func(e *Extent) { e.Stored = 1 << 40 },
		"codec":  func(e *Extent) { e.Codec = Zstd },
		"offset": func(e *Extent) { e.Offset = 1 << 40 },
		"sum":    func(e *Extent) { e.Sum++ },
	} {
		t.Run(name, func(t *testing.T) {
			e := r.Extents()[0]
			change(&e)
			if r.ReadExtent(e, page) == nil {
				t.Error("no error")
			}
		})
	}
}

// TestFileKinds puts things that are not regular files in the place of files.
func TestFileKinds(t *testing.T) {
	kinds := map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, fileMode) },
		"folder": func(path string) error { return os.Mkdir(path, private.DirMode) },
	}
	for kind, make := range kinds {
		for _, name := range []string{imageFile, "pages.1"} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				dir := newRawImage().write(t)
				path := filepath.Join(dir, name)
				check(t, os.Remove(path))
				check(t, make(path))
				wantFormatError(t, openAll(t, dir))
			})
		}
	}
	t.Run("folder is a link", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		check(t, os.Symlink(newRawImage().write(t), link))
		wantFormatError(t, openAll(t, link))
	})
	t.Run("missing", func(t *testing.T) {
		if err := openAll(t, t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v, want ErrNotExist", err)
		}
	})
}

// TestOtherOwner opens what belongs to another user: for an ordinary user the
// root folder; for root a folder, and a stripe, of root's from a thread with
// another effective uid.
func TestOtherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		wantFormatError(t, openAll(t, "/"))
		t.Skip("only root can make files of another owner; tried the root folder")
	}
	const other = 12345
	dir := newRawImage().write(t)
	for _, name := range []string{imageFile, "pages.0", "pages.1"} {
		check(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	check(t, os.Chown(filepath.Join(dir, imageFile), other, other))
	check(t, openAll(t, dir)) // root reads any

	for path := dir; path != os.TempDir(); path = filepath.Dir(path) {
		check(t, os.Chmod(path, 0o755))
	}
	for name, uid := range map[string]int{"folder": 0, "stripe": other} {
		t.Run(name, func(t *testing.T) {
			check(t, os.Chown(dir, uid, uid))
			err := asUser(other, func() error { return openAll(t, dir) })
			fe := wantFormatError(t, err)
			if !strings.Contains(fe.What, "belongs to uid 0, not to uid 12345") {
				t.Error(fe)
			}
		})
	}
}

// TestOpenPlace: root takes no generation of another user's from a place where
// anybody may have put it.
func TestOpenPlace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user takes none of another user's at all")
	}
	const other = 12345
	genDir := commit(t, newStore(t), 1, testComputation)
	_, err := ReadManifest(genDir) // below /tmp, but root's own
	check(t, err)
	check(t, os.Chown(genDir, other, other))
	_, err = ReadManifest(genDir)
	if fe := wantFormatError(t, err); !strings.Contains(fe.What, "belongs to uid 12345, and everybody may write to /") {
		t.Error(fe)
	}
	own := filepath.Join("/root", filepath.Base(t.TempDir())+"-hiatus-test")
	if err := os.Mkdir(own, private.DirMode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, os.RemoveAll(own)) })
	moved := filepath.Join(own, "00001")
	check(t, os.CopyFS(moved, os.DirFS(genDir)))
	check(t, errors.Join(os.Chmod(moved, private.DirMode), os.Chown(moved, other, other)))
	_, err = ReadManifest(moved)
	check(t, err)
}

// asUser runs f in a thread with another effective uid, which the raw call
// sets for one thread only (setresuid(2), C library differences). The thread
// ends with its goroutine, since it stays locked.
func asUser(uid int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		keep := ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			done <- errno
			return
		}
		done <- f()
	}()
	return <-done
}
