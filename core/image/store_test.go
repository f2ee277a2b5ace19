package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/internal/private"
)

const otherComputation = "ffffffffffffffffffffffffffffffff"

func newStore(t testing.TB) *Store {
	t.Helper()
	return must[*Store](t)(OpenStore(filepath.Join(t.TempDir(), "ckpt"), "job"))
}

func wantGenerations(t *testing.T, s *Store, want ...uint64) {
	t.Helper()
	if got := must[[]uint64](t)(s.Generations()); !slices.Equal(got, want) {
		t.Errorf("generations %v, want %v", got, want)
	}
}

// wantNames compares the names in the store's folder, but for the lock.
func wantNames(t *testing.T, s *Store, want ...string) {
	t.Helper()
	var got []string
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(s.Path())) {
		if e.Name() != storeLock {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("store has %q, want %q", got, want)
	}
}

func TestCommit(t *testing.T) {
	s := newStore(t)
	wantGenerations(t, s)
	for want := uint64(1); want <= 3; want++ {
		if next := must[uint64](t)(s.Next()); next != want {
			t.Errorf("next is %d, want %d", next, want)
		}
		path := commit(t, s, want, testComputation)
		if path != filepath.Join(s.Path(), generationName(want)) {
			t.Errorf("committed as %s", path)
		}
		must[[]CodecStats](t)(Verify(t.Context(), path, nil))
	}
	wantGenerations(t, s, 1, 2, 3)
	wantNames(t, s, "00001", "00002", "00003")
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.Path(), "00003"))) {
		if name := e.Name(); name != manifestFile && name != "agent-0" {
			t.Errorf("generation has %s", name)
		}
	}
}

// TestNextPassesOthers begins generations where names of such are taken by what is
// none.
func TestNextPassesOthers(t *testing.T) {
	s := newStore(t)
	commit(t, s, 1, testComputation)
	for want, take := range []func(path string) error{
		func(path string) error { return os.Mkdir(path, private.DirMode) },
		func(path string) error { return os.WriteFile(path, nil, fileMode) },
		func(path string) error { return os.Symlink("nowhere", path) },
	} {
		next := must[uint64](t)(s.Next())
		if next != uint64(want+2) {
			t.Errorf("next is %d, want %d", next, want+2)
		}
		check(t, take(filepath.Join(s.Path(), generationName(next))))
	}
	check(t, os.Mkdir(filepath.Join(s.Path(), generationName(math.MaxUint64)), private.DirMode))
	commit(t, s, must[uint64](t)(s.Next()), testComputation)
	wantGenerations(t, s, 1, 5)
}

func TestManifestRoundTrip(t *testing.T) {
	s := newStore(t)
	p := must[*Pending](t)(s.Begin(7))
	defer p.Abort()
	want := fill(t, p, testComputation)
	got := must[*Manifest](t)(ReadManifest(must[string](t)(p.Commit(want))))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestGenerationNames(t *testing.T) {
	s := newStore(t)
	for _, gen := range []uint64{99_999, 100_000, 9} {
		commit(t, s, gen, testComputation)
	}
	for _, name := range []string{"4", "000004", "00000", "x0001"} {
		dir := filepath.Join(s.Path(), name)
		check(t, os.Mkdir(dir, private.DirMode))
		check(t, os.WriteFile(filepath.Join(dir, manifestFile), nil, fileMode))
	}
	check(t, os.Mkdir(filepath.Join(s.Path(), "00005"), private.DirMode)) // no manifest
	wantGenerations(t, s, 9, 99_999, 100_000)
}

func TestStoreNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", ".x", "a/b", "/", "a\nb", "a\x00", "\xff", strings.Repeat("a", 65)} {
		if _, err := OpenStore(t.TempDir(), name); err == nil {
			t.Errorf("store %q was accepted", name)
		}
	}
	for _, name := range []string{"job", "my job", "日本", "a.b-c_d", strings.Repeat("a", 64)} {
		if _, err := OpenStore(t.TempDir(), name); err != nil {
			t.Error(err)
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	s := newStore(t)
	commit(t, s, 1, testComputation)
	if _, err := s.Begin(0); err == nil {
		t.Error("generation 0 was accepted")
	}
	if _, err := s.Begin(1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got error %v, want ErrExist", err)
	}
	link := must[*Store](t)(OpenStore(filepath.Dir(s.Path()), "link"))
	check(t, os.Symlink(t.TempDir(), link.Path()))
	_, err := link.Begin(1)
	wantFormatError(t, err)
}

// TestForeignStore puts what another user may have made beforehand in the place of
// a store's folder, and of its lock: neither is written to.
func TestForeignStore(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	check(t, os.WriteFile(victim, nil, 0o644))
	mkdir := func(s *Store) { check(t, os.Mkdir(s.Path(), private.DirMode)) }
	tests := []struct {
		name string
		put  func(t *testing.T, s *Store)
		want string
	}{
		{"file", func(t *testing.T, s *Store) { check(t, os.WriteFile(s.Path(), nil, fileMode)) }, "not a folder"},
		{"link", func(t *testing.T, s *Store) { check(t, os.Symlink(t.TempDir(), s.Path())) }, "is a symbolic link"},
		{"folder of another user", func(t *testing.T, s *Store) {
			if os.Geteuid() != 0 {
				t.Skip("only root can make folders of another owner")
			}
			mkdir(s)
			check(t, os.Chown(s.Path(), 12345, 12345))
		}, "belongs to uid 12345, not to uid 0"},
		{"link for a lock", func(t *testing.T, s *Store) {
			mkdir(s)
			check(t, os.Symlink(victim, filepath.Join(s.Path(), storeLock)))
		}, "is a symbolic link"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := must[*Store](t)(OpenStore(t.TempDir(), "job"))
			check(t, s.Check())
			tt.put(t, s)
			_, err := s.Begin(1)
			if fe := wantFormatError(t, err); !strings.Contains(fe.What, tt.want) {
				t.Error(fe)
			}
			if err := s.Check(); (err == nil) != (tt.name == "link for a lock") {
				t.Errorf("check: %v", err)
			}
		})
	}
	if mode := must[os.FileInfo](t)(os.Stat(victim)).Mode(); mode != 0o644 {
		t.Errorf("the file behind a link has mode %v", mode)
	}
}

