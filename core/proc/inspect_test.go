package proc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/plugin"
)

// noClaim is a MapClaim without plugins.
func noClaim(context.Context, plugin.Process, plugin.Mapping) (string, plugin.MapPolicy, error) {
	return "", 0, nil
}

// here are the surroundings of a tree below this process.
func here() Surroundings {
	sid, _ := unix.Getsid(0)
	return Surroundings{Reference: os.Getpid(), Reaper: os.Getpid(), Session: sid}
}

func (x *target) inspect(tree *Tree) *State {
	x.tb.Helper()
	st, err := tree.Inspect(soon(x.tb), here(), noClaim)
	if err != nil {
		x.tb.Fatal(err)
	}
	return st
}

// told is what a program has told of itself: numbers by name.
type told map[string]uint64

func (x *target) readFacts() told {
	x.tb.Helper()
	facts := told{}
	for l := x.line(); l != "ready"; l = x.line() {
		name, value, _ := strings.Cut(l, " ")
		n, err := strconv.ParseUint(value, 0, 64)
		if err != nil {
			x.tb.Fatalf("the program says %q: %v", l, err)
		}
		facts[name] = n
	}
	return facts
}

// knownProgram is a frozen program in a known state, and what was read of it.
type knownProgram struct {
	*target
	dir   string
	facts told
	tree  *Tree
	state *State
	ps    *ProcessState
}

func inspectKnown(t *testing.T) *knownProgram {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	x := spawn(t, newTracer(t), exec.Command(program(t, "state"), dir))
	k := &knownProgram{target: x, dir: dir, facts: x.readFacts()}
	k.tree = x.freeze()
	t.Cleanup(func() { x.release(k.tree) })
	if err := k.tree.Check(here()); err != nil {
		t.Fatal(err)
	}
	x.open(k.tree)
	k.state = x.inspect(k.tree)
	if n := len(k.state.Processes); n != 1 {
		t.Fatalf("%d processes, want 1", n)
	}
	k.ps = &k.state.Processes[0]
	return k
}

func (k *knownProgram) thread(t *testing.T, name string) *ThreadState {
	t.Helper()
	tid := int(k.facts[name+"_tid"])
	i := slices.IndexFunc(k.ps.Threads, func(ts ThreadState) bool { return ts.TID == tid })
	if i < 0 {
		t.Fatalf("thread %d is missing", tid)
	}
	return &k.ps.Threads[i]
}

func bit(sigs ...uint64) (mask uint64) {
	for _, s := range sigs {
		mask |= 1 << (s - 1)
	}
	return mask
}

func TestInspectSignals(t *testing.T) {
	k := inspectKnown(t)
	rtmin := k.facts["rtmin"]
	usr1, usr2 := k.ps.Actions[unix.SIGUSR1-1], k.ps.Actions[unix.SIGUSR2-1]
	const saSiginfo, saOnstack, saRestart = 4, 0x08000000, 0x10000000
	if h, f := le.Uint64(usr1), le.Uint64(usr1[8:]); h != k.facts["handler"] || f&(saSiginfo|saOnstack|saRestart) != saSiginfo|saOnstack|saRestart {
		t.Errorf("SIGUSR1: handler %#x, flags %#x", h, f)
	}
	if m := le.Uint64(usr1[len(usr1)-8:]); m != bit(uint64(unix.SIGINT)) {
		t.Errorf("SIGUSR1: mask %#x", m)
	}
	if h := le.Uint64(usr2); h != 1 {
		t.Errorf("SIGUSR2: handler %#x, want SIG_IGN", h)
	}
	if h := le.Uint64(k.ps.Actions[unix.SIGALRM-1]); h != 0 {
		t.Errorf("SIGALRM: handler %#x, want SIG_DFL", h)
	}
	if m := k.thread(t, "first").Mask; m != bit(uint64(unix.SIGTERM), rtmin) {
		t.Errorf("mask of the first thread %#x", m)
	}
	if m := k.thread(t, "second").Mask; m != bit(uint64(unix.SIGHUP), rtmin) {
		t.Errorf("mask of the second thread %#x", m)
	}
	const siQueue = -1
	var got []string
	for _, si := range k.ps.Pending {
		got = append(got, fmt.Sprintf("signal %d code %d value %d", le.Uint32(si), int32(le.Uint32(si[8:])), le.Uint32(si[24:])))
	}
	want := []string{fmt.Sprintf("signal %d code %d value 4711", rtmin, siQueue), fmt.Sprintf("signal %d code %d value 4712", rtmin, siQueue)}
	if !slices.Equal(got, want) {
		t.Errorf("pending for the process: %q, want %q", got, want)
	}
	for name, sig := range map[string]unix.Signal{"first": unix.SIGTERM, "second": unix.SIGHUP} {
		p := k.thread(t, name).Pending
		if len(p) != 1 || le.Uint32(p[0]) != uint32(sig) || int32(le.Uint32(p[0][8:])) != siTkill {
			t.Errorf("pending for the %s thread: %v, want %v", name, p, sig)
		}
	}
}

