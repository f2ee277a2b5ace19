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
	made, err := MakeAll(ab, 0o755)
	if err != nil || !slices.Equal(made, []string{ab, a}) {
		t.Fatalf("made %q, %v", made, err)
	}
	if again, err := MakeAll(ab, 0o755); err != nil || again != nil {
		t.Errorf("what is there: made %q, %v", again, err)
	}
	used := filepath.Join(a, "used")
	if err := os.WriteFile(used, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if made, err := MakeAll(filepath.Join(used, "c"), 0o755); err == nil || made != nil {
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
