package proc

import (
	"slices"
	"testing"
)

func TestOptionalRegsetsMayLack(t *testing.T) {
	all := validThread(1).Extra
	for i, n := range extraNotes {
		err := validateRegsets(slices.Delete(slices.Clone(all), i, i+1))
		if n.optional != (err == nil) {
			t.Errorf("without register set %#x: %v", n.note, err)
		}
	}
	if err := validateRegsets(all); err != nil {
		t.Error(err)
	}
}
