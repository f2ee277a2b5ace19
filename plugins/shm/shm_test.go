package shm

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

func TestContract(t *testing.T) {
	const perm = `"id":5,"key":0,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":384`
	plugintest.Run(t, Definition(), plugintest.Suite{
		Config: `{"allow_outside":true}`,
		Fill: func(t *testing.T, p plugin.Plugin, _ *plugintest.Host) {
			p.(*Plugin).state = state{
				Segments:   []segment{{perm: permOf(3), Size: 4096, Whole: &place{7, 4096}}},
				Attached:   []attachment{{7, 3, 8192, 12288, 0}},
				Semaphores: []semSet{{perm: permOf(4), Values: []uint16{1, 2}, PIDs: []int{0, 7}}},
				Undo:       []undo{{7, 4, 1, -3}},
				Queues:     []msgQueue{{perm: permOf(0), Messages: []message{{1, []byte("one")}}}},
				POSIX: []posixQueue{{Name: "q", Mode: 0o600, Maximum: 2, Size: 8, Messages: []posixMessage{{1, []byte("one")}},
					Notify: &notification{7, 3, 10, 1 << 60}}},
				Files: map[int]mqd{1: {0, unix.O_RDWR}},
			}
		},
		Invalid: map[string]string{
			"segment id":        `{"segments":[{"id":-1,"size":"1","key":0,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":0,"cpid":0,"lpid":0}]}`,
			"segment twice":     `{"segments":[{` + perm + `,"size":"1","cpid":0,"lpid":0},{` + perm + `,"size":"1","cpid":0,"lpid":0}]}`,
			"segment size":      `{"segments":[{` + perm + `,"size":"0","cpid":0,"lpid":0}]}`,
			"huge page":         `{"segments":[{` + perm + `,"size":"1","huge_shift":64,"cpid":0,"lpid":0}]}`,
			"attached nothing":  `{"attached":[{"pid":1,"id":5,"start":"4096","end":"8192","offset":0}]}`,
			"no semaphores":     `{"semaphores":[{` + perm + `,"values":[],"pids":[]}]}`,
			"fewer pids":        `{"semaphores":[{` + perm + `,"values":[1,2],"pids":[1]}]}`,
			"semaphore value":   `{"semaphores":[{` + perm + `,"values":[32768],"pids":[1]}]}`,
			"undo of no set":    `{"undo":[{"pid":1,"id":5,"num":0,"count":1}]}`,
			"undo count":        `{"semaphores":[{` + perm + `,"values":[1],"pids":[1]}],"undo":[{"pid":1,"id":5,"num":0,"count":40000}]}`,
			"message type":      `{"message_queues":[{` + perm + `,"msg_qbytes":"1","lspid":0,"lrpid":0,"messages":[{"type":"0","data":""}]}]}`,
			"POSIX name":        `{"posix_queues":[{"name":"a/b","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1}]}`,
			"POSIX name twice":  `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1},{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1}]}`,
			"POSIX sizes":       `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":0,"msgsize":1}]}`,
			"POSIX messages":    `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1,"messages":[{"priority":0,"data":"YWI="}]}]}`,
			"POSIX priority":    `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1,"messages":[{"priority":32768,"data":""}]}]}`,
			"POSIX notify":      `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1,"notify":{"pid":0,"fd":1,"signal":1,"sigev_value":"0"}}]}`,
			"POSIX file":        `{"posix_files":{"1":{"queue":0,"flags":0}}}`,
			"POSIX file's flag": `{"posix_queues":[{"name":"a","uid":0,"gid":0,"mode":384,"maxmsg":1,"msgsize":1}],"posix_files":{"1":{"queue":0,"flags":64}}}`,
		},
	})
}

func permOf(id int) perm { return perm{ID: id, Mode: 0o600} }

