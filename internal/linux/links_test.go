package linux

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLinkSearch(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "a", "b", "file")
	if err := os.MkdirAll(filepath.Dir(below), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{below, filepath.Join(dir, "other"), filepath.Join(dir, "here")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		file  string
		left  int
		below bool
		want  bool
	}{
		{"in the directory", filepath.Join(dir, "here"), 100, false, true},
		{"below, not searched", below, 100, false, false},
		{"below", below, 100, true, true},
		{"too many names", below, 3, true, false},
		{"none allowed", filepath.Join(dir, "here"), 0, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var file unix.Stat_t
			if err := unix.Stat(c.file, &file); err != nil {
				t.Fatal(err)
			}
			s := LinkSearch{Left: c.left}
			for range 2 { // the second time from what it has read
				got := s.In(dir, file.Dev, c.below, func(_ string, st *unix.Stat_t) bool { return st.Dev == file.Dev && st.Ino == file.Ino })
				if want := map[bool]string{true: c.file}[c.want]; got != want {
					t.Errorf("found %q, want %q", got, want)
				}
			}
			if s.Left < 0 {
				t.Errorf("%d names are left", s.Left)
			}
		})
	}
	s := LinkSearch{Left: 100}
	if got := s.In(filepath.Join(dir, "gone"), 0, true, func(string, *unix.Stat_t) bool { return true }); got != "" {
		t.Errorf("found %q in a directory that is gone", got)
	}
}
