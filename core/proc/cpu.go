package proc

import (
	"fmt"
	"slices"
	"sync"
)

// CPUState is what the image's processor had: programs, and the C library for
// them, choose at their start what they use of it.
type CPUState struct {
	Features []string     `json:"features"`
	XSave    []XComponent `json:"xsave,omitempty"` // layout of the extended states of x86, from component 2 on
}

// XComponent is a part of the XSAVE area in its standard form.
type XComponent struct {
	Bit    int `json:"bit"`
	Offset int `json:"offset"`
	Size   int `json:"size"`
}

// thisCPU is this processor. Under a hypervisor each CPUID takes some 10 µs.
var thisCPU = sync.OnceValue(readCPU)

// MissingFeatures returns what the image's processor had that programs may use, and this one
// lacks.
func (st *State) MissingFeatures() []string {
	here := thisCPU()
	return slices.DeleteFunc(slices.Clone(st.CPU.Features), func(f string) bool { return slices.Contains(here.Features, f) })
}

// checkXSave refuses state of threads that this processor has no room for.
func (st *State) checkXSave() error {
	here := thisCPU()
	if slices.Equal(st.CPU.XSave, here.XSave) {
		return nil
	}
	for i := range st.Processes {
		ps := &st.Processes[i]
		for j := range ps.Threads {
			for _, x := range ps.Threads[j].Extra {
				if _, err := fitRegset(x, &st.CPU, &here, extraNotes[0].room); err != nil {
					return fmt.Errorf("pid %d tid %d: %w", ps.PID, ps.Threads[j].TID, err)
				}
			}
		}
	}
	return nil
}

const (
	maxFeatures    = 512
	maxXComponents = 61 // of 64 bits, without two of the legacy area and the last
)

func (c *CPUState) validate(room int) error {
	if len(c.Features) > maxFeatures || len(c.XSave) > maxXComponents {
		return fmt.Errorf("processor with %d features and %d states", len(c.Features), len(c.XSave))
	}
	for _, f := range c.Features {
		if len(f) > maxName {
			return fmt.Errorf("processor with a feature %.100q", f)
		}
	}
	for _, x := range c.XSave {
		if x.Bit < 2 || x.Bit > 62 || x.Offset < xsaveHeaderEnd || x.Size <= 0 || x.Offset > room || x.Size > room-x.Offset {
			return fmt.Errorf("processor state %d: %d bytes at %d", x.Bit, x.Size, x.Offset)
		}
	}
	return nil
}

// Layout of an XSAVE area: Intel SDM, volume 1, 13.4; the kernel keeps its
// mask of components in bytes that are free for software.
const (
	xsaveMask      = 464
	xsaveHeader    = 512
	xsaveHeaderEnd = 576
)
