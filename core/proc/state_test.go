package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// validState is a small state that DecodeState takes: a process with a thread
// and a child, a zombie, every kind of mapping, and an open file.
func validState() *State {
	page := uint64(os.Getpagesize())
	at := func(n uint64) uint64 { return 0x7f0000000000 + n*page }
	maps := []MapState{
		{Start: at(0), End: at(2), Prot: unix.PROT_READ, Kind: MapFile, Path: "/bin/prog", Offset: page},
		{Start: at(2), End: at(3), Prot: unix.PROT_READ | unix.PROT_WRITE, Kind: MapAnon},
		{Start: at(4), End: at(5), Prot: unix.PROT_READ, Shared: true, Kind: MapObject, Flags: []string{"mw"}},
		{Start: at(6), End: at(7), Kind: MapPlugin, Owner: "shm", Path: "/x"},
		{Start: at(8), End: at(9), Prot: unix.PROT_READ | unix.PROT_EXEC, Kind: MapVdso, Path: "[vdso]"},
	}
	process := func(pid, ppid, space int, threads ...ThreadState) ProcessState {
		return ProcessState{PID: pid, PPID: ppid, PGID: 100, SID: 50, Comm: "prog", Exe: "/bin/prog", Cwd: "/", Umask: 0o22,
			Auxv: make([]byte, 32), Limits: make([]syscall.Rlimit, rlimNlimits), Actions: blobs(nsig, sigactionBytes),
			Pending: [][]byte{siginfo(unix.SIGTERM)}, Maps: append([]MapState(nil), maps...), Threads: threads, Space: uint32(space)}
	}
	return &State{
		Arch: arch, Uid: 1000, Gid: 1000, Reaper: 90, Session: 50, Vdso: make([]byte, 4096),
		Clocks: Clocks{Monotonic: time.Hour, Boottime: 2 * time.Hour},
		Processes: []ProcessState{
			process(100, 0, 0, validThread(100), validThread(101)),
			process(102, 100, 1, validThread(102)),
			{PID: 103, PPID: 100, PGID: 100, SID: 50, Zombie: true, ExitCode: 3 << 8, Comm: "gone", Space: 2},
		},
		Objects: []ObjectState{{Name: "/dev/zero", Size: page, Space: 3}},
		Files:   []FileState{{ID: 1, Owner: "file", Link: "/dev/null", Refs: []FileRef{{PID: 100, FD: 0}, {PID: 102, FD: 5, Cloexec: true}}}},
		Refs:    []MappedFile{{Path: "/bin/prog", Size: 4096, Mtime: time.Unix(1, 2).UTC()}},
	}
}

func validThread(tid int) ThreadState {
	th := ThreadState{TID: tid, Comm: "prog", AltStack: make([]byte, 24), Pending: [][]byte{siginfo(unix.SIGUSR1)}}
	for _, n := range extraNotes {
		th.Extra = append(th.Extra, RegSet{n.note, make([]byte, min(n.room, 64))})
	}
	return th
}

// siginfo is a siginfo_t with si_code SI_QUEUE.
func siginfo(sig syscall.Signal) []byte {
	const siQueue = ^uint32(0)
	b := make([]byte, siginfoSize)
	le.PutUint32(b, uint32(sig))
	le.PutUint32(b[8:], siQueue)
	return b
}

func blobs(n, size int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, size)
	}
	return out
}

func encoded(tb testing.TB, st *State) []byte {
	tb.Helper()
	b, err := st.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDecodeStateTakesWhatEncodeGives(t *testing.T) {
	b := encoded(t, validState())
	st, err := DecodeState(StateVersion, b)
	if err != nil {
		t.Fatal(err)
	}
	if again := encoded(t, st); !bytes.Equal(again, b) {
		t.Errorf("decoded and encoded again:\n%s\nwant\n%s", again, b)
	}
}

func TestDecodeStateRefusesPayloads(t *testing.T) {
	valid := encoded(t, validState())
	insert := func(s string) []byte { return append([]byte("{"+s+","), valid[1:]...) }
	for _, tc := range []struct {
		name    string
		version uint16
		payload []byte
		want    string // in the error
	}{
		{"another version", StateVersion + 1, valid, "version 2"},
		{"nothing", StateVersion, nil, "EOF"},
		{"no JSON", StateVersion, []byte("\x00\x01"), "invalid character"},
		{"cut off", StateVersion, valid[:len(valid)/2], "unexpected EOF"},
		{"null", StateVersion, []byte("null"), "no processes"},
		{"a list", StateVersion, []byte("[]"), "array"},
		{"unknown field", StateVersion, insert(`"colour":1`), `unknown field "colour"`},
		{"text for a number", StateVersion, insert(`"uid":"root"`), "string"},
		{"number beyond its type", StateVersion, insert(`"uid":99999999999999999999`), "uid"},
		{"fraction", StateVersion, insert(`"uid":0.5`), "uid"},
		{"data behind it", StateVersion, append(bytes.Clone(valid), "{}"...), "after"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeState(tc.version, tc.payload)
			wantOneError(t, err, "engine section: ", tc.want)
		})
	}
}