func TestAgentDirRefuses(t *testing.T) {
	p := must[*Pending](t)(newStore(t).Begin(1))
	defer p.Abort()
	for _, id := range []string{"", "..", "a/b", "../../x", strings.Repeat("a", 255)} {
		if _, err := p.AgentDir(id); err == nil {
			t.Errorf("agent %q was accepted", id)
		}
	}
	must[string](t)(p.AgentDir("0"))
	if _, err := p.AgentDir("0"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got error %v, want ErrExist", err)
	}
}

func TestCommitRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, p *Pending, m *Manifest)
	}{
		{"another generation", func(t *testing.T, p *Pending, m *Manifest) { m.Generation = 2 }},
		{"no agents", func(t *testing.T, p *Pending, m *Manifest) { m.Agents = nil }},
		{"size", func(t *testing.T, p *Pending, m *Manifest) { m.Agents[0].Files[1].Size++ }},
		{"file missing", func(t *testing.T, p *Pending, m *Manifest) {
			check(t, os.Remove(filepath.Join(p.Path(), "agent-0", "pages.1")))
		}},
		{"generation appeared", func(t *testing.T, p *Pending, m *Manifest) {
			dir := filepath.Join(p.store.Path(), "00001")
			check(t, os.Mkdir(dir, private.DirMode))
			check(t, os.WriteFile(filepath.Join(dir, "x"), nil, fileMode))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			p := must[*Pending](t)(s.Begin(1))
			m := fill(t, p, testComputation)
			tt.spoil(t, p, m)
			if _, err := p.Commit(m); err == nil {
				t.Fatal("committed")
			}
			check(t, p.Abort())
			wantGenerations(t, s)
			if _, err := os.Stat(p.Path()); err == nil {
				t.Error("temporary folder is still there")
			}
		})
	}
}

