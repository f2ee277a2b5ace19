package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/private"
)

// TestRoundTrip writes memory in several shapes and compares what comes back,
// page by page.
func TestRoundTrip(t *testing.T) {
	skipUnlessPage4K(t)
	type write struct {
		space  uint32
		addr   uint64
		data   []byte
		dense  bool
		stripe int
	}
	zero := make([]byte, 3*testPage)
	mixed := slices.Concat(zero, randomBytes(5, testPage), zero, textBytes(2*testPage), zero)
	var scattered []write
	for i := range 700 {
		scattered = append(scattered, write{space: 7, addr: uint64(i) * 2 * testPage, data: randomBytes(uint64(i), testPage), stripe: i % 3})
	}
	tests := []struct {
		name    string
		writes  []write
		extents int // with Compress none
		raw     int
	}{
		{"nothing", nil, 0, 0},
		{"only zeros", []write{{addr: 0x1000, data: zero}}, 0, 0},
		{"zeros kept", []write{{addr: 0x1000, data: zero, dense: true}}, 1, 3 * testPage},
		{"one page", []write{{addr: 0x1000, data: randomBytes(1, testPage)}}, 1, testPage},
		{"holes", []write{{addr: 0x1000, data: mixed}}, 2, 3 * testPage},
		{"merged", []write{{addr: 0x1000, data: randomBytes(1, testPage)}, {addr: 0x2000, data: textBytes(testPage)}}, 1, 2 * testPage},
		{"same address, two spaces", []write{{space: 1, addr: 0, data: textBytes(testPage)}, {space: 2, addr: 0, data: randomBytes(1, testPage)}}, 2, 2 * testPage},
		{"large", []write{{addr: 1 << 40, data: randomBytes(9, 5<<19)}}, 3, 5 << 19},
		{"large behind small", []write{{addr: 0x1000, data: textBytes(testPage)}, {addr: 0x2000, data: textBytes(3 << 20)}}, 4, 3<<20 + testPage},
		{"highest page but one", []write{{addr: 1<<64 - 2*testPage, data: textBytes(testPage)}}, 1, testPage},
		{"out of order", []write{{addr: 0x9000, data: textBytes(testPage)}, {addr: 0x1000, data: textBytes(testPage), stripe: 2}}, 2, 2 * testPage},
		{"scattered", scattered, 700, 700 * testPage},
	}
	for _, how := range []string{"none", "zstd", "s2", "lz4", "none, direct", "s2, direct"} {
		compress, _, direct := strings.Cut(how, ", ")
		for _, tt := range tests {
			t.Run(how+"/"+tt.name, func(t *testing.T) {
				dir := t.TempDir()
				w := must[*Writer](t)(Create(dir, Options{Compress: compress, Stripes: 3, Direct: direct}))
				if err := w.Buffered(); err != nil {
					t.Logf("written through the page cache: %v", err)
				}
				want := map[string][]byte{}
				for _, x := range tt.writes {
					s := w.PageWriter(x.stripe)
					if x.dense {
						check(t, s.WriteDense(x.space, x.addr, x.data))
					} else {
						check(t, s.Write(x.space, x.addr, x.data))
					}
					for at := 0; at < len(x.data); at += testPage {
						if page := x.data[at : at+testPage]; x.dense || !isZero(page) {
							want[fmt.Sprint(x.space, x.addr+uint64(at))] = page
						}
					}
				}
				sum := must[Summary](t)(w.Close(t.Context()))
				if sum.RawBytes != int64(tt.raw) {
					t.Errorf("RawBytes %d, want %d", sum.RawBytes, tt.raw)
				}
				r := must[*Reader](t)(Open(dir))
				defer r.Close()
				if compress == "none" && len(r.Extents()) != tt.extents {
					t.Errorf("%d extents, want %d", len(r.Extents()), tt.extents)
				}
				got := readPages(t, r)
				if len(got) != len(want) {
					t.Errorf("%d pages, want %d", len(got), len(want))
				}
				for key, page := range want {
					if !bytes.Equal(got[key], page) {
						t.Fatalf("page %s differs", key)
					}
				}
				verifyWithProgress(t, r, sum)
			})
		}
	}
}

// readPages reads all extents, and raw ones from the stripe's file too.
func readPages(t *testing.T, r *Reader) map[string][]byte {
	pages := map[string][]byte{}
	for _, e := range r.Extents() {
		b := make([]byte, e.Len)
		check(t, r.ReadExtent(e, b))
		if e.Codec == Raw {
			direct := make([]byte, e.Len)
			if _, err := r.StripeFile(int(e.Stripe)).ReadAt(direct, int64(e.Offset)); err != nil || !bytes.Equal(direct, b) {
				t.Fatalf("extent at %#x differs in its file: %v", e.Addr, err)
			}
		}
		for at := 0; at < len(b); at += testPage {
			pages[fmt.Sprint(e.Space, e.Addr+uint64(at))] = b[at : at+testPage]
		}
	}
	return pages
}

