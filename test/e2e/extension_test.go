package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// extensionTests are the examples of sdk/examples, each under a real program.
var extensionTests = map[string]func(*trial){
	"modifyenv":  showModifyEnv,
	"notify":     showNotify,
	"filepolicy": showFilePolicy,
	"license":    showLicense,
	"exampledb":  showExampleDB,
	"scrub":      showScrub,
	"redirect":   showRedirect,
	"relocate":   showRelocate,
	"standin":    showStandIn,
	"gate":       showGate,
	"logs":       showLogs,
	"kept":       showKeptState,
	"c":          func(tr *trial) { showCounter(tr, "counter-c") },
	"rust":       func(tr *trial) { showCounter(tr, "counter-rust") },
	"assembly":   func(tr *trial) { showCounter(tr, "counter-assembly") },
}

// TestExtensions builds the examples and shows each, as root and as an
// ordinary user.
func TestExtensions(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newBareSuite(t)
	for name := range extensionTests {
		if name != "kept" && name != "logs" && name != "c" && name != "rust" && name != "assembly" {
			s.buildExtension(t, "../../sdk/examples/"+name, name)
		}
	}
	s.buildCounters(t)
	for name, show := range extensionTests {
		for _, id := range s.identities {
			t.Run(name+"/"+id.name, func(t *testing.T) {
				t.Parallel()
				s.require(t, "python3")
				show(s.newTrial(t, id))
			})
		}
	}
}

// newBareSuite builds hiatus only.
func newBareSuite(t *testing.T) *suite {
	s := &suite{strict: os.Getenv("HIATUS_E2E_STRICT") == "1"}
	s.findIdentities(t)
	s.dir = tempDir(t, 0o755)
	command := []string{"go", "build", "-o", s.hiatus(), "../../cmd/hiatus"}
	if binary := os.Getenv("HIATUS_E2E_BINARY"); binary != "" {
		command = []string{"install", "-m", "0755", binary, s.hiatus()}
	}
	if err := buildOne(command); err != nil {
		t.Fatal(err)
	}
	return s
}

