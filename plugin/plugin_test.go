package plugin

import (
	"errors"
	"fmt"
	"testing"
)

// TestKinds pins the numbers, which stand in images and in the WASM ABI, and
// the order in which plugins hear of each.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		kind     Kind
		number   uint32
		name     string
		reversed bool
	}{
		{PreSuspend, 1, "presuspend", false},
		{PreCheckpoint, 2, "precheckpoint", false},
		{Resume, 3, "resume", true},
		{Restart, 4, "restart", true},
		{Running, 5, "running", true},
		{Launch, 6, "launch", false},
		{Exit, 7, "exit", true},
		{Outcome, 8, "outcome", true},
		{0, 0, "kind(0)", false},
		{Outcome + 1, 9, "kind(9)", false},
	} {
		if uint32(tt.kind) != tt.number || tt.kind.String() != tt.name || tt.kind.Reversed() != tt.reversed {
			t.Errorf("%s: number %d, name %q, reversed %t; want %+v", tt.name, tt.kind, tt.kind, tt.kind.Reversed(), tt)
		}
	}
}

// TestMapPolicies pins the numbers, which stand in images.
func TestMapPolicies(t *testing.T) {
	for policy, number := range map[MapPolicy]uint8{MapSave: 1, MapShare: 2, MapReopen: 3, MapSkip: 4, MapAttach: 5} {
		if uint8(policy) != number {
			t.Errorf("policy %d, want %d", policy, number)
		}
	}
}

// process is a Process with a pid and nothing else.
type process struct{ Process }

func (process) PID() int { return 12 }

func TestRefusals(t *testing.T) {
	file := OpenFile{Link: "/dev/kvm", Refs: []FileRef{{PID: 12, FD: 3}, {PID: 13, FD: 4}}}
	for _, tt := range []struct {
		err  error
		want RefusalError
		text string
	}{
		{
			Refuse(file, "no driver for %s", "kvm"),
			RefusalError{12, 3, "/dev/kvm", "no driver for kvm", false},
			"pid 12 fd 3: /dev/kvm: no driver for kvm",
		},
		{
			Refuse(OpenFile{Link: "/dev/kvm"}, "lost"),
			RefusalError{0, -1, "/dev/kvm", "lost", false},
			"pid 0: /dev/kvm: lost",
		},
		{
			Refuse(file, "not now: %v", fmt.Errorf("wait: %w", ErrPassing)),
			RefusalError{12, 3, "/dev/kvm", "not now: wait: " + ErrPassing.Error(), true},
			"pid 12 fd 3: /dev/kvm: not now: wait: " + ErrPassing.Error(),
		},
		{
			RefuseProcess(process{}, "timer 4", "its clock is the CPU's"),
			RefusalError{12, -1, "timer 4", "its clock is the CPU's", false},
			"pid 12: timer 4: its clock is the CPU's",
		},
	} {
		var got *RefusalError
		if !errors.As(fmt.Errorf("plugin file: %w", tt.err), &got) || *got != tt.want {
			t.Errorf("refusal %+v, want %+v", got, tt.want)
		}
		if errors.Is(tt.err, ErrPassing) != tt.want.Passing {
			t.Errorf("%v: passing %t", tt.err, !tt.want.Passing)
		}
		if tt.err.Error() != tt.text {
			t.Errorf("error %q, want %q", tt.err, tt.text)
		}
	}
}
