package core

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
)

// All refusals are told, however they were joined, and apart from what else went wrong.
func TestSplitRefusals(t *testing.T) {
	refusal := func(pid int) error { return &plugin.RefusalError{PID: pid, FD: -1, Object: "x", Reason: "y"} }
	other, cause := errors.New("other"), errors.New("cause")
	for name, tc := range map[string]struct {
		err  error
		pids []int
		rest error
	}{
		"none":    {err: other, rest: other},
		"one":     {refusal(1), []int{1}, nil},
		"wrapped": {fmt.Errorf("plugin: %w", refusal(1)), []int{1}, nil},
		"joined":  {errors.Join(refusal(1), refusal(2), refusal(3)), []int{1, 2, 3}, nil},
		"a join":  {fmt.Errorf("plugin: %w", errors.Join(refusal(1), refusal(2))), []int{1, 2}, nil},
		"deeper":  {errors.Join(fmt.Errorf("pid: %w", refusal(1)), errors.Join(refusal(2), other)), []int{1, 2}, other},
		"cause":   {errors.Join(fmt.Errorf("%w: %w", refusal(1), cause), refusal(2)), []int{1, 2}, nil},
	} {
		got, rest := splitRefusals(tc.err)
		if len(got) != len(tc.pids) || tc.rest == nil && rest != nil || !errors.Is(rest, tc.rest) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, rest, tc.pids, tc.rest)
			continue
		}
		for i, r := range got {
			if r.PID != tc.pids[i] {
				t.Errorf("%s: number %d is of pid %d, want %d", name, i, r.PID, tc.pids[i])
			}
		}
	}
}