func TestInspectThreads(t *testing.T) {
	k := inspectKnown(t)
	for name, comm := range map[string]string{"first": "first) (name", "second": "second name"} {
		ts := k.thread(t, name)
		if string(ts.Comm) != comm {
			t.Errorf("%s: name %q", name, ts.Comm)
		}
		if sp, size := le.Uint64(ts.AltStack), le.Uint64(ts.AltStack[16:]); sp != k.facts[name+"_stack"] || size != 32768 {
			t.Errorf("%s: alternate stack %#x, %d bytes", name, sp, size)
		}
		if ts.Robust[0] != k.facts[name+"_robust"] || ts.Robust[1] != 24 {
			t.Errorf("%s: robust list %#x", name, ts.Robust)
		}
		if ts.TIDAddr != k.facts[name+"_tidaddr"] {
			t.Errorf("%s: tid address %#x", name, ts.TIDAddr)
		}
		if ts.Rseq.Addr != k.facts[name+"_rseq"] || (ts.Rseq.Addr != 0 && ts.Rseq.Sig == 0) {
			t.Errorf("%s: rseq %+v", name, ts.Rseq)
		}
		if validateRegsets(ts.Extra) != nil {
			t.Errorf("%s: %d register sets", name, len(ts.Extra))
		}
	}
	if s := k.thread(t, "second").PDeathSig; s != int(unix.SIGWINCH) {
		t.Errorf("parent death signal %d", s)
	}
}

func TestInspectProcess(t *testing.T) {
	k := inspectKnown(t)
	ps := k.ps
	if ps.PID != k.pid || ps.PPID != 0 || ps.PGID != k.pid || ps.Zombie || ps.Stopped || ps.LeaderGone {
		t.Errorf("pid %d, ppid %d, pgid %d, %+v", ps.PID, ps.PPID, ps.PGID, ps)
	}
	if sid, err := unix.Getsid(k.pid); err != nil || ps.SID != sid {
		t.Errorf("session %d, want %d", ps.SID, sid)
	}
	if ps.Cwd != k.dir || ps.Exe != program(t, "state") || ps.Umask != 0o27 {
		t.Errorf("cwd %s, exe %s, umask %o", ps.Cwd, ps.Exe, ps.Umask)
	}
	if l := ps.Limits[unix.RLIMIT_NOFILE]; l.Cur != 77 || l.Max != 99 {
		t.Errorf("limit of files %+v", l)
	}
	if want := (PrctlState{Dumpable: 1, Subreaper: true, THPDisable: 1}); ps.Prctl != want {
		t.Errorf("prctl %+v, want %+v", ps.Prctl, want)
	}
	if ps.MM.Brk != k.facts["brk"] {
		t.Errorf("brk %#x, want %#x", ps.MM.Brk, k.facts["brk"])
	}
	if auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", k.pid)); err != nil || !bytes.Equal(ps.Auxv, auxv) {
		t.Errorf("auxiliary vector %x, %v", ps.Auxv, err)
	}
	if ps.MM.ArgStart != k.facts["argv0"] || ps.MM.ArgEnd <= ps.MM.ArgStart || ps.MM.EnvStart != ps.MM.ArgEnd {
		t.Errorf("arguments %#x-%#x, environment from %#x", ps.MM.ArgStart, ps.MM.ArgEnd, ps.MM.EnvStart)
	}
	argv := make([]byte, ps.MM.ArgEnd-ps.MM.ArgStart)
	if _, err := k.tree.Procs()[0].ReadAt(argv, int64(ps.MM.ArgStart)); err != nil || !bytes.HasSuffix(argv, []byte(k.dir+"\x00")) {
		t.Errorf("arguments %q, %v", argv, err)
	}
	if ps.Cred.Uid != [4]int{os.Getuid(), os.Geteuid(), os.Getuid(), os.Geteuid()} {
		t.Errorf("credentials %+v", ps.Cred)
	}
}