// wantOneError wants one line of error that names all of wants.
func wantOneError(t *testing.T, err error, wants ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("taken, want an error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one error: %v", err)
	}
	for _, w := range wants {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not name %q", err, w)
		}
	}
}

func TestDecodeStateRefusesHostileStates(t *testing.T) {
	for group, cases := range map[string][]hostile{
		"tree": hostileTrees(), "process": hostileProcesses(), "thread": hostileThreads(), "maps": hostileMaps(), "files": hostileFiles(),
	} {
		for _, tc := range cases {
			t.Run(group+"/"+tc.name, func(t *testing.T) {
				st := validState()
				tc.change(st)
				_, err := DecodeState(StateVersion, encoded(t, st))
				wantOneError(t, err, "engine section: ", tc.want)
			})
		}
	}
}

// hostile is a change that makes a valid state one to refuse.
type hostile struct {
	name   string
	change func(st *State)
	want   string // in the error
}

// inFirst is a change of the first process.
func inFirst(f func(p *ProcessState)) func(*State) {
	return func(st *State) { f(&st.Processes[0]) }
}

func hostileTrees() []hostile {
	return []hostile{
		{"no processes", func(st *State) { st.Processes = nil }, "no processes"},
		{"no reaper", func(st *State) { st.Reaper = 0 }, "reaper 0"},
		{"huge reaper", func(st *State) { st.Reaper = maxPID }, "reaper"},
		{"pid 0", inFirst(func(p *ProcessState) { p.PID = 0 }), "id 0"},
		{"negative pid", inFirst(func(p *ProcessState) { p.PID = -1 }), "id -1"},
		{"huge pid", inFirst(func(p *ProcessState) { p.PID = 1 << 40 }), "id 1099511627776"},
		{"duplicate pid", func(st *State) { st.Processes[1].PID = 100 }, "id 100"},
		{"pid of the reaper", func(st *State) { st.Processes[2].PID = 90 }, "id 90"},
		{"pid of a thread", func(st *State) { st.Processes[2].PID = 101 }, "id 101"},
		{"parent after child", func(st *State) { st.Processes[0].PPID = 102 }, "parent 102"},
		{"parent of itself", func(st *State) { st.Processes[1].PPID = 102 }, "parent 102"},
		{"parent that is a thread", func(st *State) { st.Processes[1].PPID = 101 }, "parent 101"},
		{"negative parent", func(st *State) { st.Processes[1].PPID = -100 }, "parent -100"},
		{"parent that is a zombie", func(st *State) {
			st.Processes[1], st.Processes[2] = st.Processes[2], st.Processes[1]
			st.Processes[2].PPID = 103
		}, "parent 103"},
		{"negative group", inFirst(func(p *ProcessState) { p.PGID = -1 }), "group -1"},
		{"huge group", inFirst(func(p *ProcessState) { p.PGID = maxPID }), "group 4194304"},
		{"negative session", inFirst(func(p *ProcessState) { p.SID = -1 }), "session -1"},
		{"huge session", inFirst(func(p *ProcessState) { p.SID = maxPID }), "session 4194304"},
		{"group of another session", func(st *State) { st.Processes[1].SID, st.Processes[2].SID = 60, 60 }, "process group 100"},
		{"group led by a thread", func(st *State) { st.Processes[1].PGID = 101 }, "101"},
		{"session led by a thread", func(st *State) { st.Processes[1].SID, st.Processes[1].PGID = 101, 101 }, "101"},
	}
}