func verifyWithProgress(t *testing.T, r *Reader, sum Summary) {
	var last, want int64
	for _, f := range sum.Files[1:] {
		want += f.Size
	}
	check(t, r.VerifyPages(t.Context(), func(done, total int64) {
		if done <= last || done > total || total != want {
			t.Errorf("progress %d of %d after %d, want a total of %d", done, total, last, want)
		}
		last = done
	}))
	if last != want {
		t.Errorf("progress ended at %d of %d", last, want)
	}
}

func TestCompressed(t *testing.T) {
	skipUnlessPage4K(t)
	for name, codec := range map[string]Codec{"zstd": Zstd, "zstd:1": Zstd, "zstd:9": Zstd, "zstd:22": Zstd, "s2": S2, "lz4": LZ4} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := must[*Writer](t)(Create(dir, Options{Compress: name, Stripes: 1}))
			check(t, w.PageWriter(0).Write(1, 0, textBytes(2<<20)))
			check(t, w.PageWriter(0).Write(1, 1<<30, randomBytes(1, 64*testPage)))
			sum := must[Summary](t)(w.Close(t.Context()))
			r := must[*Reader](t)(Open(dir))
			defer r.Close()
			var got []Codec
			for _, e := range r.Extents() {
				got = append(got, e.Codec)
			}
			if want := []Codec{codec, codec, Raw}; !slices.Equal(got, want) {
				t.Errorf("codecs %v, want %v", got, want)
			}
			if sum.Bytes >= sum.RawBytes/2 {
				t.Errorf("%d bytes of memory became %d", sum.RawBytes, sum.Bytes)
			}
			text := textBytes(2 << 20)
			for _, e := range r.Extents()[:2] {
				b := make([]byte, e.Len)
				check(t, r.ReadExtent(e, b))
				if !bytes.Equal(b, text[e.Addr:e.Addr+e.Len]) {
					t.Errorf("extent at %#x: other bytes", e.Addr)
				}
			}
		})
	}
}

func TestCheckCompression(t *testing.T) {
	for _, s := range []string{"auto", "none", "s2", "lz4", "zstd", "zstd:1", "zstd:22"} {
		check(t, CheckCompression(s))
	}
	for _, s := range []string{"", "raw", "gzip", "zstd:", "zstd:0", "zstd:23", "zstd:x", "s2:1", "auto:1"} {
		if CheckCompression(s) == nil {
			t.Errorf("%q is allowed", s)
		}
	}
}

// TestAuto takes the compression that the speed of the directory wants, which
// it learns from what it writes.
func TestAuto(t *testing.T) {
	for _, tt := range []struct {
		speed float64
		want  Codec
	}{{2 << 30, Raw}, {500 << 20, S2}, {100 << 20, Zstd}} {
		dir := t.TempDir()
		w := must[*Writer](t)(Create(dir, Options{Compress: "auto", Speed: tt.speed, Stripes: 1}))
		check(t, w.PageWriter(0).Write(1, 0, textBytes(1<<20)))
		if sum := must[Summary](t)(w.Close(t.Context())); sum.Speed != 0 {
			t.Errorf("a megabyte shows a speed of %f", sum.Speed)
		}
		r := must[*Reader](t)(Open(dir))
		if got := r.Extents()[0].Codec; got != tt.want {
			t.Errorf("%.0f bytes a second: codec %v, want %v", tt.speed, got, tt.want)
		}
		check(t, r.Close())
	}
}

func TestAutoMeasures(t *testing.T) {
	dir := t.TempDir()
	w := must[*Writer](t)(Create(dir, Options{Compress: "auto", Stripes: 2}))
	told := make(chan float64, 1)
	adapt := w.meter.told
	w.meter.told = func(speed float64) { adapt(100 << 20); told <- speed } // as of a slow disk
	check(t, w.PageWriter(0).Write(1, 0, textBytes(probeSize)))
	if speed := <-told; speed <= 0 {
		t.Errorf("speed %f", speed)
	}
	check(t, w.PageWriter(1).Write(1, 1<<30, textBytes(1<<20)))
	if sum := must[Summary](t)(w.Close(t.Context())); sum.Speed <= 0 {
		t.Errorf("summary has the speed %f", sum.Speed)
	}
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	check(t, r.VerifyPages(t.Context(), nil))
	extents := r.Extents()
	if first, last := extents[0].Codec, extents[len(extents)-1].Codec; first != Raw || last != Zstd {
		t.Errorf("codecs %v to %v, want raw to zstd", first, last)
	}
}