func TestAbort(t *testing.T) {
	s := newStore(t)
	p := must[*Pending](t)(s.Begin(1))
	m := fill(t, p, testComputation)
	check(t, p.Abort())
	check(t, p.Abort())
	wantNames(t, s)
	if _, err := p.Commit(m); !errors.Is(err, os.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
	if _, err := p.AgentDir("1"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("agent dir: %v", err)
	}

	p = must[*Pending](t)(s.Begin(1))
	must[string](t)(p.Commit(fill(t, p, testComputation)))
	check(t, p.Abort())
	wantNames(t, s, "00001")
}

// TestLiveWriter begins a second generation beside a first.
func TestLiveWriter(t *testing.T) {
	s := newStore(t)
	first := must[*Pending](t)(s.Begin(1))
	defer first.Abort()
	m := fill(t, first, testComputation)
	second := must[*Pending](t)(s.Begin(2))
	check(t, second.Abort())
	must[string](t)(first.Commit(m))
	wantNames(t, s, "00001")
}

// TestCleanSparesOthers begins a generation beside folders whose names look
// temporary and that no writer has made.
func TestCleanSparesOthers(t *testing.T) {
	s := newStore(t)
	commit(t, s, 1, testComputation)
	file := func(path ...string) {
		name := filepath.Join(append([]string{s.Path()}, path...)...)
		check(t, os.MkdirAll(filepath.Dir(name), private.DirMode))
		check(t, os.WriteFile(name, nil, fileMode))
	}
	const random = "9f86d081884c7d65"
	spared := []string{".tmp-", ".tmp-02-" + random, ".tmp-2-" + random[:14], ".tmp-2-" + random[:15] + "X", ".tmp-2-" + random + "-x",
		".tmp-2-" + strings.ToUpper(random), ".tmp-3-" + random, ".tmp-thesis", ".tmp-x-" + random}
	for _, name := range spared {
		file(name, "chapter1")
	}
	file("00007", pendingLock) // no generation
	file(".tmp-4-"+random, pendingLock)
	file(".tmp-5-"+random, "agent-0", "pages.0")
	file(".tmp-6-"+random, manifestFile)
	p := must[*Pending](t)(s.Begin(2))
	check(t, p.Abort())
	slices.Sort(spared)
	wantNames(t, s, append(spared, "00001", "00007")...)
	must[os.FileInfo](t)(os.Lstat(filepath.Join(s.Path(), "00007", pendingLock)))
}

func TestPrune(t *testing.T) {
	s := newStore(t)
	for gen := uint64(1); gen <= 6; gen++ {
		id := testComputation
		if gen == 2 {
			id = otherComputation
		}
		commit(t, s, gen, id)
	}
	unreadable := filepath.Join(s.Path(), "00003", manifestFile)
	check(t, os.WriteFile(unreadable, []byte("{}"), fileMode))

	if _, err := s.Prune(testComputation, 0, nil); err == nil {
		t.Error("pruned all")
	}
	for _, tt := range []struct {
		keep int
		want []uint64
	}{{4, nil}, {2, []uint64{1, 4}}, {2, nil}, {1, []uint64{5}}} {
		if got := must[[]uint64](t)(s.Prune(testComputation, tt.keep, nil)); !slices.Equal(got, tt.want) {
			t.Errorf("keep %d removed %v, want %v", tt.keep, got, tt.want)
		}
	}
	wantNames(t, s, "00002", "00003", "00006")
	check(t, must[*Pending](t)(s.Begin(7)).Abort())
	for _, fd := range must[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")) {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, s.Path()) {
			t.Errorf("%s is open", to)
		}
	}
	none := must[*Store](t)(OpenStore(t.TempDir(), "none"))
	if got := must[[]uint64](t)(none.Prune(testComputation, 1, nil)); got != nil {
		t.Errorf("removed %v from nothing", got)
	}
}