func hostileProcesses() []hostile {
	return []hostile{
		{"no threads", inFirst(func(p *ProcessState) { p.Threads = nil }), "without a leader"},
		{"no leader", inFirst(func(p *ProcessState) { p.Threads = p.Threads[1:] }), "without a leader"},
		{"leader that is gone", inFirst(func(p *ProcessState) { p.LeaderGone = true }), "without a leader"},
		{"leader that stands twice", inFirst(func(p *ProcessState) { p.Threads[1].TID = 100 }), "id 100"},
		{"leader that is gone and there", inFirst(func(p *ProcessState) {
			p.LeaderGone = true
			p.Threads[0], p.Threads[1] = p.Threads[1], p.Threads[0]
		}), "id 100"},
		{"no program", inFirst(func(p *ProcessState) { p.Exe = "" }), "paths"},
		{"relative program", inFirst(func(p *ProcessState) { p.Exe = "bin/prog" }), "bin/prog"},
		{"unclean program", inFirst(func(p *ProcessState) { p.Exe = "/bin/../prog" }), "/bin/../prog"},
		{"relative directory", inFirst(func(p *ProcessState) { p.Cwd = "." }), `"."`},
		{"unclean directory", inFirst(func(p *ProcessState) { p.Cwd = "/tmp/" }), "/tmp/"},
		{"zero byte in a path", inFirst(func(p *ProcessState) { p.Cwd = "/a\x00b" }), "paths"},
		{"path that is too long", inFirst(func(p *ProcessState) { p.Exe = longPath() }), "path"},
		{"actions missing", inFirst(func(p *ProcessState) { p.Actions = nil }), "0 signal actions"},
		{"too many actions", inFirst(func(p *ProcessState) { p.Actions = blobs(nsig+1, sigactionBytes) }), "65 signal actions"},
		{"action of another size", inFirst(func(p *ProcessState) { p.Actions[7] = nil }), "signal action"},
		{"limits missing", inFirst(func(p *ProcessState) { p.Limits = p.Limits[1:] }), "15 limits"},
		{"long auxiliary vector", inFirst(func(p *ProcessState) { p.Auxv = make([]byte, 1<<16) }), "auxiliary vector"},
		{"long name", inFirst(func(p *ProcessState) { p.Comm = text(strings.Repeat("x", 100)) }), "name too long"},
		{"short pending signal", inFirst(func(p *ProcessState) { p.Pending = blobs(1, 12) }), "pending signal"},
		{"pending signal 0", inFirst(func(p *ProcessState) { p.Pending = [][]byte{siginfo(0)} }), "signal 0"},
		{"pending signal 65", inFirst(func(p *ProcessState) { p.Pending = [][]byte{siginfo(nsig + 1)} }), "signal 65"},
		{"pending SIGKILL", inFirst(func(p *ProcessState) { p.Pending = [][]byte{siginfo(unix.SIGKILL)} }), "signal 9"},
		{"zombie ended by a stop signal", func(st *State) { st.Processes[2].ExitCode = int(unix.SIGSTOP) }, "wait status"},
		{"zombie ended by an ignored signal", func(st *State) { st.Processes[2].ExitCode = int(unix.SIGCHLD) }, "wait status"},
		{"zombie that is stopped", func(st *State) { st.Processes[2].ExitCode = 0x7f }, "wait status"},
		{"zombie that was continued", func(st *State) { st.Processes[2].Continued = true }, "stopped"},
		{"stopped by a signal that ends", inFirst(func(p *ProcessState) { p.Stopped, p.StopSignal = true, int(unix.SIGTERM) }), "signal 15"},
		{"stopped by signal 65", inFirst(func(p *ProcessState) { p.Stopped, p.StopSignal = true, nsig+1 }), "signal 65"},
		{"stopped and not", inFirst(func(p *ProcessState) { p.StopSignal = int(unix.SIGSTOP) }), "signal 19"},
		{"stopped and continued", inFirst(func(p *ProcessState) { p.Stopped, p.Continued = true, true }), "stopped"},
		{"zombie with a long name", func(st *State) { st.Processes[2].Comm = text(strings.Repeat("x", 1<<20)) }, "name too long"},
		{"space of another process", func(st *State) { st.Processes[1].Space = 0 }, "space 0"},
	}
}

func longPath() string { return strings.Repeat("/directory", 1<<15) }

