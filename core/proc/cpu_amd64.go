package proc

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// cpuid is the instruction CPUID.
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// xgetbv returns XCR0: which extended states the kernel lets programs have.
func xgetbv() uint64

// readCPU describes this processor.
func readCPU() CPUState {
	mask := uint64(0)
	if cpu.X86.HasOSXSAVE {
		mask = xgetbv()
	}
	c := CPUState{Features: featuresHere(mask)}
	for bit := 2; bit < 63; bit++ {
		if mask&(1<<bit) != 0 {
			size, offset, _, _ := cpuid(0xd, uint32(bit))
			c.XSave = append(c.XSave, XComponent{Bit: bit, Offset: int(offset), Size: int(size)})
		}
	}
	return c
}

// featuresIn lists the features that a structure of x/sys/cpu says are there.
func featuresIn(features any) (names []string) {
	v := reflect.ValueOf(features)
	for i := range v.NumField() {
		name, is := strings.CutPrefix(v.Type().Field(i).Name, "Has")
		if is && name != "ERMS" && v.Field(i).Kind() == reflect.Bool && v.Field(i).Bool() { // which says what is fast
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

// pkruBit is the state of protection keys (pkeys(7)). It is nothing where no
// mapping has a key, and such mappings are refused.
const pkruBit = 9

// xstateNames are what the states are for.
var xstateNames = map[int]string{2: "AVX", 5: "AVX-512", 6: "AVX-512", 7: "AVX-512", 9: "protection keys", 17: "AMX", 18: "AMX", 19: "APX"}

// fitRegset lays out an XSAVE area for the processor here, where the kernel
// takes size bytes (arch/x86/kernel/fpu/regset.c). States that hold nothing are
// left out where they are not known here.
func fitRegset(x RegSet, from, here *CPUState, size int) (RegSet, error) {
	if x.Note != ntX86Xstate || size == len(x.Data) && slices.Equal(from.XSave, here.XSave) {
		return x, nil
	}
	if len(x.Data) < xsaveHeaderEnd || size < xsaveHeaderEnd {
		return x, errors.New("the processor's state is too short")
	}
	out := make([]byte, size)
	copy(out, x.Data[:xsaveHeader])
	mask, used := uint64(3), le.Uint64(x.Data[xsaveHeader:])
	for _, c := range here.XSave {
		mask |= 1 << c.Bit
	}
	keep := used & 3
	for _, c := range from.XSave {
		if used&(1<<c.Bit) == 0 {
			continue
		}
		if c.Offset+c.Size > len(x.Data) {
			return x, fmt.Errorf("the processor's state %d ends behind the others", c.Bit)
		}
		data := x.Data[c.Offset : c.Offset+c.Size]
		i := slices.IndexFunc(here.XSave, func(h XComponent) bool { return h.Bit == c.Bit })
		switch {
		case i >= 0 && here.XSave[i].Size == c.Size && here.XSave[i].Offset+c.Size <= size:
			copy(out[here.XSave[i].Offset:], data)
			keep |= 1 << c.Bit
		case c.Bit == pkruBit || !slices.ContainsFunc(data, func(b byte) bool { return b != 0 }):
		default:
			return x, fmt.Errorf("it has processor state %d in use (%s), which this processor lacks", c.Bit, xstateNames[c.Bit])
		}
	}
	le.PutUint64(out[xsaveMask:], mask)
	le.PutUint64(out[xsaveHeader:], keep)
	return RegSet{x.Note, out}, nil
}

// sysModifyLDT is modify_ldt(2); 0: there is none.
const sysModifyLDT = unix.SYS_MODIFY_LDT