func TestCheckWritable(t *testing.T) {
	s := newStore(t)
	check(t, s.CheckWritable())
	check(t, s.Make())
	check(t, s.CheckWritable())
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	check(t, os.Chmod(filepath.Dir(s.Path()), 0o500))
	check(t, s.CheckWritable())
	check(t, os.Chmod(s.Path(), 0o500))
	if err := s.CheckWritable(); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	check(t, os.Chmod(s.Path(), 0o700))
	check(t, os.Chmod(filepath.Dir(s.Path()), 0o700))
	check(t, os.Remove(s.Path()))
	check(t, os.Chmod(filepath.Dir(s.Path()), 0o500))
	if err := s.CheckWritable(); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	check(t, os.Chmod(filepath.Dir(s.Path()), 0o700))
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	dir := filepath.Dir(s.Path())
	commit(t, s, 1, testComputation)
	commit(t, s, 2, testComputation)
	gen1, gen2 := filepath.Join(s.Path(), "00001"), filepath.Join(s.Path(), "00002")
	many := t.TempDir()
	for _, name := range []string{"a", "b"} {
		commit(t, must[*Store](t)(OpenStore(many, name)), 1, testComputation)
	}
	check(t, os.Mkdir(filepath.Join(many, "unrelated"), private.DirMode))
	file := filepath.Join(t.TempDir(), "x")
	check(t, os.WriteFile(file, nil, fileMode))
	links := t.TempDir()
	check(t, os.Symlink(gen1, filepath.Join(links, "latest")))
	check(t, os.Symlink(s.Path(), filepath.Join(links, "job")))
	check(t, os.Symlink(dir, filepath.Join(links, "dir")))

	tests := []struct {
		name       string
		path       string
		generation uint64
		want       string
		err        string
	}{
		{"ckptdir", dir, 0, gen2, ""},
		{"ckptdir, first", dir, 1, gen1, ""},
		{"store", s.Path(), 0, gen2, ""},
		{"store, first", s.Path(), 1, gen1, ""},
		{"store, missing", s.Path(), 3, "", "has no generation 3, but 1, 2"},
		{"generation", gen1, 0, gen1, ""},
		{"generation, same", gen1, 1, gen1, ""},
		{"generation, another", gen1, 2, "", "is generation 1, not 2"},
		{"manifest", filepath.Join(gen1, manifestFile), 0, gen1, ""},
		{"other file", file, 0, "", "not a folder of checkpoints"},
		{"nothing", t.TempDir(), 0, "", "no committed checkpoint"},
		{"missing", filepath.Join(dir, "missing"), 0, "", "no such file"},
		{"several", many, 0, "", "2 computations (a, b): give " + filepath.Join(many, "NAME")},
		{"link to a generation", filepath.Join(links, "latest"), 0, gen1, ""},
		{"manifest behind a link", filepath.Join(links, "latest", manifestFile), 0, gen1, ""},
		{"link to a store", filepath.Join(links, "job"), 0, gen2, ""},
		{"store behind a link", filepath.Join(links, "dir", "job"), 0, filepath.Join(links, "dir", "job", "00002"), ""},
		{"one of several", filepath.Join(many, "b"), 0, filepath.Join(many, "b", "00001"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Resolve(tt.path, tt.generation)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v, want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestManifestLies reads manifests whose sum is right and whose content is not.
func TestManifestLies(t *testing.T) {
	tests := []struct {
		name string
		lie  func(m *Manifest)
		want string
	}{
		{"format", func(m *Manifest) { m.Format = 2 }, "manifest format 2"},
		{"computation", func(m *Manifest) { m.Computation = "12" }, "computation id"},
		{"name", func(m *Manifest) { m.Name = "../x" }, "begins with a dot"},
		{"generation", func(m *Manifest) { m.Generation = 0 }, "generation 0"},
		{"no agents", func(m *Manifest) { m.Agents = nil }, "no agents"},
		{"agent twice", func(m *Manifest) { m.Agents = append(m.Agents, m.Agents[0]) }, "stands twice"},
		{"folder ..", func(m *Manifest) { m.Agents[0].Folder = ".." }, "begins with a dot"},
		{"folder with slash", func(m *Manifest) { m.Agents[0].Folder = "agent-0/../../x" }, "has a slash"},
		{"folder absolute", func(m *Manifest) { m.Agents[0].Folder = "/etc" }, "has a slash"},
		{"folder empty", func(m *Manifest) { m.Agents[0].Folder = "" }, "empty name"},
		{"folder missing", func(m *Manifest) { m.Agents[0].Folder = "agent-1" }, "no such file"},
		{"no files", func(m *Manifest) { m.Agents[0].Files = nil }, "0 files"},
		{"no stripes", func(m *Manifest) { m.Agents[0].Files = m.Agents[0].Files[:1] }, "1 files"},
		{"file elsewhere", func(m *Manifest) { m.Agents[0].Files[1].Name = "../../passwd" }, "want pages.0"},
		{"file order", func(m *Manifest) { f := m.Agents[0].Files; f[1], f[2] = f[2], f[1] }, "want pages.0"},
		{"size", func(m *Manifest) { m.Agents[0].Files[2].Size++ }, "the manifest says"},
		{"size negative", func(m *Manifest) { m.Agents[0].Files[0].Size = -1 }, "has -1 bytes"},
		{"image sum", func(m *Manifest) { m.Agents[0].Files[0].XXH3 = hexSum(1) }, "the manifest says"},
		{"stripes", func(m *Manifest) { m.Agents[0].Files = m.Agents[0].Files[:2] }, "2 stripes, the manifest says 1"},
	}
	genDir := commit(t, newStore(t), 1, testComputation)
	path := filepath.Join(genDir, manifestFile)
	original := must[[]byte](t)(os.ReadFile(path))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, what := decodeManifest(original)
			if what != "" {
				t.Fatal(what)
			}
			tt.lie(m)
			check(t, os.WriteFile(path, must[[]byte](t)(m.encode()), fileMode))
			_, err := Verify(t.Context(), genDir, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				wantFormatError(t, err)
			}
			if _, inspectErr := Inspect(genDir); inspectErr == nil || inspectErr.Error() != err.Error() {
				t.Errorf("Inspect: %v, want %v", inspectErr, err)
			}
		})
	}
}

func TestManifestDamaged(t *testing.T) {
	genDir := commit(t, newStore(t), 1, testComputation)
	path := filepath.Join(genDir, manifestFile)
	original := must[[]byte](t)(os.ReadFile(path))
	for at := range original {
		b := bytes.Clone(original)
		b[at] ^= 1 << (at % 8)
		if _, what := decodeManifest(b); what == "" {
			t.Errorf("bit flipped in byte %d is not noticed", at)
		}
		if _, what := decodeManifest(original[:at]); what == "" {
			t.Errorf("truncation at %d is not noticed", at)
		}
	}
	for name, change := range map[string]func() error{
		"link":   func() error { return os.Symlink("/etc/passwd", path) },
		"folder": func() error { return os.Mkdir(path, private.DirMode) },
		"huge": func() error {
			return errors.Join(os.WriteFile(path, nil, fileMode), os.Truncate(path, maxManifest+1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, os.Remove(path))
			check(t, change())
			_, err := ReadManifest(genDir)
			wantFormatError(t, err)
		})
	}
}

// TestLinksInGeneration replaces a folder and a file by links to good ones.
func TestLinksInGeneration(t *testing.T) {
	for _, name := range []string{"agent-0", "agent-0/image.hia", "agent-0/pages.0"} {
		t.Run(name, func(t *testing.T) {
			genDir := commit(t, newStore(t), 1, testComputation)
			moved := filepath.Join(t.TempDir(), "moved")
			check(t, os.Rename(filepath.Join(genDir, name), moved))
			check(t, os.Symlink(moved, filepath.Join(genDir, name)))
			_, err := Verify(t.Context(), genDir, nil)
			wantFormatError(t, err)
		})
	}
}

func TestVerifyProgress(t *testing.T) {
	s := newStore(t)
	p := must[*Pending](t)(s.Begin(1))
	defer p.Abort()
	m := fill(t, p, testComputation)
	dir := must[string](t)(p.AgentDir("1"))
	files := writeImage(t, dir, "none").Files
	m.Agents = append(m.Agents, AgentManifest{ID: "1", Folder: "agent-1", Files: files})
	genDir := must[string](t)(p.Commit(m))
	want := int64(0)
	for _, a := range m.Agents {
		for _, f := range a.Files[1:] {
			want += f.Size
		}
	}
	var last int64
	must[[]CodecStats](t)(Verify(t.Context(), genDir, func(done, total int64) {
		if done <= last || total != want {
			t.Errorf("progress %d of %d after %d, want a total of %d", done, total, last, want)
		}
		last = done
	}))
	if last != want {
		t.Errorf("progress ended at %d of %d", last, want)
	}
}

func TestInspect(t *testing.T) {
	skipUnlessPage4K(t)
	genDir := commit(t, newStore(t), 1, testComputation)
	report := must[*Report](t)(Inspect(genDir))
	a := report.Agents[0]
	if len(a.Spaces) != 2 || a.Memory.Extents != 3 || a.Memory.Bytes != 4*testPage || a.Memory.Compressed != 1 {
		t.Errorf("memory %+v, spaces %+v", a.Memory, a.Spaces)
	}
	if len(a.Codecs) != 2 || a.Codecs[0].Codec != "raw" || a.Codecs[0].Stored != 3*testPage || a.Codecs[1].Codec != "zstd" || a.Codecs[1].Bytes != testPage {
		t.Errorf("codecs %+v", a.Codecs)
	}
	var back struct {
		Manifest struct{ Generation int }
		Agents   []struct {
			Sections []struct {
				Name string
				Data struct{ Procs []int }
			}
			Spaces []struct{ Space, Bytes int }
		}
	}
	check(t, json.Unmarshal(must[[]byte](t)(json.Marshal(report)), &back))
	agent := back.Agents[0]
	if back.Manifest.Generation != 1 || agent.Sections[0].Name != "core" ||
		!slices.Equal(agent.Sections[0].Data.Procs, []int{1, 2}) || agent.Spaces[1].Bytes != testPage {
		t.Errorf("as JSON: %+v", back)
	}
}