func TestInspectMappings(t *testing.T) {
	const page = 4096
	const rw = unix.PROT_READ | unix.PROT_WRITE
	k := inspectKnown(t)
	file := filepath.Join(k.dir, "file")
	for _, tc := range []struct {
		name   string
		pages  uint64
		prot   int
		shared bool
		kind   MapKind
		flag   string
	}{
		{"private", 16, rw, false, MapAnon, ""},
		{"shared", 8, rw, true, MapObject, ""},
		{"file_private", 6, rw, false, MapFile, ""},
		{"file_shared", 6, rw, true, MapFile, "mw"},
		{"file_readonly", 6, unix.PROT_READ, true, MapFile, ""},
		{"none", 4, unix.PROT_NONE, false, MapAnon, ""},
		{"growsdown", 2, rw, false, MapAnon, "gd"},
		{"hole", 1, rw, false, MapAnon, ""},
		{"noreserve", 2, rw, false, MapAnon, "nr"},
		{"locked", 2, rw, false, MapAnon, "lo"},
		{"dontdump", 2, rw, false, MapAnon, "dd"},
		{"dontfork", 2, rw, false, MapAnon, "dc"},
		{"wipeonfork", 2, rw, false, MapAnon, "wf"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := k.facts[tc.name]
			i := slices.IndexFunc(k.ps.Maps, func(m MapState) bool { return m.Start == start })
			if i < 0 {
				t.Fatalf("no mapping at %#x", start)
			}
			m := &k.ps.Maps[i]
			if m.End-m.Start != tc.pages*page || m.Prot != tc.prot || m.Shared != tc.shared || m.Kind != tc.kind {
				t.Errorf("%+v", m)
			}
			if tc.flag != "" && !slices.Contains(m.Flags, tc.flag) {
				t.Errorf("flags %q without %q", m.Flags, tc.flag)
			}
			if m.Kind == MapFile {
				ref := k.state.Refs[m.Ref]
				if m.Path != file || ref.Path != file || ref.Write != tc.shared || ref.Size != 6*page {
					t.Errorf("file %s: %s, %d bytes, written to %v", m.Path, ref.Path, ref.Size, ref.Write)
				}
			}
		})
	}
	hole := k.facts["hole"]
	if slices.ContainsFunc(k.ps.Maps, func(m MapState) bool { return m.Start < hole+2*page && m.End > hole+page }) {
		t.Error("something is mapped in the hole")
	}
	if slices.ContainsFunc(k.ps.Maps, func(m MapState) bool { return k.tree.Procs()[0].inj.base == m.Start }) {
		t.Error("the memory for injection is in the image")
	}
	for _, name := range []string{"[vdso]"} {
		if !slices.ContainsFunc(k.ps.Maps, func(m MapState) bool { return m.Path == name && m.Kind == MapVdso }) {
			t.Errorf("no %s", name)
		}
	}
}