func hostileThreads() []hostile {
	th := func(f func(th *ThreadState)) func(*State) {
		return inFirst(func(p *ProcessState) { f(&p.Threads[1]) })
	}
	return []hostile{
		{"id 0", th(func(th *ThreadState) { th.TID = 0 }), "id 0"},
		{"negative id", th(func(th *ThreadState) { th.TID = -7 }), "id -7"},
		{"huge id", th(func(th *ThreadState) { th.TID = maxPID }), "id 4194304"},
		{"id of another process", th(func(th *ThreadState) { th.TID = 102 }), "id 102"},
		{"no register sets", th(func(th *ThreadState) { th.Extra = nil }), "incomplete"},
		{"too many register sets", th(func(th *ThreadState) { th.Extra = append(th.Extra, th.Extra...) }), "incomplete"},
		{"unknown register set", th(func(th *ThreadState) { th.Extra[0].Note = 4711 }), "register set 0x1267"},
		{"empty register set", th(func(th *ThreadState) { th.Extra[0].Data = nil }), "of 0 bytes"},
		{"huge register set", th(func(th *ThreadState) { th.Extra[0].Data = make([]byte, extraNotes[0].room+1) }), "register set"},
		{"no alternate stack", th(func(th *ThreadState) { th.AltStack = nil }), "incomplete"},
		{"long name", th(func(th *ThreadState) { th.Comm = text(strings.Repeat("x", 65)) }), "incomplete"},
		{"huge affinity", th(func(th *ThreadState) { th.CPUs = make([]byte, 1<<20) }), "affinity"},
		{"long pending signal", th(func(th *ThreadState) { th.Pending = blobs(1, 129) }), "129 bytes"},
		{"pending signal 0", th(func(th *ThreadState) { th.Pending = [][]byte{siginfo(0)} }), "signal 0"},
	}
}

func hostileMaps() []hostile {
	page := uint64(os.Getpagesize())
	m := func(i int, f func(m *MapState)) func(*State) {
		return inFirst(func(p *ProcessState) { f(&p.Maps[i]) })
	}
	return []hostile{
		{"start within a page", m(1, func(m *MapState) { m.Start++ }), "mapping 7f"},
		{"end within a page", m(1, func(m *MapState) { m.End-- }), "mapping 7f"},
		{"offset within a page", m(0, func(m *MapState) { m.Offset = 1 }), "mapping 7f"},
		{"empty", m(1, func(m *MapState) { m.End = m.Start }), "mapping 7f"},
		{"end before start", m(1, func(m *MapState) { m.End = m.Start - page }), "mapping 7f"},
		{"overlap", m(0, func(m *MapState) { m.End += page }), "mapping 7f"},
		{"descending", inFirst(func(p *ProcessState) { p.Maps[0], p.Maps[1] = p.Maps[1], p.Maps[0] }), "mapping 7f"},
		{"in the kernel's half", m(4, func(m *MapState) { m.Start, m.End = 1<<63, 1<<63+page }), "mapping 8000000000000000"},
		{"up to the end of all addresses", m(4, func(m *MapState) { m.End = -page }), "mapping 7f"},
		{"unknown kind", m(1, func(m *MapState) { m.Kind = "magic" }), `kind "magic"`},
		{"no kind", m(1, func(m *MapState) { m.Kind = "" }), `kind ""`},
		{"relative file", m(0, func(m *MapState) { m.Path = "prog" }), `path "prog"`},
		{"unclean file", m(0, func(m *MapState) { m.Path = "/bin/./prog" }), `path "/bin/./prog"`},
		{"file of another reference", m(0, func(m *MapState) { m.Path = "/bin/other" }), "/bin/other"},
		{"file with a path that is too long", func(st *State) {
			st.Processes[0].Maps[0].Path, st.Processes[1].Maps[0].Path, st.Refs[0].Path = longPath(), longPath(), longPath()
		}, "path"},
		{"negative reference", m(0, func(m *MapState) { m.Ref = -1 }), "reference -1"},
		{"reference beyond the files", m(0, func(m *MapState) { m.Ref = 1 }), "reference 1"},
		{"reference beyond the objects", m(2, func(m *MapState) { m.Ref = 1 }), "reference 1"},
		{"huge reference of memory", m(1, func(m *MapState) { m.Ref = 1 << 40 }), "reference 1099511627776"},
		{"beyond the end of its object", m(2, func(m *MapState) { m.Offset = 1 << 62 }), "mapping 7f"},
		{"object of an unknown file", func(st *State) { st.Objects[0].File = 7 }, "file 7"},
		{"object with the space of a process", func(st *State) { st.Objects[0].Space = 1 }, "space 1"},
		{"relative reference", func(st *State) { st.Refs[0].Path = "prog" }, `"prog"`},
		{"reference of negative size", func(st *State) { st.Refs[0].Size = -1 }, "mapped file"},
		{"carried file that is written to", func(st *State) { st.Refs[0].Write, st.Refs[0].Carried = true, true }, "mapped file"},
		{"reference with huge content", func(st *State) { st.Refs[0].Content = make([]byte, smallFile+1) }, "mapped file"},
	}
}

