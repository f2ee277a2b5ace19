package procfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// wantVMAs is what testdata/smaps holds.
func wantVMAs() []VMA {
	words := strings.Fields
	return []VMA{
		{Start: 0x55acf91af000, End: 0x55acf91b0000, Read: true, DevMajor: 0xfe, Ino: 18500,
			Path: "/usr/bin/job", Flags: words("rd mr mw me")},
		{Start: 0x55acf91b0000, End: 0x55acf91b1000, Read: true, Exec: true, Offset: 0x1000, DevMajor: 0xfe, Ino: 18500,
			Path: "/usr/bin/job", Flags: words("rd ex mr mw me")},
		{Start: 0x55acf91b3000, End: 0x55acf91b5000, Read: true, Write: true,
			Path: "[heap]", Flags: words("rd wr mr mw me lo ac sd"), Locked: 8192},
		{Start: 0x7f0000000000, End: 0x7f0000400000, Flags: words("mr mw me nr")},
		{Start: 0x7f0000400000, End: 0x7f0000401000, Read: true, Write: true, Shared: true, DevMinor: 1, Ino: 2057,
			Path: "/dev/zero", Deleted: true, Flags: words("rd wr sh mr mw me ms")},
		{Start: 0x7f0000401000, End: 0x7f0000402000, Read: true, Shared: true, Offset: 0x10000,
			DevMajor: 0x103, DevMinor: 0x1f, Ino: 4294967299,
			Path: "/data/two words\nand a line", Flags: words("rd sh mr me ms")},
		{Start: 0x7f0000402000, End: 0x7f0000403000, Read: true, Write: true,
			Path: "[anon: pool (deleted)]", Flags: words("rd wr mr mw me ac")},
		{Start: 0x7f0000403000, End: 0x7f0000404000, Read: true, DevMajor: 8, DevMinor: 1, Ino: 9,
			Path: "/data/old (deleted)", Deleted: true, Flags: words("rd mr mw me")},
		{Start: 0x7ffe4cb5c000, End: 0x7ffe4cb7d000, Read: true, Write: true,
			Path: "[stack]", Flags: words("rd wr mr mw me gd ac")},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Exec: true,
			Path: "[vsyscall]", Flags: words("ex")},
	}
}

func checkVMAs(t *testing.T, got, want []VMA) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d VMAs, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("VMA %d:\ngot  %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestParseSmaps(t *testing.T) {
	got, err := ParseSmaps(sample(t, "smaps"))
	if err != nil {
		t.Fatal(err)
	}
	want := wantVMAs()
	for i := range want {
		want[i].Page, want[i].Rss = 4096, 4096
	}
	checkVMAs(t, got, want)
}

func TestParseMaps(t *testing.T) {
	got, err := ParseMaps(sample(t, "maps"))
	if err != nil {
		t.Fatal(err)
	}
	want := wantVMAs()
	for i := range want {
		want[i].Flags, want[i].Locked = nil, 0
	}
	checkVMAs(t, got, want)
}

func TestParseMapsOdd(t *testing.T) {
	t.Run("empty", func(t *testing.T) { // of a zombie
		got, err := ParseMaps(nil)
		if err != nil || len(got) != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("no last newline", func(t *testing.T) {
		got, err := ParseMaps([]byte("1000-2000 rw-p 00000000 00:00 0"))
		if err != nil {
			t.Fatal(err)
		}
		checkVMAs(t, got, []VMA{{Start: 0x1000, End: 0x2000, Read: true, Write: true}})
	})
	t.Run("names keep their blanks", func(t *testing.T) {
		got, err := ParseMaps([]byte("1000-2000 rw-p 00000000 00:00 7   /a \r\n"))
		if err != nil {
			t.Fatal(err)
		}
		checkVMAs(t, got, []VMA{{Start: 0x1000, End: 0x2000, Read: true, Write: true, Ino: 7, Path: "/a \r"}})
	})
}

func TestParseMapsErrors(t *testing.T) {
	tests := map[string]string{
		"property first":  "Size: 4 kB\n",
		"empty line":      "\n",
		"no range":        "rubbish\n",
		"no end":          "1000 rw-p 00000000 00:00 0\n",
		"empty range":     "1000-1000 rw-p 00000000 00:00 0\n",
		"no permissions":  "1000-2000\n",
		"bad permissions": "1000-2000 rw-pp 00000000 00:00 0\n",
		"no inode":        "1000-2000 rw-p 00000000 00:00\n",
		"huge major":      "1000-2000 rw-p 00000000 123456789:00 0\n",
		"locked unit":     "1000-2000 rw-p 00000000 00:00 0\nLocked: 4 MB\n",
		"locked size":     "1000-2000 rw-p 00000000 00:00 0\nLocked: x kB\n",
		"endless line":    "1000-2000 rw-p 00000000 00:00 0 /" + strings.Repeat("a", maxLine) + "\n",
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseSmaps([]byte(raw)); err == nil {
				t.Errorf("no error: %+v", got)
			}
		})
	}
}

