package proc

import "golang.org/x/sys/cpu"

// readCPU describes this processor.
func readCPU() CPUState { return CPUState{Features: featuresIn(cpu.ARM64)} }

// fitRegset has nothing to do: the register sets that are kept are the same on
// every processor.
func fitRegset(x RegSet, _, _ *CPUState, _ int) (RegSet, error) { return x, nil }

// sysModifyLDT is modify_ldt(2); 0: there is none.
const sysModifyLDT = 0