func hostileFiles() []hostile {
	f := func(f func(f *FileState)) func(*State) { return func(st *State) { f(&st.Files[0]) } }
	table := func(thread int, files ...OwnFile) func(*State) {
		return func(st *State) { st.Processes[0].Threads[thread].Files = &TableState{Files: files} }
	}
	return []hostile{
		{"no owner", f(func(f *FileState) { f.Owner = "" }), "open file 1"},
		{"no descriptors", f(func(f *FileState) { f.Refs = nil }), "open file 1"},
		{"twice", func(st *State) { st.Files = append(st.Files, st.Files[0]) }, "open file 1"},
		{"negative descriptor", f(func(f *FileState) { f.Refs[0].FD = -1 }), "descriptor -1"},
		{"huge descriptor", f(func(f *FileState) { f.Refs[0].FD = maxFD + 1 }), "descriptor 1073741825"},
		{"duplicate descriptor", f(func(f *FileState) { f.Refs = append(f.Refs, f.Refs[0]) }), "descriptor 0 of process 100"},
		{"descriptor of two files", func(st *State) {
			st.Files = append(st.Files, FileState{ID: 2, Owner: "file", Refs: []FileRef{{PID: 102, FD: 5}}})
		}, "descriptor 5 of process 102"},
		{"descriptor of an unknown process", f(func(f *FileState) { f.Refs[1].PID = 7 }), "process 7"},
		{"table of a first thread", table(0), "thread 100: a table"},
		{"unknown file in a table", table(1, OwnFile{FD: 1, ID: 7}), "open file 7"},
		{"negative descriptor in a table", table(1, OwnFile{FD: -1, ID: 1}), "thread 101: descriptor -1"},
		{"duplicate descriptor in a table", table(1, OwnFile{FD: 1, ID: 1}, OwnFile{FD: 1, ID: 1}), "thread 101: descriptor 1"},
		{"descriptor of a thread", f(func(f *FileState) { f.Refs[1].PID = 101 }), "process 101"},
	}
}