// newSet makes a semaphore set of the test.
func newSet(t *testing.T, values ...uint16) int {
	t.Helper()
	id, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, uintptr(len(values)), ipcCreat|0o600)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { _, _, _ = unix.Syscall6(unix.SYS_SEMCTL, id, 0, ipcRmid, 0, 0, 0) })
	for num, v := range values {
		const setVal = 16
		if _, _, errno := unix.Syscall6(unix.SYS_SEMCTL, id, uintptr(num), setVal, uintptr(v), 0, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	return int(id)
}

// TestUndo reads undo counts of all kinds and at the limits, and makes them
// again in a thread that had none. Nothing else may change.
func TestUndo(t *testing.T) {
	for _, tt := range []struct {
		value uint16
		count int
	}{
		{0, 1}, {0, -1}, {1, 1}, {5, -1}, {5, 100}, {32767, -100}, {32767, 1}, {32767, -1}, {0, 32767}, {32767, 32767},
		{0, -32767}, {32767, -32767}, {0, -32768}, {32767, -32768}, {7, -32768}, {16000, 32767}, {16384, -32768}, {12, 0},
	} {
		id := newSet(t, tt.value)
		p := &Plugin{state: state{Semaphores: []semSet{{perm: permOf(id), Values: []uint16{tt.value}, PIDs: []int{0}}}}}
		self := plugintest.Self(t)
		if tt.count != 0 {
			p.state.Undo = []undo{{self.PID(), id, 0, tt.count}}
		}
		if err := p.restoreUndo(t.Context(), self); err != nil {
			t.Errorf("value %d, count %d: %v", tt.value, tt.count, err)
			continue
		}
		p.state.Undo = nil
		if err := p.saveUndoOf(t.Context(), self, &p.state.Semaphores[0]); err != nil {
			t.Errorf("value %d, count %d: %v", tt.value, tt.count, err)
			continue
		}
		got := 0
		for _, u := range p.state.Undo {
			got += u.Count
		}
		values, err := valuesOf(t, self, id, 1)
		if got != tt.count || err != nil || values[0] != tt.value {
			t.Errorf("value %d, count %d: read count %d, value %v, %v", tt.value, tt.count, got, values, err)
		}
	}
}

// TestHasUndo: a process has a list of undo counts when it has made a thread, or used
// semaphores so.
func TestHasUndo(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
	for name, tt := range map[string]struct {
		pid  int
		want bool
	}{"without": {sleep.Process.Pid, false}, "with threads": {os.Getpid(), true}} {
		if got, err := hasUndo(tt.pid); got != tt.want || err != nil {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
}

// TestQueueStays reads the messages of a queue twice: they stay.
func TestQueueStays(t *testing.T) {
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, 0, ipcCreat|0o600, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { _, _, _ = unix.Syscall(unix.SYS_MSGCTL, id, ipcRmid, 0) })
	self := plugintest.Self(t)
	want := []message{{3, []byte("three")}, {1, []byte{}}, {1 << 40, []byte(strings.Repeat("x", 5000))}}
	for _, m := range want {
		if err := m.send(t.Context(), self, int(id)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, err := peek(t.Context(), self, int(id), 3, 5005)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range got {
			if m.Type != want[i].Type || string(m.Data) != string(want[i].Data) {
				t.Errorf("message %d: type %d, %d bytes", i, m.Type, len(m.Data))
			}
		}
	}
}

// valuesOf reads a set of count semaphores.
func valuesOf(t *testing.T, proc plugin.Process, id, count int) ([]uint16, error) {
	t.Helper()
	set := object{perm: perm{ID: id}, ds: make([]byte, dsSize)}
	native.PutUint64(set.ds[semCountAt:], uint64(count))
	found, err := (&tree{procs: []plugin.Process{proc}}).readSets(t.Context(), []object{set})
	return found[id].values, errors.Join(err, found[id].err)
}

// TestReadSets reads several sets at once, and those that are gone or too large.
func TestReadSets(t *testing.T) {
	self := plugintest.Self(t)
	var sets []object
	add := func(id, count int) {
		set := object{perm: perm{ID: id}, ds: make([]byte, dsSize)}
		native.PutUint64(set.ds[semCountAt:], uint64(count))
		sets = append(sets, set)
	}
	ids := make([]int, 5)
	for i := range ids {
		id, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, 300, ipcCreat|0o600)
		if errno != 0 {
			t.Fatal(errno)
		}
		t.Cleanup(func() { _, _, _ = unix.Syscall(unix.SYS_SEMCTL, id, 0, ipcRmid) })
		const setVal = 16
		if _, _, errno := unix.Syscall6(unix.SYS_SEMCTL, id, 299, setVal, uintptr(i+1), 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		ids[i] = int(id)
		add(ids[i], 300)
	}
	const gone, large = 1<<31 - 1, 1<<31 - 2
	sets = slices.Insert(sets, 2, object{}, object{})
	sets[2], sets[3] = object{perm: perm{ID: gone}, ds: sets[0].ds}, object{perm: perm{ID: large}, ds: make([]byte, dsSize)}
	native.PutUint64(sets[3].ds[semCountAt:], 1<<30)
	found, err := (&tree{procs: []plugin.Process{self}}).readSets(t.Context(), sets)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		c := found[id]
		if c.err != nil || len(c.values) != 300 || c.values[299] != uint16(i+1) || c.values[0] != 0 || c.pids[299] != os.Getpid() || c.pids[0] != 0 {
			t.Errorf("set %d: %v, %d values, of the last %d by %d", i, c.err, len(c.values), c.values[299], c.pids[299])
		}
	}
	if err := found[gone].err; !errors.Is(err, unix.EINVAL) {
		t.Errorf("one that is gone: %v", err)
	}
	if err := found[large].err; err == nil || err.Error() != "1073741824 semaphores are too many" {
		t.Errorf("one that is too large: %v", err)
	}
}

// TestRemovedSegment: a segment that somebody has removed since it was listed is
// nobody's concern.
func TestRemovedSegment(t *testing.T) {
	self := plugintest.Self(t)
	tree := &tree{procs: []plugin.Process{self}, byPID: map[int]plugin.Process{self.PID(): self}}
	p := &Plugin{}
	if err := p.mapWhole(t.Context(), tree, &segment{perm: perm{ID: 1<<31 - 1}, Size: 4096}, nil); !errors.Is(err, errOther) {
		t.Errorf("without mappings: %v", err)
	}
	_, refused := errors.AsType[*plugin.RefusalError](p.mapWhole(t.Context(), tree, &segment{perm: perm{ID: 1<<31 - 1}, Size: 4096}, []attachment{{End: 1}}))
	if !refused {
		t.Error("a segment that is mapped was let go")
	}
}

// TestJudge tells what is saved, left, and refused.
func TestJudge(t *testing.T) {
	us := uint32(os.Geteuid())
	other, given := us+1, "refused"
	if us == 0 {
		given = "saved"
	}
	for name, tt := range map[string]struct {
		own   bool
		allow bool
		uid   uint32
		use   use
		young bool
		given bool   // to the other user
		want  string // saved, doubtful, unproven, other, refused
	}{
		"a namespace of its own":   {own: true, uid: us, want: "saved"},
		"used by the tree":         {uid: us, use: use{inside: true}, want: "saved"},
		"used by both":             {uid: us, use: use{true, true}, want: "refused"},
		"used by both, allowed":    {allow: true, uid: us, use: use{true, true}, want: "saved"},
		"used by others":           {uid: us, use: use{outside: true}, young: true, want: "doubtful"},
		"old, used by nobody":      {uid: us, want: "doubtful"},
		"young, used by nobody":    {uid: us, young: true, want: "unproven"},
		"another user's":           {uid: other, young: true, want: "other"},
		"another user's, by group": {uid: other, use: use{outside: true}, want: "other"},
		"given away, in use":       {uid: us, given: true, use: use{inside: true}, want: given},
		"given away, used by none": {uid: us, given: true, young: true, want: "unproven"},
	} {
		tree := &tree{own: tt.own, uids: map[uint32]bool{us: true}, since: 100, procs: []plugin.Process{plugintest.Self(t)}}
		o := &object{perm: perm{UID: tt.uid, CUID: tt.uid, GID: uint32(os.Getegid())}, ctime: 99}
		if tt.given {
			o.UID = other
		}
		if tt.young {
			o.ctime = 100
		}
		p := &Plugin{config: config{AllowOutside: tt.allow}}
		err := p.judge(tree, semKind, o, tt.use)
		_, refused := errors.AsType[*plugin.RefusalError](err)
		got := "saved"
		switch {
		case refused:
			got = "refused"
		case errors.Is(err, errOther):
			got = "other"
		case o.Doubtful:
			got = "doubtful"
		case o.Unproven:
			got = "unproven"
		}
		if got != tt.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, tt.want)
		}
	}
}

