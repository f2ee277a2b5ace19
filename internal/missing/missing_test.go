package missing

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMakeAllReturnsWhatItMade(t *testing.T) {
	top := t.TempDir()
	a, ab := filepath.Join(top, "a"), filepath.Join(top, "a", "b")
	made, err := MakeAll(ab, Directory{0o2775, &Owner{os.Getuid(), os.Getgid()}})
	if err != nil || !slices.Equal(made, []string{ab, a}) {
		t.Fatalf("made %q, %v", made, err)
	}
	for dir, want := range map[string]os.FileMode{a: 0o700, ab: 0o775 | os.ModeSetgid} {
		if info, err := os.Stat(dir); err != nil || info.Mode() != want|os.ModeDir {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if again, err := MakeAll(ab, Directory{0o2775, &Owner{os.Getuid(), os.Getgid()}}); err != nil || again != nil {
		t.Errorf("what is there: made %q, %v", again, err)
	}
	used := filepath.Join(a, "used")
	if err := os.WriteFile(used, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if made, err := MakeAll(filepath.Join(used, "c"), Directory{0o755, &Owner{os.Getuid(), os.Getgid()}}); err == nil || made != nil {
		t.Errorf("below a file: made %q, %v", made, err)
	}
	Remove(made)
	if _, err := os.Stat(ab); !os.IsNotExist(err) {
		t.Errorf("the empty one is there: %v", err)
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("the one that is used is gone: %v", err)
	}
}
