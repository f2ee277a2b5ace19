package procfs

import (
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus(sample(t, "status"))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		Name: "job\n\\runner", State: 't',
		Tgid: 7081, Pid: 7083, PPid: 6747, TracerPid: 6746,
		Uid: [4]int{1000, 1001, 1002, 1003}, Gid: [4]int{100, 101, 102, 103},
		Groups: []int{24, 27, 100}, FDSize: 256,
		NStgid: []int{7081, 12, 3}, NSpid: []int{7083, 14, 5}, NSpgid: []int{6747, 12, 0}, NSsid: []int{2772, 12, 1},
		Umask: 0o27, Threads: 3,
		SigPnd: 0x200, ShdPnd: 0x4000, SigBlk: 0x8000000000000001, SigIgn: 0x1001000, SigCgt: 2,
		CapInh: 1, CapPrm: 0x1ffffffffff, CapEff: 3, CapBnd: 0x1fffeffffff, CapAmb: 4,
		NoNewPrivs: true, Seccomp: 2, CpusAllowedList: "0-3,8", VmLck: 12288,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	inner := [4]int{got.InnerPID(), got.InnerTGID(), got.InnerPGID(), got.InnerSID()}
	if want := [4]int{5, 3, 0, 1}; inner != want {
		t.Errorf("ids in the innermost namespace: %v, want %v", inner, want)
	}
}

func TestStatusWithoutNamespaces(t *testing.T) {
	s := Status{Pid: 8, Tgid: 7}
	inner := [4]int{s.InnerPID(), s.InnerTGID(), s.InnerPGID(), s.InnerSID()}
	if want := [4]int{8, 7, 0, 0}; inner != want {
		t.Errorf("got %v, want %v", inner, want)
	}
}

func TestUnescapeName(t *testing.T) {
	for in, want := range map[string]string{
		`plain`: "plain", `a\nb`: "a\nb", `a\\nb`: `a\nb`, `\\\n`: "\\\n", `\`: `\`,
	} {
		if got := unescapeName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseStatusErrors(t *testing.T) {
	tests := map[string]string{
		"empty":       "",
		"no pid":      "Name:\tjob\n",
		"state":       "Pid:\t1\nState:\t\n",
		"three ids":   "Pid:\t1\nUid:\t1\t2\t3\n",
		"id":          "Pid:\t1\nGid:\t1\t2\t3\tx\n",
		"groups":      "Pid:\t1\nGroups:\twheel\n",
		"umask":       "Pid:\t1\nUmask:\t0088\n",
		"signals":     "Pid:\t1\nSigCgt:\tnone\n",
		"locked":      "Pid:\t1\nVmLck:\t12\n",
		"much locked": "Pid:\t1\nVmLck:\t18446744073709551615 kB\n",
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseStatus([]byte(raw)); err == nil {
				t.Errorf("no error: %+v", got)
			}
		})
	}
}

func TestLiveStatus(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, tid := os.Getpid(), unix.Gettid()

	s, err := ReadStatus(self)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if s.Pid != self || s.Tgid != self || s.PPid != os.Getppid() || s.Threads < 1 || s.InnerPID() != self {
		t.Errorf("%+v", s)
	}
	if s.Uid[1] != os.Geteuid() || s.Gid[0] != os.Getgid() || len(s.Groups) != len(groups) {
		t.Errorf("uid %v, gid %v, groups %v", s.Uid, s.Gid, s.Groups)
	}

	task, err := ReadTaskStatus(self, tid)
	if err != nil {
		t.Fatal(err)
	}
	if task.Pid != tid || task.Tgid != self || task.State != 'R' {
		t.Errorf("thread %d: %+v", tid, task)
	}
	if _, err := ReadTaskStatus(self, 1<<22+1); !IsGone(err) || !strings.Contains(err.Error(), "/proc/") {
		t.Errorf("a thread that does not exist: %v", err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(sample(f, "status"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseStatus(raw)
		if err == nil && (s.Pid == 0 || s.Umask < 0) {
			t.Errorf("%+v", s)
		}
	})
}