// buildExtension builds a guest in Go.
func (s *suite) buildExtension(t *testing.T, dir, name string) {
	err := buildOne([]string{"env", "GOOS=wasip1", "GOARCH=wasm", "go", "build", "-buildmode=c-shared", "-o", s.extension(name), dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.extension(name), 0o644); err != nil {
		t.Fatal(err)
	}
}

// buildCounters builds the same guest in C and in Rust, by Debian's compilers:
// those of rustup know other targets; and in AssemblyScript, whose compiler
// comes by npm.
func (s *suite) buildCounters(t *testing.T) {
	rust := []string{"/usr/bin/rustc", "--edition", "2021", "-O", "--target", "wasm32-unknown-unknown"}
	library := filepath.Join(s.dir, "libhiatus.rlib")
	for _, command := range [][]string{
		{"clang", "--target=wasm32", "-O2", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-Wl,--no-entry", "-I../../sdk/c",
			"-o", s.extension("counter-c"), "../../sdk/examples/c/counter/counter.c"},
		append(rust, "--crate-type", "rlib", "--crate-name", "hiatus", "-o", library, "../../sdk/rust/src/lib.rs"),
		append(rust, "--crate-type", "cdylib", "--extern", "hiatus="+library, "-C", "strip=symbols", "-o", s.extension("counter-rust"),
			"../../sdk/examples/rust/counter/lib.rs"),
		{"asc", "../../sdk/examples/assemblyscript/counter/counter.ts", "-o", s.extension("counter-assembly"), "-O", "--runtime", "stub", "--use", "abort="},
	} {
		if _, err := lookPath(command[0]); err != nil && !s.strict {
			t.Logf("missing: %s", command[0])
			continue
		}
		if err := buildOne(command); err != nil {
			t.Fatal(err)
		}
	}
}

// showCounter: the number of checkpoints is in the images.
func showCounter(tr *trial, name string) {
	if _, err := os.Stat(tr.suite.extension(name)); err != nil {
		tr.Skip("missing: its compiler")
	}
	flags := []string{tr.with(name), "--debug-logs", name + "=info"}
	tr.launchPython("", "pass", flags...)
	tr.checkpoint()
	tr.advance(1)
	tr.suspend()
	tr.restart(flags...)
	tr.advance(1)
	tr.checkpoint()
	var said []string
	for line := range strings.Lines(tr.read("hiatus.log")) {
		if _, text, ok := strings.Cut(line, "checkpoints: "); ok {
			said = append(said, text[:4])
		}
	}
	if got := strings.Join(said, " "); got != "0001 0002 0002 0003" {
		tr.Errorf("logged %s", got)
	}
	tr.finish()
}

func (s *suite) extension(name string) string { return filepath.Join(s.dir, name+".wasm") }

// with is --with-plugin for an example.
func (tr *trial) with(name string, options ...string) string {
	return "--with-plugin=" + strings.Join(append([]string{tr.suite.extension(name)}, options...), ",")
}

// launchPython starts a program that runs body ten times a second, with the
// flags before it.
func (tr *trial) launchPython(setup, body string, flags ...string) {
	tr.Helper()
	indent := func(s string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") }
	tr.write("program.py", `import os, sys, time, ctypes
os.chdir(os.environ["HT_DIR"])
`+setup+`
step = 0
while not os.path.exists("stop"):
`+indent(body)+`
    step += 1
    with open("progress.new", "w") as f:
        f.write(str(step))
    os.rename("progress.new", "progress")
    time.sleep(0.02)
print("ok", flush=True)
`)
	tr.launchAgain(flags...)
}

// launchAgain starts the program of launchPython.
func (tr *trial) launchAgain(flags ...string) {
	tr.Helper()
	tr.launchWith(flags, "python3", tr.path("program.py"))
	tr.advance(1)
}

func (tr *trial) setenv(name, value string) { tr.env = append(tr.env, name+"="+value) }

func showModifyEnv(tr *trial) {
	tr.setenv("PLACE", "one")
	tr.setenv("GONE", "here")
	tr.launchPython(`libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
def get(name):
    v = libc.getenv(name)
    return "-" if v is None else v.decode()
`, `with open("seen.new", "w") as f:
    f.write(" ".join(get(n) for n in (b"PLACE", b"GONE", b"NEW", b"HT_DIR")))
os.rename("seen.new", "seen")
`)
	seen := func(want string) {
		tr.Helper()
		want += " " + tr.dir
		tr.await("the environment "+want, func() bool { return tr.read("seen") == want })
	}
	seen("one here -")
	tr.suspend()
	tr.setenv("WHERE", "two")
	tr.write("env.txt", "# moved\nPLACE=$WHERE/b\nGONE\nNEW=\"a b\"\n")
	flag := tr.with("modifyenv", "grant=env", "set=env=@"+tr.path("env.txt"))
	tr.restart(flag)
	seen("two/b - a b")
	// A generation later it is the program's own, without the extension.
	tr.suspend()
	tr.restart()
	tr.advance(2)
	seen("two/b - a b")
	tr.suspend()
	tr.write("env.txt", "NEW\nGONE=again\n")
	tr.restart(flag)
	seen("two/b again -")
	tr.finish()
}

// messages collects what comes in by HTTP.
type messages struct {
	mu     sync.Mutex
	bodies []string
	paths  []string
	status int
}

func (m *messages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bodies, m.paths = append(m.bodies, string(body)), append(m.paths, r.URL.Path)
	w.WriteHeader(max(m.status, 200))
}

func (m *messages) take() (bodies []string, paths string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bodies, paths = m.bodies, strings.Join(m.paths, "")
	m.bodies, m.paths = nil, nil
	return bodies, paths
}

// serve returns the address of a server on the loopback.
func (tr *trial) serve(m *messages) string {
	server := httptest.NewServer(m)
	tr.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func showNotify(tr *trial) {
	m := &messages{}
	addr := tr.serve(m)
	command, _ := json.Marshal([]string{"/usr/bin/tee", "-a", tr.path("told")})
	tr.write("hiatus.yaml", fmt.Sprintf("extensions:\n  notify:\n    path: %s\n    grants: [\"http:%s\", \"exec:/usr/bin/tee\"]\n    config:\n      url: http://%s/hook\n      command: %s\n",
		tr.suite.extension("notify"), addr, addr, command))
	tr.launchPython("", "pass")
	tr.checkpoint()
	var got [2]struct {
		Kind       string
		Generation int
		Outcome    *struct {
			Committed bool
			Dir       string
			Bytes     int64
			Pause     int64 `json:"pause_ns"`
			Processes int
		}
	}
	bodies, _ := m.take()
	if len(bodies) != 2 {
		tr.Fatalf("messages %q, want 2", bodies)
	}
	for i, b := range bodies {
		if err := json.Unmarshal([]byte(b), &got[i]); err != nil {
			tr.Fatal(err)
		}
	}
	o := got[1].Outcome
	if got[0].Kind != "presuspend" || got[1].Kind != "outcome" || o == nil || !o.Committed || o.Bytes <= 0 || o.Pause <= 0 || o.Processes != 1 ||
		o.Dir != filepath.Join(tr.images(), tr.name, "00001") {
		tr.Errorf("messages %q", bodies)
	}
	if told := tr.read("told"); told != strings.Join(bodies, "") {
		tr.Errorf("the command was told %q, want %q", told, bodies)
	}
	tr.advance(2)
	tr.finish()
}

func showFilePolicy(tr *trial) {
	for _, name := range []string{"kept.dat", "free.log", "moved.txt"} {
		tr.write(name, "begin\n")
	}
	rules, _ := json.Marshal([]map[string]string{
		{"pattern": "*/kept.dat", "action": "save"},
		{"pattern": "*/free.log", "action": "skip"},
		{"pattern": "*/moved.txt", "action": "replace", "path": tr.path("tmp") + "/*"},
	})
	tr.write("hiatus.yaml", "extensions:\n  filepolicy:\n    path: "+tr.suite.extension("filepolicy")+"\n    grants: files\n    config:\n      rules: "+string(rules)+"\n")
	tr.launchPython(`kept, free, moved = open("kept.dat", "r+"), open("free.log", "a"), open("moved.txt", "r+")
kept.seek(0, 2); moved.seek(0, 2)
`, `for f in kept, free, moved:
    f.write("%d\n" % step); f.flush()
`)
	tr.advance(2)
	tr.suspend()
	kept, moved := tr.read("kept.dat"), tr.read("moved.txt")
	for _, name := range []string{"kept.dat", "free.log"} {
		if err := os.Remove(tr.path(name)); err != nil {
			tr.Fatal(err)
		}
	}
	tr.write("moved.txt", "other\n")
	tr.restart()
	tr.advance(2)
	for name, want := range map[string]string{"kept.dat": kept, "tmp/moved.txt": moved} {
		if got := tr.read(name); !strings.HasPrefix(got, want) || len(got) <= len(want) {
			tr.Errorf("%s: %q, want %q and more", name, got, want)
		}
	}
	if got := tr.read("moved.txt"); got != "other\n" {
		tr.Errorf("moved.txt: %q: the old file was touched", got)
	}
	if got := tr.read("free.log"); got == "" || strings.Contains(got, "begin") {
		tr.Errorf("free.log: %q, want lines since the restart only", got)
	}
	tr.finish()
}

func showLicense(tr *trial) {
	m := &messages{}
	addr := tr.serve(m)
	flag := tr.with("license", "grant=http:"+addr, "set=server=http://"+addr)
	tr.launchPython("", "pass", flag)
	tr.checkpoint()
	if _, paths := m.take(); paths != "/release/take" {
		tr.Errorf("in a checkpoint: %s", paths)
	}
	tr.suspend()
	if _, paths := m.take(); paths != "/release/take" {
		tr.Errorf("in a checkpoint with --kill: %s", paths)
	}
	m.mu.Lock()
	m.status = 409
	m.mu.Unlock()
	tr.restart(flag)
	if code := tr.wait(tr.front); code != 99 || !strings.Contains(tr.read("stderr"), "plugin license: running: ") {
		tr.Errorf("without a seat: exit code %d\n%s", code, tr.read("stderr"))
	}
	m.take()
	m.mu.Lock()
	m.status = 200
	m.mu.Unlock()
	tr.restart(flag)
	tr.advance(2)
	if _, paths := m.take(); paths != "/take" {
		tr.Errorf("in a restart: %s", paths)
	}
	tr.finish()
}

// showExampleDB: two programs under two launches find each other at every
// restart. Each takes what it has found out of its environment again.
func showExampleDB(tr *trial) {
	flags := func(key, value, peer string) []string {
		return []string{tr.with("exampledb", "grant=coord+env", "set=key="+key, "set=value="+value, "set=peer="+peer)}
	}
	tr.write("peers.py", `import ctypes, os, sys, time
os.chdir(os.environ["HT_DIR"])
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
found = []
def put(name, text):
    with open(name + ".new", "w") as f:
        f.write(text)
    os.rename(name + ".new", name)
put(sys.argv[1], "")
while not os.path.exists("stop"):
    peer = libc.getenv(b"HIATUS_PEER")
    if peer is not None:
        found.append(peer.decode())
        libc.unsetenv(b"HIATUS_PEER")
        put(sys.argv[1], " ".join(found))
    time.sleep(0.02)
print("ok", flush=True)
`)
	names := []string{"one", "two"}
	tr.launchWith(flags("a", "host-a:1", "b"), "python3", tr.path("peers.py"), names[0])
	tr.await("the first", func() bool { return tr.exists(names[0]) })
	fronts := []*front{tr.front, tr.start(append(append([]string{"launch", "--join", tr.name}, flags("b", "host-b:2", "a")...),
		"--", "python3", tr.path("peers.py"), names[1])...)}
	tr.await("the second", func() bool { return tr.exists(names[1]) })
	if o := tr.hiatus("launch", "--join", tr.name, "--", "true"); o.code != 99 || !strings.Contains(o.stderr, `plugin "exampledb" on the first only`) {
		tr.Errorf("joined without the extension: %s", o)
	}
	tr.must("check", tr.name)
	for n := 1; n <= 2; n++ {
		tr.checkpoint()
		tr.must("checkpoint", tr.name, "--kill")
		for _, f := range fronts {
			tr.wait(f)
		}
		tr.gone()
		tr.restart(tr.with("exampledb", "grant=coord+env"))
		fronts = []*front{tr.front}
		for i, peer := range []string{"host-b:2", "host-a:1"} {
			want := strings.TrimSpace(strings.Repeat(peer+" ", n))
			tr.await("the peer of "+names[i], func() bool { return tr.read(names[i]) == want })
		}
	}
	tr.finish()
}

func showScrub(tr *trial) {
	const secret = "correct-horse-battery-staple"
	tr.setenv("TOKEN", secret)
	flag := tr.with("scrub", "grant=mem.read+mem.write+env", "set=variable=TOKEN")
	tr.launchPython(`import hashlib
token = os.environ["TOKEN"] + ""
copy = bytearray(token.encode())
good = hashlib.sha256(copy).hexdigest()
`, `for t in (token.encode(), bytes(copy)):
    if hashlib.sha256(t).hexdigest() != good:
        open("failed", "w").write("the secret is %r" % t)
`, flag)
	tr.checkpoint()
	tr.advance(3)
	tr.suspend()
	err := filepath.WalkDir(tr.images(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			tr.Errorf("%s has the secret", path)
		}
		return err
	})
	if err != nil {
		tr.Fatal(err)
	}
	tr.restart(flag)
	tr.advance(3)
	tr.finish()
}

func showRedirect(tr *trial) {
	flag := tr.with("redirect", "grant=files", fmt.Sprintf(`set=files={"1":%q}`, tr.path("out.log")))
	tr.launchPython("", `print("step", step, flush=True)`, flag)
	tr.suspend()
	tr.restart(flag)
	tr.advance(2)
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	if out := tr.front.stdout.String(); out != "" {
		tr.Errorf("standard output has %q", out)
	}
	if log := tr.read("out.log"); !strings.HasPrefix(log, "step ") || !strings.HasSuffix(log, "ok\n") {
		tr.Errorf("out.log has %q", log)
	}
}

// configure writes the hiatus.yaml that the commands of the trial read.
func (tr *trial) configure(name, grants string, config any) {
	tr.Helper()
	values, err := json.Marshal(config)
	if err != nil {
		tr.Fatal(err)
	}
	tr.write("hiatus.yaml", fmt.Sprintf("extensions:\n  %s:\n    path: %s\n    grants: %s\n    config: %s\n",
		name, tr.suite.extension(name), grants, values))
}

// showRelocate: the directory of the data was moved, by rename(2) at first and
// by a copy then, whose original must stay as it is.
func showRelocate(tr *trial) {
	move := func(from, to string) {
		tr.configure("relocate", "path", map[string]any{"moved": []map[string]string{{"from": tr.path(from), "to": tr.path(to)}}})
	}
	// The program must not have asked for the path of a directory, and use it
	// where that path is another one.
	suspend := func() {
		tr.write("hold", "")
		tr.await("the program to hold", func() bool { return tr.exists("held") })
		tr.suspend()
		for _, name := range []string{"hold", "held"} {
			if err := os.Remove(tr.path(name)); err != nil {
				tr.Fatal(err)
			}
		}
	}
	tr.launchPython(`import shutil
home = os.getcwd()
os.makedirs("data/sub")
shutil.copy("/bin/sh", "data/sh")
log, table, folder = open("data/log", "a"), open("data/sub/table", "w+b"), os.open("data/sub", os.O_RDONLY)
table.write(b"begin"); table.flush()
os.chdir("data/sub")
# Whenever a checkpoint comes, a process stands in the directory, whose program
# was moved too.
execs, ends_at_exec = os.pipe()
child = os.fork()
if child == 0:
    os.execl(home + "/data/sh", "sh", "-c", "while [ ! -e %s/stop ]; do sleep 0.05; done" % home)
os.close(ends_at_exec); os.read(execs, 1); os.close(execs)
import socket
listener, datagrams = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(home + "/data/sub/listener"); listener.listen()
datagrams.bind("datagrams")
client = socket.socket(socket.AF_UNIX)
client.connect("listener")
server = listener.accept()[0]
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open("table", os.O_RDWR)
mapped = [libc.mmap(None, 4096, 1, how, fd, 0) for how in (1, 2)] # MAP_SHARED, MAP_PRIVATE
os.close(fd)
def same(what, got, want):
    if got != want:
        open(home + "/failed", "w").write("%s: %r, want %r" % (what, got, want))
        sys.exit(1)
def sockets(here):
    same("name", listener.getsockname(), here + "/listener")
    same("name", server.getsockname(), here + "/listener")
    same("name", client.getpeername(), here + "/listener")
    same("name", datagrams.getsockname(), "datagrams")
    client.send(b"x")
    same("data", server.recv(9), b"x")
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(here + "/listener")
        listener.accept()[0].close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as c:
        c.sendto(b"y", here + "/datagrams")
    same("data", datagrams.recv(9), b"y")
def files(here):
    same("program", os.readlink("/proc/%d/exe" % child), os.path.dirname(here) + "/sh")
    for address in mapped:
        same("content", ctypes.string_at(address, 5), b"begin")
    same("mappings", open("/proc/self/maps").read().count(" " + here + "/table\n"), 2)
`, `while os.path.exists(home + "/hold"): # the path of the directory is to change
    os.makedirs(home + "/held", exist_ok=True) # a file would be open for a moment
    time.sleep(0.01)
here = os.readlink("/proc/self/fd/%d" % folder)
sockets(here)
files(here)
os.chdir(folder)
log.write("%d\n" % step); log.flush()
if table.seek(0) or table.read(5) != b"begin":
    open(home + "/failed", "w").write("the table is another one")
with open("here", "w") as f:
    f.write(str(step))
os.chdir(home)
`)
	tr.advance(2)
	suspend()
	kept := tr.read("data/log")
	if err := os.Rename(tr.path("data"), tr.path("moved")); err != nil {
		tr.Fatal(err)
	}
	if o := tr.hiatus("restart", tr.images()); o.code != 99 || !strings.Contains(o.stderr, tr.path("data")) {
		tr.Errorf("restart without the extension: %s", o)
	}
	move("data", "moved")
	tr.restart()
	tr.advance(2)
	if got := tr.read("moved/log"); !strings.HasPrefix(got, kept) || len(got) <= len(kept) {
		tr.Errorf("moved/log has %q, want %q and more", got, kept)
	}
	if tr.exists("data") {
		tr.Error("the old directory is there again")
	}

	suspend()
	kept, here := tr.read("moved/log"), tr.read("moved/sub/here")
	if o := tr.exec("cp", "-a", "moved", "copy"); o.code != 0 {
		tr.Fatal(o)
	}
	move("moved", "copy")
	tr.restart()
	tr.advance(2)
	if got := tr.read("moved/log"); got != kept || tr.read("moved/sub/here") != here {
		tr.Errorf("the original was written to: %q, want %q", got, kept)
	}
	if got := tr.read("copy/log"); !strings.HasPrefix(got, kept) || len(got) <= len(kept) || tr.read("copy/sub/here") == here {
		tr.Errorf("copy/log has %q, want %q and more", got, kept)
	}
	tr.finish()
}

// showStandIn: a descriptor that the built-in plugins refuse. After a restart
// its two descriptors, of two processes, are one file.
func showStandIn(tr *trial) {
	const link = "anon_inode:[userfaultfd]"
	configure := func(file string) {
		tr.configure("standin", "[files, fd]", map[string]any{"links": map[string]string{link: tr.path(file)}})
	}
	tr.launchPython(`import platform
number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
fd = ctypes.CDLL(None, use_errno=True).syscall(number, os.O_NONBLOCK | 1) # UFFD_USER_MODE_ONLY
if fd < 0:
    sys.exit("userfaultfd: " + os.strerror(ctypes.get_errno()))
os.set_inheritable(fd, True)
other = os.dup(fd)
def stands(n):
    return os.readlink("/proc/self/fd/%d" % n).endswith("/stands")
def put(name, text):
    with open(name + ".new", "w") as f:
        f.write(text)
    os.rename(name + ".new", name)
if os.fork() == 0:
    while not os.path.exists("stop"):
        if stands(fd) and not os.path.exists("child"):
            put("child", os.read(fd, 8).decode())
        time.sleep(0.02)
    os._exit(0)
`, `if stands(fd) != stands(other):
    open("failed", "w").write("two descriptors of one description differ")
if stands(fd) and os.path.exists("child") and not os.path.exists("parent"):
    put("parent", os.read(other, 1000).decode())
put("link", os.readlink("/proc/self/fd/%d" % fd))
`)
	if o := tr.hiatus("checkpoint", tr.name); o.code != 1 || !strings.Contains(o.stderr, "userfaultfd(2)") {
		tr.Errorf("checkpoint without the extension: %s", o)
	}
	tr.advance(1)
	tr.write("stop", "")
	tr.ends(tr.front, 0)
	tr.gone()
	for _, name := range []string{"stop", "progress"} {
		if err := os.Remove(tr.path(name)); err != nil {
			tr.Fatal(err)
		}
	}

	configure("unused")
	tr.launchAgain()
	tr.checkpoint()
	tr.advance(2)
	if got := tr.read("link"); got != link {
		tr.Errorf("after a checkpoint in place it is %q", got)
	}
	tr.suspend()
	configure("stands")
	tr.restart()
	const want = "in place of " + link + "\n"
	tr.await("the reading of the file", func() bool { return tr.exists("parent") })
	if child, parent := tr.read("child"), tr.read("parent"); child != want[:8] || parent != want[8:] {
		tr.Errorf("read %q and %q, want %q: one offset", child, parent, want)
	}
	if tr.exists("unused") {
		tr.Error("the file of the checkpoint's configuration was made")
	}
	// Now it is a file like any other, and the plugin for files keeps it.
	tr.suspend()
	if err := os.Remove(tr.path("hiatus.yaml")); err != nil {
		tr.Fatal(err)
	}
	tr.restart("--ignore-plugin", "standin")
	tr.advance(2)
	if got := tr.read("link"); got != tr.path("stands") || tr.read("stands") != want {
		tr.Errorf("a generation later it is %q with %q", got, tr.read("stands"))
	}
	tr.finish()
}

// showGate: a server keeps the program stopped, behind a checkpoint and behind
// a restart.
func showGate(tr *trial) {
	m := &messages{}
	addr := tr.serve(m)
	answer := func(status int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.status = status
	}
	flags := []string{tr.with("gate", "grant=hold:10m+http:"+addr, "set=url=http://"+addr+"/gate", "set=every=20")}
	tr.launchPython("", "pass", flags...)
	held := func(what string) {
		tr.Helper()
		questions := func(n int) {
			asked := 0
			tr.await("the gate "+what, func() bool {
				_, paths := m.take()
				asked += strings.Count(paths, "/gate")
				return asked >= n
			})
		}
		m.take()
		questions(2)
		at := tr.read("progress")
		questions(8)
		if now := tr.read("progress"); now != at {
			tr.Errorf("%s the program ran from step %s to %s", what, at, now)
		}
	}
	answer(503)
	checkpoint := tr.start("checkpoint", tr.name)
	held("behind a checkpoint")
	answer(200)
	tr.ends(checkpoint, 0)
	tr.advance(2)
	tr.suspend()
	answer(503)
	tr.restart(flags...)
	held("behind a restart")
	answer(200)
	tr.advance(2)
	tr.finish()
}

// logLine is what one line of the log may have.
type logLine struct {
	Plugin, Message, Phase, Decision, Object, Function string
	Took                                               float64
	Result                                             int
}

// showLogs: one extension is traced, and nothing else: its events, what it was
// asked about, what it decided, and how long each took.
func showLogs(tr *trial) {
	m := &messages{}
	addr := tr.serve(m)
	rules, _ := json.Marshal([]map[string]string{{"pattern": "*/kept.dat", "action": "save"}})
	tr.write("hiatus.yaml", fmt.Sprintf("extensions:\n  filepolicy:\n    path: %s\n    grants: files\n    config:\n      rules: %s\n"+
		"  notify:\n    path: %s\n    grants: [\"exec:/bin/true\", \"http:%s\"]\n    config:\n      url: http://%s/\n",
		tr.suite.extension("filepolicy"), rules, tr.suite.extension("notify"), addr, addr))
	tr.write("kept.dat", "begin\n")
	flags := []string{"--log-level=off", "--debug-logs=filepolicy=trace"}
	tr.launchPython(`kept, other = open("kept.dat"), open("other.dat", "w")`, "pass", flags...)

	follow := tr.start("logs", tr.name, "--follow", "--json")
	lines := func(args ...string) (list []logLine) {
		tr.Helper()
		for text := range strings.Lines(tr.must(append([]string{"logs", tr.name, "--json"}, args...)...)) {
			var l logLine
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				tr.Fatalf("%v: %q", err, text)
			}
			if l.Plugin != "filepolicy" {
				tr.Errorf("a line of another: %s", text)
			}
			list = append(list, l)
		}
		return list
	}
	called := func(list []logLine, phases ...string) {
		tr.Helper()
		for _, phase := range phases {
			i := slices.IndexFunc(list, func(l logLine) bool {
				return l.Message == "call" && l.Phase == phase && l.Decision == "done" && l.Took > 0
			})
			if i < 0 {
				tr.Errorf("no call of %s in %+v", phase, list)
			}
		}
	}
	tr.checkpoint()
	tr.await("the outcome", func() bool { return strings.Contains(tr.read("hiatus.log"), `"outcome"`) })
	list := lines("--since", "1h", "--plugin", "filepolicy")
	called(list, "new", "launch", "presuspend", "precheckpoint", "take-file", "save", "resume", "outcome")
	decisions := map[string]string{}
	marked := false
	for _, l := range list {
		if l.Phase == "take-file" {
			decisions[filepath.Base(l.Object)] = l.Decision
		}
		marked = marked || l.Function == "files.mark" && l.Result == 0
	}
	if decisions["kept.dat"] != "done" || decisions["other.dat"] != "not mine" || !marked {
		tr.Errorf("decisions %v, marked: %t", decisions, marked)
	}
	if more := append(lines("--plugin", "notify"), lines("--since", "2999-01-02T15:04:05Z")...); len(more) > 0 {
		tr.Errorf("lines that nobody asked for: %+v", more)
	}
	if text := tr.must("logs", tr.name); !strings.Contains(text, "phase=precheckpoint") || !strings.Contains(text, "kept.dat: save") {
		tr.Errorf("as text: %s", text)
	}
	status := tr.must("status", tr.name)
	for _, plugin := range []string{"engine", "file", "filepolicy", "notify"} {
		if !strings.Contains(status, "\n"+plugin+" ") {
			tr.Errorf("no times of %s in %s", plugin, status)
		}
	}

	tr.suspend()
	tr.ends(follow, 0)
	if text := follow.stdout.String(); strings.Count(text, `"phase":"outcome"`) != 2 || !strings.Contains(text, `"phase":"exit"`) {
		tr.Errorf("followed: %s", text)
	}
	if err := os.Remove(tr.path("hiatus.log")); err != nil {
		tr.Fatal(err)
	}
	tr.restart(flags...)
	tr.advance(1)
	called(lines(), "new", "load", "restart", "reopen-file", "running")
	tr.finish()
}

// showKeptState: an image that holds an extension's state is not restarted
// without it in silence.
func showKeptState(tr *trial) {
	flag := tr.with("scrub", "grant=mem.read+mem.write+env", "set=variable=LANG_X")
	tr.setenv("LANG_X", "a-secret-that-is-nowhere-else")
	tr.launchPython("", "pass", flag)
	o := tr.hiatus("restart", tr.images(), flag)
	if o.code != 99 {
		tr.Errorf("restart without an image: %s", o)
	}
	tr.suspend()
	o = tr.hiatus("restart", tr.images())
	if o.code != 99 || !strings.Contains(o.stderr, "--ignore-plugin scrub") {
		tr.Errorf("restart without the extension: %s", o)
	}
	o = tr.hiatus("restart", tr.images(), "--with-plugin="+tr.suite.extension("scrub"))
	if o.code != 99 || !strings.Contains(o.stderr, "asks for mem.read, mem.write, env, which is not granted") && !strings.Contains(o.stderr, "not granted") {
		tr.Errorf("restart without a grant: %s", o)
	}
	tr.restart("--ignore-plugin", "scrub")
	tr.advance(2)
	tr.finish()
}

// TestExtensionGuide runs the commands of docs/writing-an-extension.md.
func TestExtensionGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	text, err := os.ReadFile("../../docs/writing-an-extension.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\n"
	commands := 0
	continued := false
	for line := range strings.Lines(string(text)) {
		code, ok := strings.CutPrefix(line, "    ")
		command, begins := strings.CutPrefix(code, "$ ")
		switch {
		case ok && begins:
			commands++
			script += command
			continued = strings.Contains(command, "<<'END'")
		case continued:
			script += code
			continued = code != "END\n"
		}
	}
	if commands < 10 {
		t.Fatalf("%d commands found", commands)
	}
	s := newBareSuite(t)
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tr := s.newTrial(t, s.identities[0])
	tr.env = append(tr.env, "HIATUS="+source, "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0", "PATH="+s.dir+":"+os.Getenv("PATH"))
	tr.env = slices.DeleteFunc(tr.env, func(v string) bool { return strings.HasPrefix(v, "HIATUS_LOG") })
	tr.write("guide.sh", script)
	if o := tr.exec("bash", "guide.sh"); o.code != 0 {
		t.Fatalf("%s\n%s", o, script)
	}
}
