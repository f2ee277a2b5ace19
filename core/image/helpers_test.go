package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
)

const testPage = 4096

func skipUnlessPage4K(t testing.TB) {
	if os.Getpagesize() != testPage {
		t.Skipf("page size is %d, the test counts in pages of %d", os.Getpagesize(), testPage)
	}
}

// randomBytes returns n bytes that do not compress, the same for a seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// textBytes returns n bytes that compress.
func textBytes(n int) []byte {
	return bytes.Repeat([]byte("all work and no play makes a heap "), n/34+1)[:n]
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantFormatError fails the test unless err is a *FormatError.
func wantFormatError(t testing.TB, err error) *FormatError {
	t.Helper()
	var fe *FormatError
	if !errors.As(err, &fe) {
		t.Fatalf("got error %v (%T), want a *FormatError", err, err)
	}
	return fe
}

// writeImage makes a small image of two sections and two stripes in dir.
func writeImage(t testing.TB, dir, compress string) Summary {
	t.Helper()
	w := must[*Writer](t)(Create(dir, Options{Compress: compress, Stripes: 2}))
	defer w.Abort()
	check(t, w.Section("core", 3, []byte(`{"procs":[1,2]}`)))
	check(t, w.Section("file", 1, []byte(`{}`)))
	check(t, w.PageWriter(0).Write(1, 0x10000, randomBytes(1, 2*testPage)))
	check(t, w.PageWriter(1).Write(1, 0x20000, randomBytes(2, testPage)))
	check(t, w.PageWriter(1).Write(2, 0x10000, textBytes(testPage)))
	return must[Summary](t)(w.Close(t.Context()))
}

// rawImage is an image.hia in pieces, so that a test can make one that lies
// but has all sums right.
type rawImage struct {
	header   header
	sections []rawSection
	extents  []Extent
	tail     []byte
	stripes  [][]byte
}

type rawSection struct {
	name    string
	length  uint64 // 0: that of payload
	payload string
}

func newRawImage() *rawImage {
	a, b := randomBytes(1, 2*testPage), randomBytes(2, testPage)
	return &rawImage{
		header:   header{machine: machineAMD64, pageSize: testPage, stripes: 2, sections: 2, extents: 3},
		sections: []rawSection{{name: "core", payload: "{}"}, {name: "file", payload: "{}"}},
		extents: []Extent{
			{Space: 1, Addr: 0x1000, Len: testPage, Stored: testPage, Sum: xxh3.Hash(a[:testPage])},
			{Space: 1, Addr: 0x3000, Len: testPage, Stored: testPage, Offset: testPage, Sum: xxh3.Hash(a[testPage:])},
			{Space: 2, Addr: 0x1000, Len: testPage, Stored: testPage, Stripe: 1, Sum: xxh3.Hash(b)},
		},
		stripes: [][]byte{a, b},
	}
}

func (im *rawImage) bytes() []byte {
	var body []byte
	for _, s := range im.sections {
		length := s.length
		if length == 0 {
			length = uint64(len(s.payload))
		}
		at := len(body)
		body = append(body, encodeSectionHead(s.name, 1, int(length))...)
		body = append(body, s.payload...)
		body = binary.LittleEndian.AppendUint64(body, xxh3.Hash(body[at:]))
	}
	if len(im.extents) > 0 {
		at := len(body)
		for _, e := range im.extents {
			var b [extentRecordSize]byte
			e.encode(b[:])
			body = append(body, b[:]...)
		}
		body = binary.LittleEndian.AppendUint64(body, xxh3.Hash(body[at:]))
	}
	body = append(body, im.tail...)
	h := im.header
	if h.size == 0 {
		h.size = uint64(headerSize + len(body))
	}
	return append(h.encode(), body...)
}

func (im *rawImage) write(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, imageFile), im.bytes(), fileMode))
	for i, b := range im.stripes {
		check(t, os.WriteFile(filepath.Join(dir, stripeName(i)), b, fileMode))
	}
	return dir
}

const testComputation = "0123456789abcdef0123456789abcdef"

func testManifest(generation uint64, computation string, agents ...AgentManifest) *Manifest {
	return &Manifest{
		Format:      manifestFormat,
		Computation: computation,
		Name:        "job",
		Generation:  generation,
		Created:     time.Unix(1_700_000_000, 123).UTC(),
		Hiatus:      "0.1.0",
		Command:     []string{"sh", "-c", "a && b > <c>"},
		Cwd:         "/home/user",
		Uid:         1000,
		Arch:        "amd64",
		Kernel:      "6.18",
		BootID:      "5f5a",
		Agents:      agents,
	}
}

// commit writes a whole generation.
func commit(t testing.TB, s *Store, generation uint64, computation string) string {
	t.Helper()
	p := must[*Pending](t)(s.Begin(generation))
	defer p.Abort()
	return must[string](t)(p.Commit(fill(t, p, computation)))
}

// fill writes the image of one agent and returns the manifest.
func fill(t testing.TB, p *Pending, computation string) *Manifest {
	t.Helper()
	dir := must[string](t)(p.AgentDir("0"))
	sum := writeImage(t, dir, "zstd")
	return testManifest(p.generation, computation, AgentManifest{
		ID: "0", Host: "node1", Folder: filepath.Base(dir), Files: sum.Files,
		Processes: 2, Threads: 5, Pause: time.Millisecond, Write: time.Second, Bytes: sum.Bytes,
		Plugins: []PluginVersion{{Name: "file", State: 1}},
	})
}
