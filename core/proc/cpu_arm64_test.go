package proc

import (
	"slices"
	"testing"
)

func TestCapabilitiesIn(t *testing.T) {
	got := capabilitiesIn(atHwcap, 1<<0|1<<2|1<<1|1<<63, []string{"fp", "asimd", "-"})
	if want := []string{"fp", "asimd", "capability 16:63"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