// FuzzDecodeState feeds damaged payloads: one is refused, or what is taken
// means the same when it is encoded again, and has a plan.
func FuzzDecodeState(f *testing.F) {
	f.Add(encoded(f, validState()))
	for _, cases := range [][]hostile{hostileTrees(), hostileThreads(), hostileMaps(), hostileFiles()} {
		for _, tc := range cases {
			st := validState()
			tc.change(st)
			if b := encoded(f, st); len(b) < 64<<10 {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		st, err := DecodeState(StateVersion, payload)
		if err != nil {
			return
		}
		b := encoded(t, st)
		again, err := DecodeState(StateVersion, b)
		if err != nil {
			t.Fatalf("encoded again it is refused: %v", err)
		}
		if !bytes.Equal(encoded(t, again), b) {
			t.Error("encoded again it differs")
		}
		for _, inherit := range []bool{true, false} {
			if _, err := st.plan(inherit); err != nil {
				t.Errorf("inherit %v: no plan: %v", inherit, err)
			}
		}
	})
}

func TestCheckHost(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mapped")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum := func(st *State) {
		t.Helper()
		var s unix.Stat_t
		err := unix.Stat(file, &s)
		if err == nil {
			st.Refs[0].Sum, err = sumFile(file, stampOf(&s))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	own := func() *State {
		t.Helper()
		write("original")
		var s unix.Stat_t
		if err := unix.Stat(file, &s); err != nil {
			t.Fatal(err)
		}
		h, err := readHostVdso()
		if err != nil {
			t.Fatal(err)
		}
		st := validState()
		setVdso(st, h.bytes)
		st.Uid, st.CPU = os.Geteuid(), readCPU()
		st.Refs = []MappedFile{{Path: file, Size: s.Size, Mtime: timeOf(s.Mtim)}}
		return st
	}
	for _, tc := range []struct {
		name   string
		change func(st *State)
		want   []string // in the error; none: it runs here
	}{
		{"as it was", func(*State) {}, nil},
		{"another architecture", func(st *State) { st.Arch = "s390x" }, []string{"s390x", arch}},
		{"a damaged vdso", func(st *State) { setVdso(st, make([]byte, 4096)) }, []string{"vdso"}},
		{"program without a vdso", func(st *State) { st.Processes[0].Maps = nil }, nil},
		{"mapped file gone", func(*State) { os.Remove(file) }, []string{file, "no such file"}},
		{"mapped file truncated", func(*State) { write("orig") }, []string{file, "changed"}},
		{"mapped file grown", func(*State) { write("original and more") }, []string{file, "changed"}},
		{"mapped file of the same size, later", func(*State) {
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(file, later, later); err != nil {
				t.Fatal(err)
			}
		}, []string{file, "changed"}},
		{"mapped file of the same bytes, later", func(st *State) {
			sum(st)
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(file, later, later); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"mapped file of other bytes, of the same time", func(st *State) {
			sum(st)
			write("ORIGINAL")
			if err := os.Chtimes(file, st.Refs[0].Mtime, st.Refs[0].Mtime); err != nil {
				t.Fatal(err)
			}
		}, []string{file, "changed", "--self-contained"}},
		{"mapped file gone, but carried", func(st *State) { st.Refs[0].Carried = true; os.Remove(file) }, nil},
		{"mapped file grown, but carried", func(st *State) { st.Refs[0].Carried = true; write("original and more") }, nil},
		{"mapped file that is a folder now", func(*State) {
			os.Remove(file)
			if err := os.Mkdir(file, 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{file, "no regular file"}},
		{"file mapped for writing, changed", func(st *State) { st.Refs[0].Write = true; write("CHANGED!") }, nil},
		{"file mapped for writing, grown", func(st *State) { st.Refs[0].Write = true; write("original and more") }, nil},
		{"file mapped for writing, truncated", func(st *State) { st.Refs[0].Write = true; write("orig") }, []string{file, "4 bytes"}},
		{"file mapped for writing, gone", func(st *State) { st.Refs[0].Write = true; os.Remove(file) }, []string{file, "no such file"}},
		{"file mapped for writing, gone but kept", func(st *State) {
			st.Refs[0].Write, st.Refs[0].Content = true, []byte("original")
			os.Remove(file)
		}, nil},
		{"no working directory", func(st *State) { st.Processes[0].Cwd = filepath.Join(dir, "none") }, []string{"pid 100", filepath.Join(dir, "none")}},
		{"a file for a working directory", func(st *State) { st.Processes[1].Cwd = file }, []string{"pid 102", file}},
		{"zombie without a working directory", func(st *State) { st.Processes[2].Cwd = "" }, nil},
		{"all findings at once", func(st *State) { st.Processes[0].Cwd = "/none"; setVdso(st, make([]byte, 4096)); os.Remove(file) },
			[]string{"/none", "vdso", file}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			os.RemoveAll(file)
			st := own()
			tc.change(st)
			err := errors.Join(st.CheckHost(), st.CheckPaths())
			if len(tc.want) == 0 && err != nil {
				t.Errorf("refused: %v", err)
			}
			if len(tc.want) > 0 && err == nil {
				t.Error("taken, want an error")
			}
			for _, w := range tc.want {
				if err != nil && !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
		})
	}
	t.Run("another user", func(t *testing.T) {
		st := own()
		st.Uid++
		if err := st.CheckHost(); err == nil || !strings.Contains(err.Error(), "belongs to user") {
			t.Errorf("got %v, want a refusal for root too: an image is code that runs as who restarts it", err)
		}
	})
}

func TestStateNamesItsFieldsOnce(t *testing.T) {
	// Encode gives every field a name of its own: one that two fields share
	// is left out by encoding/json without a word.
	var m map[string]json.RawMessage
	if err := json.Unmarshal(encoded(t, validState()), &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"arch", "uid", "gid", "clocks", "reaper", "session", "vdso", "processes", "objects", "files", "mapped_files"} {
		if m[name] == nil {
			t.Errorf("no field %q", name)
		}
	}
}
