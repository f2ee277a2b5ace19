package procparse

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseFDInfo(t *testing.T) {
	tests := []struct {
		file string
		want FDInfo
	}{
		{"locks", FDInfo{
			Pos: 100, Flags: 0o2100002, MntID: 27, Ino: 9978088,
			Locks: []Lock{
				{Kind: "FLOCK", Advisory: true, Write: true, PID: 6693, Major: 0xfe, Ino: 9978088, End: -1},
				{Kind: "POSIX", Advisory: true, PID: 6693, Major: 0xfe, Ino: 9978088, Start: 5, End: 14},
				{Kind: "OFDLCK", Advisory: true, Write: true, PID: -1, Major: 0xfe, Ino: 9978088, Start: 20, End: -1},
			},
		}},
		{"lease", FDInfo{
			Flags: 0o2120000, MntID: 27, Ino: 9978089,
			Locks: []Lock{{Kind: "LEASE", PID: 6693, Major: 0xfe, Ino: 9978089, End: -1}},
		}},
		{"lease-breaking", FDInfo{
			Flags: 0o100000, MntID: 27,
			Locks: []Lock{{Kind: "LEASE", Breaking: true, PID: 6693, Major: 8, Minor: 0x1f, Ino: 77, End: -1}},
		}},
		{"inotify", FDInfo{
			MntID: 17, Ino: 1038,
			Fields: map[string][]string{"inotify wd": {
				"1 ino:3c4a3 sdev:fe00000 mask:102 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a3c4030000000000",
				"3 ino:2b sdev:fe00000 mask:8 ignored_mask:0",
			}},
		}},
		{"epoll", FDInfo{
			Flags: 0o2000002, MntID: 17, Ino: 1038,
			Fields: map[string][]string{"tfd": {
				"7 events:       19 data:                7  pos:0 ino:2996 sdev:f",
				"5 events:       19 data:                5  pos:0 ino:40e sdev:10",
			}},
		}},
		{"timerfd", FDInfo{
			Flags: 0o4002, MntID: 17, Ino: 1038,
			Fields: map[string][]string{
				"clockid": {"1"}, "ticks": {"0"}, "settime flags": {"00"},
				"it_value": {"(4, 999960852)"}, "it_interval": {"(2, 0)"},
			},
		}},
		{"eventfd", FDInfo{
			Flags: 2, MntID: 17, Ino: 1038,
			Fields: map[string][]string{"eventfd-count": {"7"}, "eventfd-id": {"1"}, "eventfd-semaphore": {"1"}},
		}},
		{"pidfd", FDInfo{
			Flags: 0o2000002, MntID: 4, Ino: 7082,
			Fields: map[string][]string{"Pid": {"7081"}, "NSpid": {"7081\t12"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join("testdata", "fdinfo", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseFDInfo(raw)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Fields == nil {
				tt.want.Fields = map[string][]string{}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseFDInfoErrors(t *testing.T) {
	tests := map[string]string{
		"position":       "pos:\tx\n",
		"flags":          "flags:\t09\n",
		"mount":          "mnt_id:\t\n",
		"inode":          "ino:\t-1\n",
		"short lock":     "lock:\t1: POSIX  ADVISORY  READ 6693\n",
		"no inode":       "lock:\t1: POSIX  *NOINODE* READ 6693 <none>:0 5 14\n",
		"lock's pid":     "lock:\t1: POSIX  ADVISORY  READ x fe:00:1 5 14\n",
		"lock's file":    "lock:\t1: POSIX  ADVISORY  READ 1 fe:00 5 14\n",
		"lock's major":   "lock:\t1: POSIX  ADVISORY  READ 1 xx:00:1 5 14\n",
		"lock's minor":   "lock:\t1: POSIX  ADVISORY  READ 1 fe:xx:1 5 14\n",
		"lock's inode":   "lock:\t1: POSIX  ADVISORY  READ 1 fe:00:x 5 14\n",
		"lock's start":   "lock:\t1: POSIX  ADVISORY  READ 1 fe:00:1 EOF 14\n",
		"lock's end":     "lock:\t1: POSIX  ADVISORY  READ 1 fe:00:1 5 end\n",
		"flags too long": "flags:\t0777777777777777\n",
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseFDInfo([]byte(raw)); err == nil {
				t.Errorf("no error: %+v", got)
			}
		})
	}
}

func TestField(t *testing.T) {
	f, err := ParseFDInfo([]byte("a: 1\na: 2\nno colon\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Field("a"); got != "1" {
		t.Errorf("first value of a: %q", got)
	}
	if got := f.Field("b"); got != "" {
		t.Errorf("value of a missing key: %q", got)
	}
}

func FuzzParseFDInfo(f *testing.F) {
	samples, err := filepath.Glob("testdata/fdinfo/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range samples {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ParseFDInfo(raw)
		if err != nil {
			return
		}
		if got.Flags < 0 || got.Fields == nil {
			t.Errorf("%+v", got)
		}
		for _, l := range got.Locks {
			if l.Kind == "" {
				t.Errorf("a lock without kind: %+v", l)
			}
		}
	})
}

// TestLiveFDInfo reads what this kernel prints.
func TestLiveFDInfo(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 3, Len: 4}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join("/proc/self/fdinfo", strconv.Itoa(int(file.Fd()))))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseFDInfo(raw)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if got.Pos != 5 || got.Flags&unix.O_ACCMODE != unix.O_RDWR || got.Flags&unix.O_CLOEXEC == 0 || got.MntID == 0 {
		t.Errorf("%+v", got)
	}
	kinds := map[string]Lock{}
	for _, l := range got.Locks {
		kinds[l.Kind] = l
		if l.Ino != st.Ino || !l.Advisory || !l.Write {
			t.Errorf("lock %+v of inode %d", l, st.Ino)
		}
	}
	if l := kinds["FLOCK"]; l.PID != os.Getpid() || l.Start != 0 || l.End != -1 {
		t.Errorf("flock: %+v", l)
	}
	if l := kinds["OFDLCK"]; l.PID != -1 || l.Start != 3 || l.End != 6 {
		t.Errorf("OFD lock: %+v", l)
	}
}