// TestUsers tells processes that used an object from those that have but the
// number of one that did.
func TestUsers(t *testing.T) {
	self := plugintest.Self(t)
	other := os.Getppid()
	now := time.Now().Unix()
	start, ok := startOf(self.PID())
	if !ok || start > now || start < now-3600 {
		t.Fatalf("this process started at %d, now is %d", start, now)
	}
	for name, tt := range map[string]struct {
		pid  int
		last int64
		own  bool
		set  bool
		want use
	}{
		"nobody":                    {pid: 0, last: now},
		"the tree":                  {pid: self.PID(), last: now, want: use{inside: true}},
		"the tree, at its start":    {pid: self.PID(), last: start - slack, want: use{inside: true}},
		"its number, earlier":       {pid: self.PID(), last: start - slack - 1},
		"earlier, but time was set": {pid: self.PID(), last: start - slack - 1, set: true, want: use{inside: true}},
		"another":                   {pid: other, last: now, want: use{outside: true}},
		"another's number, earlier": {pid: other, last: 1},
		"another's namespace":       {pid: other, last: now, own: true},
	} {
		tree := &tree{own: tt.own, byPID: map[int]plugin.Process{self.PID(): self}, started: startOf}
		if tt.set {
			tree.started = nil
		}
		if got := tree.users(tt.last, tt.pid); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestWasSet(t *testing.T) {
	begun := time.Unix(1000, 0)
	for now, want := range map[int64]bool{1060: false, 1061: false, 5000: true, 500: true} {
		if got := wasSet(begun, time.Unix(now, 0), time.Minute); got != want {
			t.Errorf("at %d: %t, want %t", now, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	found, err := parseAttachments("7f00-8000 rw-s 00001000 00:01 3  /SYSV0000002a (deleted)\n8000-9000 rw-p 00000000 00:00 0\n")
	if err != nil || len(found) != 1 || found[0] != (attachment{0, 3, 0x7f00, 0x8000, 0x1000}) {
		t.Errorf("attachments %+v, %v", found, err)
	}
	status, err := parseStatus("QSIZE:0          NOTIFY:1     SIGNO:0     NOTIFY_PID:42    \n")
	if err != nil || status != (mqStatus{1, 0, 42}) {
		t.Errorf("status %+v, %v", status, err)
	}
	nr, id, ok := parseSyscall("65 0x7 0x7ffe 0x1 0x0 0x0 0x0 0x7ffe 0x7f00\n")
	if nr != 65 || id != 7 || !ok {
		t.Errorf("system call %d, %d, %t", nr, id, ok)
	}
	ticks, ok := parseStart("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1\n")
	if ticks != 4242 || !ok {
		t.Errorf("start %d, %t", ticks, ok)
	}
	taken, err := parseTaken("key id\n 1208 32769 600\n0 2 600\n")
	if err != nil || !taken.has(perm{ID: 1}) || !taken.has(perm{ID: 7, Key: 1208}) || taken.has(perm{ID: 3}) {
		t.Errorf("taken %+v, %v", taken, err)
	}
}

func FuzzParse(f *testing.F) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(maps))
	f.Add("7f00-8000 rw-s 00001000 00:01 3  /SYSV0000002a (deleted)\n")
	f.Add("QSIZE:0          NOTIFY:0     SIGNO:10    NOTIFY_PID:42    \n")
	f.Add("65 0x7 0x7ffe 0x1 0x0 0x0 0x0 0x7ffe 0x7f00\n")
	f.Add("running\n")
	f.Add("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parseAttachments(s)
		_, _ = parseStatus(s)
		_, _, _ = parseSyscall(s)
		_, _ = parseTaken(s)
		_, _ = parseStart(s)
	})
}

// TestEarliest sets the time of day forward and back after the begin.
func TestEarliest(t *testing.T) {
	begun := time.Unix(1000, 0)
	for now, want := range map[int64]int64{1060: 1000, 5000: 1000, 500: 440} {
		if got := earliest(begun, time.Unix(now, 0), time.Minute); got != want {
			t.Errorf("at %d: %d, want %d", now, got, want)
		}
	}
}

// TestReach makes objects with given ids without NAME_next_id, in a new namespace.
func TestReach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a thread alone makes an IPC namespace only as root; test/vm has the user's")
	}
	self := plugintest.Self(t)
	if _, err := self.Syscall(t.Context(), unix.SYS_UNSHARE, unix.CLONE_NEWIPC); err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{shmKind, semKind, msgKind} {
		m := &maker{kind: k, log: &made{}, proc: self, next: -1, turn: -1}
		for _, id := range []int{0, 5, 1<<15 | 3, 1<<15 | 4, 40<<15 | 63, 41<<15 | 1, 60<<15 | 17} {
			if err := m.make(t.Context(), self, permOf(id), k.vain()); err != nil {
				t.Error(err)
			}
		}
		for _, id := range []int{2 << 15, 61<<15 | placesInTurn, 32767 << 15} {
			if err := m.make(t.Context(), self, permOf(id), k.vain()); !errors.Is(err, errUnreachable) {
				t.Errorf("%s %d: %v, want %v", k.what, id, err, errUnreachable)
			}
		}
	}
}