// TestParallelStripes writes stripes at the same time, as agents do, and reads
// extents at the same time.
func TestParallelStripes(t *testing.T) {
	for _, compress := range []string{"none", "zstd", "s2", "lz4"} {
		t.Run(compress, func(t *testing.T) {
			dir := t.TempDir()
			w := must[*Writer](t)(Create(dir, Options{Compress: compress, Stripes: 4}))
			errs := make([]error, w.PageWriters())
			var wg sync.WaitGroup
			for i := range w.PageWriters() {
				wg.Go(func() {
					errs[i] = errors.Join(
						w.PageWriter(i).Write(uint32(i), 0, textBytes(3<<20)),
						w.PageWriter(i).Write(uint32(i), 1<<30, randomBytes(uint64(i), 3<<20)))
				})
			}
			wg.Wait()
			check(t, errors.Join(errs...))
			must[Summary](t)(w.Close(t.Context()))
			r := must[*Reader](t)(Open(dir))
			defer r.Close()
			errs = make([]error, len(r.Extents()))
			for i, e := range r.Extents() {
				wg.Go(func() { errs[i] = r.ReadExtent(e, make([]byte, e.Len)) })
			}
			check(t, r.VerifyPages(t.Context(), nil))
			wg.Wait()
			check(t, errors.Join(errs...))
		})
	}
}

func TestManyExtents(t *testing.T) {
	skipUnlessPage4K(t)
	dir := t.TempDir()
	w := must[*Writer](t)(Create(dir, Options{Stripes: 2}))
	page := randomBytes(1, testPage)
	const n = 2*indexBlock + 5
	for i := range n {
		check(t, w.PageWriter(i%2).Write(1, uint64(n-i)*2*testPage, page))
	}
	must[Summary](t)(w.Close(t.Context()))
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	if len(r.Extents()) != n || !slices.IsSortedFunc(r.Extents(), compareMemory) {
		t.Errorf("%d extents, want %d, sorted", len(r.Extents()), n)
	}
	check(t, r.VerifyPages(t.Context(), nil))
}

func TestSections(t *testing.T) {
	dir := t.TempDir()
	sum := writeImage(t, dir, "none")
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	want := []SectionInfo{{"core", 3, 15}, {"file", 1, 2}}
	if got := r.Sections(); !slices.Equal(got, want) {
		t.Errorf("sections %v, want %v", got, want)
	}
	payload, version, ok := r.Section("core")
	if string(payload) != `{"procs":[1,2]}` || version != 3 || !ok {
		t.Errorf("section core: %q, %d, %v", payload, version, ok)
	}
	if _, _, ok := r.Section("none"); ok {
		t.Error("a section that was not written")
	}
	h := r.Header()
	if h.PageSize != os.Getpagesize() || h.Stripes != 2 || h.XXH3 != sum.Files[0].XXH3 || h.Size != sum.Files[0].Size {
		t.Errorf("header %+v, summary %+v", h, sum)
	}
}

func TestWriterRefuses(t *testing.T) {
	page := randomBytes(1, os.Getpagesize())
	tests := []struct {
		name string
		do   func(w *Writer) error
		want string
	}{
		{"section twice", func(w *Writer) error { return errors.Join(w.Section("a", 1, nil), w.Section("a", 1, nil)) }, "twice"},
		{"section without a name", func(w *Writer) error { return w.Section("", 1, nil) }, "name of 0 bytes"},
		{"section with a newline", func(w *Writer) error { return w.Section("a\nb", 1, nil) }, "not printable"},
		{"odd address", func(w *Writer) error { return w.PageWriter(0).Write(1, 12, page) }, "whole pages"},
		{"odd length", func(w *Writer) error { return w.PageWriter(0).Write(1, 0, page[1:]) }, "whole pages"},
		{"wraps around", func(w *Writer) error {
			return w.PageWriter(0).Write(1, -uint64(len(page)), slices.Concat(page, page))
		}, "whole pages"},
		{"memory twice", func(w *Writer) error {
			err := errors.Join(w.PageWriter(0).Write(1, 0, page), w.PageWriter(1).Write(1, 0, page))
			_, closeErr := w.Close(context.Background())
			return errors.Join(err, closeErr)
		}, "written twice"},
		{"given up", func(w *Writer) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err := w.Close(ctx)
			return err
		}, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			w := must[*Writer](t)(Create(dir, Options{Stripes: 2}))
			if err := tt.do(w); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			w.Abort()
			w.Abort()
			wantEmpty(t, dir)
		})
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if entries := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(entries) != 0 {
		t.Errorf("%s still has %v", dir, entries)
	}
}