func TestVMA(t *testing.T) {
	v := VMA{Start: 0x1000, End: 0x4000, Read: true, Write: true, DevMajor: 8, DevMinor: 1,
		Path: "/f", Deleted: true, Flags: []string{"rd", "gd"}}
	if !v.Has("gd") || v.Has("hg") {
		t.Errorf("flags: gd %v, hg %v", v.Has("gd"), v.Has("hg"))
	}
	if got, want := v.Prot(), unix.PROT_READ|unix.PROT_WRITE; got != want {
		t.Errorf("protection %#x, want %#x", got, want)
	}
	if got := (&VMA{Exec: true}).Prot(); got != unix.PROT_EXEC {
		t.Errorf("protection %#x, want PROT_EXEC", got)
	}
	if v.Len() != 0x3000 || v.Dev() != unix.Mkdev(8, 1) || v.Link() != "/f (deleted)" {
		t.Errorf("length %#x, device %#x, link %q", v.Len(), v.Dev(), v.Link())
	}
}

// TestLiveMaps finds memory of the test itself.
func TestLiveMaps(t *testing.T) {
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		t.Fatal(err)
	}
	start := uint64(uintptr(unsafe.Pointer(&mem[0])))

	for name, read := range map[string]func(int) ([]VMA, error){"maps": ReadMaps, "smaps": ReadSmaps} {
		t.Run(name, func(t *testing.T) {
			vmas, err := read(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(vmas, func(a, b VMA) int { return cmp.Compare(a.Start, b.Start) }) {
				t.Error("not ascending")
			}
			i := slices.IndexFunc(vmas, func(v VMA) bool { return v.Start == start })
			if i < 0 {
				t.Fatalf("no mapping at %#x", start)
			}
			v := vmas[i]
			if v.Len() != uint64(page) || v.Prot() != unix.PROT_READ || !v.Shared || !v.Deleted || v.Path != "/dev/zero" || v.Ino == 0 {
				t.Errorf("%+v", v)
			}
			if name == "smaps" && !v.Has("dc") {
				t.Errorf("flags %v, want dc", v.Flags)
			}
		})
	}
}

func FuzzParseSmaps(f *testing.F) {
	f.Add(sample(f, "smaps"))
	f.Add(sample(f, "maps"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		vmas, err := ParseSmaps(raw)
		if err != nil {
			return
		}
		if len(vmas) > bytes.Count(raw, []byte("-")) {
			t.Errorf("%d VMAs", len(vmas))
		}
		for _, v := range vmas {
			if v.Start >= v.End || v.Deleted && !strings.HasPrefix(v.Link(), "/") {
				t.Errorf("%+v", v)
			}
		}
	})
}

// manyVMAs makes the smaps of a process with n mappings.
func manyVMAs(n int, raw []byte) []byte {
	var out bytes.Buffer
	_, rest, _ := bytes.Cut(raw, []byte("\n"))
	end := bytes.Index(rest, []byte("VmFlags:"))
	properties := rest[:end]
	for i := range n {
		start := 0x7f0000000000 + uint64(i)<<13
		fmt.Fprintf(&out, "%x-%x rw-p 00000000 fe:00 18500                      /usr/lib/libjob.so.%d\n", start, start+4096, i/4)
		out.Write(properties)
		out.WriteString("VmFlags: rd wr mr mw me ac sd \n")
	}
	return out.Bytes()
}

func BenchmarkParseSmaps(b *testing.B) {
	const n = 60000
	raw := manyVMAs(n, sample(b, "smaps"))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		vmas, err := ParseSmaps(raw)
		if err != nil || len(vmas) != n {
			b.Fatalf("%d VMAs, %v", len(vmas), err)
		}
	}
}

// TestVisitMaps is ReadMaps one by one.
func TestVisitMaps(t *testing.T) {
	pid := os.Getpid()
	var got []VMA
	take := func(most int) func(*VMA) bool {
		got = nil
		return func(v *VMA) bool { got = append(got, *v); return len(got) < most }
	}
	if err := VisitMaps(pid, take(3)); err != nil || len(got) != 3 {
		t.Errorf("%d mappings of 3, %v", len(got), err)
	}
	vmas, err := ReadMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	checkVMAs(t, got, vmas[:3]) // those of the program's file
	if err := VisitMaps(0, take(1)); err == nil {
		t.Error("mappings of no process")
	}
}

// TestMappingAt holds what a query tells against maps.
func TestMappingAt(t *testing.T) {
	vmas, err := ReadMaps(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range vmas[:3] {
		got, err := MappingAt(os.Getpid(), want.End-1)
		if errors.Is(err, unix.ENOTTY) {
			t.Skip("the kernel has no PROCMAP_QUERY")
		}
		if err != nil {
			t.Fatal(err)
		}
		checkVMAs(t, []VMA{got}, []VMA{want})
	}
	for _, v := range vmas {
		if v.Path != "[vdso]" {
			continue
		}
		got, err := MappingAt(os.Getpid(), v.Start)
		if err != nil {
			t.Fatal(err)
		}
		checkVMAs(t, []VMA{got}, []VMA{v})
	}
	if _, err := MappingAt(os.Getpid(), 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("nothing is mapped at 0: %v", err)
	}
}