// TestInTurn orders ids as they are given.
func TestInTurn(t *testing.T) {
	ids := []int{2<<15 | 1, 1<<15 | 63, 3, 2 << 15}
	if got := inTurn(len(ids), func(i int) perm { return permOf(ids[i]) }); !slices.Equal(got, []int{2, 1, 3, 0}) {
		t.Errorf("the order is %v", got)
	}
}

func TestQueueFits(t *testing.T) {
	long, short := message{1, make([]byte, 9000)}, message{1, make([]byte, 6000)}
	for _, tt := range []struct {
		name    string
		queue   msgQueue
		certain bool
		want    string
		limit   uint64
	}{
		{"as new", msgQueue{Limit: 16384, Messages: []message{short}}, true, "", 16384},
		{"of less", msgQueue{Limit: 100}, false, "", 100},
		{"raised", msgQueue{Limit: 65536}, true, "kernel.msgmnb", 65536},
		{"raised, of anybody", msgQueue{Limit: 65536, Messages: []message{short, short}}, false, "", 16384},
		{"full, of anybody", msgQueue{Limit: 65536, Messages: []message{short, short, short}}, false, "kernel.msgmnb", 65536},
		{"a long message", msgQueue{Limit: 16384, Messages: []message{long}}, false, "message of 9000 bytes", 16384},
	} {
		if got := tt.queue.fit(tt.certain); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if tt.queue.Limit != tt.limit {
			t.Errorf("%s: limit %d, want %d", tt.name, tt.queue.Limit, tt.limit)
		}
	}
}