func TestCreateRefuses(t *testing.T) {
	full := t.TempDir()
	check(t, os.WriteFile(filepath.Join(full, "x"), nil, fileMode))
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(t.TempDir(), link))
	tests := []struct {
		name, dir string
		o         Options
		want      string
	}{
		{"not empty", full, Options{}, "not empty"},
		{"missing", filepath.Join(full, "missing"), Options{}, "no such file"},
		{"a link", link, Options{}, "not a folder"},
		{"a file", filepath.Join(full, "x"), Options{}, "not a folder"},
		{"compression", t.TempDir(), Options{Compress: "lzma"}, "lzma"},
		{"stripes", t.TempDir(), Options{Stripes: maxStripes + 1}, "257 stripes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Create(tt.dir, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	w := must[*Writer](t)(Create(dir, Options{Stripes: 1}))
	must[Summary](t)(w.Close(t.Context()))
	w.Abort()
	_, closeErr := w.Close(t.Context())
	for _, err := range []error{closeErr, w.Section("a", 1, nil), w.PageWriter(0).Write(0, 0, nil)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("got error %v, want ErrClosed", err)
		}
	}
	check(t, must[*Reader](t)(Open(dir)).Close()) // Abort kept the files
}

func TestVerifyPagesCancelled(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir, "none")
	r := must[*Reader](t)(Open(dir))
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.VerifyPages(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
}

// TestModes looks at the modes of all that is made under hard umasks.
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o277, 0o777} {
		t.Run(fmt.Sprintf("%04o", umask), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made")
			s := must[*Store](t)(OpenStore(dir, "job"))
			old := unix.Umask(umask)
			defer unix.Umask(old)
			commit(t, s, 1, testComputation)
			check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				check(t, err)
				want := os.FileMode(fileMode)
				if d.IsDir() {
					want = private.DirMode
				}
				if info := must[os.FileInfo](t)(d.Info()); info.Mode().Perm() != want {
					t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
				}
				return nil
			}))
		})
	}
}

func TestIsZero(t *testing.T) {
	page := make([]byte, testPage)
	if !isZero(page) {
		t.Error("a page of zeros")
	}
	for i := range page {
		page[i] = 1
		if isZero(page) {
			t.Errorf("byte %d is not zero", i)
		}
		page[i] = 0
	}
	for i := range len(page) / 8 {
		binary.NativeEndian.PutUint64(page[i*8:], 1<<63|1)
	}
	if isZero(page) {
		t.Error("a page of one word")
	}
}

func BenchmarkIsZero(b *testing.B) {
	page := make([]byte, testPage)
	b.SetBytes(testPage)
	for b.Loop() {
		if !isZero(page) {
			b.Fatal("not zero")
		}
	}
}

// BenchmarkWrite writes 64 MiB an iteration to a stripe, as an agent does, in
// pieces of 256 KiB or 1 MiB. Creation and fsync are outside.
func BenchmarkWrite(b *testing.B) {
	const size = 64 << 20
	random := randomBytes(1, size)
	sparse := bytes.Clone(random) // every second page is zero
	for at := 0; at < size; at += 2 * testPage {
		clear(sparse[at : at+testPage])
	}
	for _, bb := range []struct {
		name, compress string
		data           []byte
		piece          int
	}{
		{"raw", "none", random, 256 << 10},
		{"raw-sparse", "none", sparse, 256 << 10},
		{"zero", "none", make([]byte, size), 256 << 10},
		{"zstd-random", "zstd", random, 1 << 20},
		{"zstd-text", "zstd", textBytes(size), 1 << 20},
		{"zstd:9-random", "zstd:9", random, 1 << 20},
		{"s2-text", "s2", textBytes(size), 1 << 20},
		{"lz4-text", "lz4", textBytes(size), 1 << 20},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				w := must[*Writer](b)(Create(b.TempDir(), Options{Compress: bb.compress, Stripes: 1}))
				b.StartTimer()
				for at := 0; at < size; at += bb.piece {
					check(b, w.PageWriter(0).Write(1, uint64(at), bb.data[at:at+bb.piece]))
				}
				b.StopTimer()
				w.Abort()
				b.StartTimer()
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	for _, compress := range []string{"none", "zstd", "s2", "lz4"} {
		dir := b.TempDir()
		w := must[*Writer](b)(Create(dir, Options{Compress: compress, Stripes: 2}))
		for i, data := range [][]byte{randomBytes(1, size/2), textBytes(size / 2)} {
			check(b, w.PageWriter(i).Write(uint32(i), 0, data))
		}
		must[Summary](b)(w.Close(b.Context()))
		r := must[*Reader](b)(Open(dir))
		defer r.Close()
		b.Run(compress+"/VerifyPages", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				check(b, r.VerifyPages(b.Context(), nil))
			}
		})
		b.Run(compress+"/ReadExtent", func(b *testing.B) {
			b.SetBytes(size)
			buf := make([]byte, maxExtent)
			for b.Loop() {
				for _, e := range r.Extents() {
					check(b, r.ReadExtent(e, buf[:e.Len]))
				}
			}
		})
	}
}
