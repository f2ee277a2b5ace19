package proc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mapRead maps a file for reading, and returns its descriptor.
func mapRead(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Munmap(b)
		unix.Close(fd)
	})
	return fd
}

func stampAt(t *testing.T, path string) fileStamp {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return stampOf(&st)
}

func TestSumsOfMappedFiles(t *testing.T) {
	const old = "/etc/passwd"
	mapRead(t, old, unix.O_RDONLY)
	young, big := filepath.Join(t.TempDir(), "young"), filepath.Join(t.TempDir(), "big")
	for path, size := range map[string]int64{young: 1, big: maxSummedData + 1} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		mapRead(t, path, unix.O_RDONLY)
	}
	var s Sums
	for range 2 {
		s.Look(os.Getpid(), []int{os.Getpid()})
		for _, path := range []string{old, young} {
			stamp := stampAt(t, path)
			want, err := sumFile(path, stamp)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.known[stamp].sum; got != want {
				t.Errorf("%s: sum %#x, want %#x", path, got, want)
			}
		}
		if got, ok := s.known[stampAt(t, big)]; ok {
			t.Errorf("a large file was read: %+v", got)
		}
		if s.known[stampAt(t, young)].sure {
			t.Error("a file that has just been written counts as settled")
		}
	}
}

// What an image knows of files that are settled, its restart knows; of no others, and after no other boot.
func TestSumsLearned(t *testing.T) {
	const old = "/etc/passwd"
	mapRead(t, old, unix.O_RDONLY)
	young := filepath.Join(t.TempDir(), "young")
	if err := os.WriteFile(young, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	mapRead(t, young, unix.O_RDONLY)
	var s Sums
	s.Look(os.Getpid(), []int{os.Getpid()})
	st := State{BootID: bootID()}
	var stat unix.Stat_t
	for _, path := range []string{old, young} {
		if err := unix.Stat(path, &stat); err != nil {
			t.Fatal(err)
		}
		st.Refs = append(st.Refs, s.newMappedFile(path, &stat))
	}
	var loaded State
	if b, err := json.Marshal(&st); err != nil || json.Unmarshal(b, &loaded) != nil {
		t.Fatal(err)
	}
	var learned, elsewhere Sums
	learned.Learn(&loaded)
	if len(learned.known) != 1 || learned.known[stampAt(t, old)] != s.known[stampAt(t, old)] {
		t.Errorf("learned %+v of %+v", learned.known, s.known)
	}
	loaded.BootID = "another"
	if elsewhere.Learn(&loaded); len(elsewhere.known) != 0 {
		t.Errorf("learned %+v of another boot", elsewhere.known)
	}
}

func TestSumsBreakNoLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leased")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd := mapRead(t, path, unix.O_RDWR)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	var s Sums
	s.Look(os.Getpid(), []int{os.Getpid()})
	if l, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0); err != nil || l != unix.F_WRLCK {
		t.Errorf("lease %d, %v: want it unbroken", l, err)
	}
}

// A file that gets another link while it is read has the same bytes.
func TestSameWhileLinked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	sum, err := sumFile(path, stampOf(&before))
	if err != nil {
		t.Fatal(err)
	}
	f := MappedFile{Path: path, Size: before.Size, Sum: sum}
	eventually(t, "a later time of change", func() bool { // its clock ticks with the scheduler's
		if err := os.Link(path, path+".link"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path + ".link"); err != nil {
			t.Fatal(err)
		}
		var now unix.Stat_t
		return unix.Stat(path, &now) == nil && now.Ctim != before.Ctim
	})
	if same, err := f.same(&before, false); !same || err != nil {
		t.Errorf("linked meanwhile: the same: %v, %v", same, err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if same, err := f.same(&before, false); same || err != nil {
		t.Errorf("written meanwhile: the same: %v, %v", same, err)
	}
}
