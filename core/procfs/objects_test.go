package procfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFDInfo(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("four"); err != nil {
		t.Fatal(err)
	}
	raw, info, err := ReadFDInfo(os.Getpid(), int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CLOEXEC
	if info.Pos != 4 || info.Flags&flags != flags || len(raw) == 0 {
		t.Errorf("%+v of %q", info, raw)
	}
	again, err := ParseFDInfo(raw)
	if err != nil || again.Pos != info.Pos {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestReadTimers(t *testing.T) {
	if _, err := os.Stat("/proc/self/timers"); err != nil {
		t.Skip("needs CONFIG_CHECKPOINT_RESTORE")
	}
	if got, err := ReadTimers(os.Getpid()); err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseTimers([]byte("ID: 3\nsignal: 9/0\nnotify: none/pid.1\nClockID: 0\n")); err != nil || len(got) != 1 || got[0].ID != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseTimensOffsets(t *testing.T) {
	tests := []struct {
		name, raw  string
		mono, boot int64
		wantErr    bool
	}{
		{"sample", string(sample(t, "timens_offsets")), -11_500_000_000, 3_000_000_007, false},
		{"by number", "1 2 0\n7 -3 0\n", 2_000_000_000, -3_000_000_000, false},
		{"empty", "", 0, 0, false},
		{"another clock", "tai 1 1\n", 0, 0, false},
		{"two words", "monotonic 1\n", 0, 0, true},
		{"no seconds", "monotonic x 1\n", 0, 0, true},
		{"no nanoseconds", "monotonic 1 x\n", 0, 0, true},
		{"negative nanoseconds", "monotonic 1 -1\n", 0, 0, true},
		{"too many nanoseconds", "monotonic 1 1000000000\n", 0, 0, true},
		{"overflow", "monotonic 9223372037 0\n", 0, 0, true},
		{"underflow", "monotonic -9223372037 0\n", 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mono, boot, err := ParseTimensOffsets([]byte(tt.raw))
			if mono != tt.mono || boot != tt.boot || (err != nil) != tt.wantErr {
				t.Errorf("got %d, %d, %v; want %d, %d, error %v", mono, boot, err, tt.mono, tt.boot, tt.wantErr)
			}
		})
	}
}

func TestReadTimensOffsets(t *testing.T) {
	if _, err := os.Stat("/proc/self/timens_offsets"); err != nil {
		t.Skip("needs CONFIG_TIME_NS")
	}
	if _, _, err := ReadTimensOffsets(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func FuzzParseTimensOffsets(f *testing.F) {
	f.Add(sample(f, "timens_offsets"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if mono, boot, err := ParseTimensOffsets(raw); err != nil && (mono != 0 || boot != 0) {
			t.Errorf("%d, %d beside %v", mono, boot, err)
		}
	})
}