// writeImage writes the memory of the tree and opens the image.
func writeImage(t *testing.T, tree *Tree, st *State) *image.Reader {
	t.Helper()
	dir := t.TempDir()
	const stripes = 2
	w, err := image.Create(dir, image.Options{Stripes: stripes})
	if err != nil {
		t.Fatal(err)
	}
	m := tree.NewMemory(st, nil)
	defer m.Close()
	if err := m.Write(soon(t), w, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	r, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestOnlyPresentPagesAreStored writes an image: of anonymous memory pages
// with content only; of files all pages that are not the file's, zeros too.
func TestOnlyPresentPagesAreStored(t *testing.T) {
	const page = 4096
	k := inspectKnown(t)
	img := writeImage(t, k.tree, k.state)
	type key struct {
		space uint32
		addr  uint64
	}
	stored := map[key]byte{}
	buf := make([]byte, chunkSize)
	for _, e := range img.Extents() {
		if err := img.ReadExtent(e, buf[:e.Len]); err != nil {
			t.Fatal(err)
		}
		for off := uint64(0); off < uint64(e.Len); off += page {
			stored[key{e.Space, e.Addr + off}] = buf[off]
		}
	}
	for name, want := range map[string]map[int]byte{
		"private":      {0: 'a', 5: 'b'},
		"shared":       {2: 's'},
		"file_private": {1: 'p', 3: 0},
		"file_shared":  {},
		"none":         {1: 'n'},
		"growsdown":    {1: 'g'},
		"hole":         {0: '1', 2: '3'},
		"noreserve":    {},
		"locked":       {},
	} {
		t.Run(name, func(t *testing.T) {
			start, space := k.facts[name], k.ps.Space
			if name == "shared" {
				start, space = 0, k.state.Objects[0].Space
			}
			pages := map[string]int{"private": 16, "shared": 8, "file_private": 6, "file_shared": 6, "none": 4, "hole": 3}[name]
			for i := range max(pages, 2) {
				got, ok := stored[key{space, start + uint64(i)*page}]
				b, wanted := want[i]
				if ok != wanted || got != b {
					t.Errorf("page %d: stored %v %q, want %v %q", i, ok, got, wanted, b)
				}
			}
		})
	}
}

func TestPageRunsAreBounded(t *testing.T) {
	k := inspectKnown(t)
	m := k.tree.NewMemory(k.state, nil)
	defer m.Close()
	runs, err := m.pageRuns(soon(t), nil, func(*Process, *MapState) bool { return true }, func(p *Process) *Process { return p })
	if err != nil {
		t.Fatal(err)
	}
	maps, err := procfs.ReadMaps(k.pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if r.len == 0 || r.len > chunkSize {
			t.Errorf("a run of %d bytes at %#x", r.len, r.addr)
		}
		if !slices.ContainsFunc(maps, func(v procfs.VMA) bool { return v.Start <= r.addr && r.addr+r.len <= v.End }) {
			t.Errorf("run %#x-%#x is in no mapping", r.addr, r.addr+r.len)
		}
	}
}

func TestIntervals(t *testing.T) {
	var s intervals
	for _, tc := range []struct {
		start, end uint64
		fresh      string
	}{
		{10, 20, "[{10 20}]"}, {10, 20, "[]"}, {5, 12, "[{5 10}]"}, {18, 25, "[{20 25}]"},
		{30, 40, "[{30 40}]"}, {0, 50, "[{0 5} {25 30} {40 50}]"}, {0, 50, "[]"}, {7, 7, "[]"},
	} {
		if got := fmt.Sprint(s.add(tc.start, tc.end)); got != tc.fresh {
			t.Errorf("add(%d, %d) = %s, want %s", tc.start, tc.end, got, tc.fresh)
		}
	}
}
