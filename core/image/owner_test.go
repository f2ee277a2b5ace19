package image

import (
	"errors"
	"os"
	"testing"
)

func TestOwn(t *testing.T) {
	first := newStore(t)
	second := &Store{path: first.Path()}
	for _, err := range []error{first.Own(), first.Own()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Own(); !errors.Is(err, ErrOwned) {
		t.Errorf("a second owner: %v, want %v", err, ErrOwned)
	}
	if err := errors.Join(first.Close(), first.Close(), second.Own()); err != nil {
		t.Errorf("after the first: %v", err)
	}
	// A folder that was moved away is the second's still, one that is new is anybody's.
	if err := os.Rename(first.Path(), first.Path()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := first.Own(); err != nil {
		t.Error(err)
	}
	if err := second.Own(); !errors.Is(err, ErrOwned) {
		t.Errorf("of the new folder: %v, want %v", err, ErrOwned)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Error(err)
	}
}
