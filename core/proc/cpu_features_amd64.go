package proc

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// cpuidBits are the features, beside those that x/sys/cpu knows, with which a processor has
// instructions for programs: Intel SDM, volume 2, CPUID; AMD APM, volume 3, appendix E. What
// says only how fast something is, or does nothing where it is not known, is left out.
var cpuidBits = []struct {
	leaf, sub uint32
	register  int // eax, ebx, ecx, edx
	states    uint64
	names     map[int]string
}{
	{7, 0, 1, 0, map[int]string{0: "fsgsbase", 11: "rtm", 23: "clflushopt", 24: "clwb", 29: "sha"}},
	{7, 0, 2, 0, map[int]string{5: "waitpkg", 22: "rdpid", 23: "kl", 27: "movdiri", 28: "movdir64b", 29: "enqcmd"}},
	{7, 0, 2, avxStates, map[int]string{8: "gfni", 9: "vaes", 10: "vpclmulqdq"}},
	{7, 0, 3, 0, map[int]string{5: "uintr", 14: "serialize", 16: "tsxldtrk"}},
	{7, 0, 3, avx512States, map[int]string{8: "avx512vp2intersect", 23: "avx512fp16"}},
	{7, 1, 0, avxStates, map[int]string{0: "sha512", 1: "sm3", 2: "sm4"}},
	{7, 1, 0, 0, map[int]string{3: "raoint", 7: "cmpccxadd", 31: "movrs"}},
	{7, 1, 0, amxStates, map[int]string{21: "amxfp16"}},
	{7, 1, 3, avxStates, map[int]string{5: "avxneconvert", 10: "avxvnniint16", 19: "avx10"}},
	{7, 1, 3, amxStates, map[int]string{8: "amxcomplex"}},
	{7, 1, 3, 0, map[int]string{15: "usermsr"}},
	{7, 1, 3, apxState, map[int]string{21: "apx"}},
	{0xd, 1, 0, 0, map[int]string{0: "xsaveopt", 1: "xsavec", 2: "xgetbv1"}},
	{0x80000001, 0, 2, 0, map[int]string{6: "sse4a", 15: "lwp", 21: "tbm", 29: "monitorx"}},
	{0x80000001, 0, 2, avxStates, map[int]string{11: "xop", 16: "fma4"}},
	{0x80000001, 0, 3, 0, map[int]string{27: "rdtscp", 30: "3dnowext", 31: "3dnow"}},
	{0x80000008, 0, 1, 0, map[int]string{0: "clzero", 4: "rdpru"}},
}

// What the kernel has to let programs have for a feature, in XCR0.
const (
	avxStates    = 1<<1 | 1<<2
	avx512States = avxStates | 1<<5 | 1<<6 | 1<<7
	amxStates    = 1<<17 | 1<<18
	apxState     = 1 << 19
)

// featuresHere lists the features of this processor whose states are in xcr0.
func featuresHere(xcr0 uint64) []string {
	names := featuresIn(cpu.X86)
	type leaf struct{ leaf, sub uint32 }
	seen := map[leaf][4]uint32{} // under a hypervisor each CPUID takes some 10 µs
	for _, b := range cpuidBits {
		at := leaf{b.leaf, b.sub}
		if _, ok := seen[at]; !ok {
			seen[at] = readLeaf(b.leaf, b.sub)
		}
		for bit, name := range b.names {
			if b.states&^xcr0 == 0 && seen[at][b.register]&(1<<bit) != 0 {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// readLeaf is CPUID, with zeros for leaves that the processor has not: Intel's answer with
// the last one then.
func readLeaf(leaf, sub uint32) [4]uint32 {
	if last, _, _, _ := cpuid(leaf&0x80000000, 0); leaf > last {
		return [4]uint32{}
	}
	if sub > 0 && leaf == 7 {
		if last, _, _, _ := cpuid(leaf, 0); sub > last {
			return [4]uint32{}
		}
	}
	a, b, c, d := cpuid(leaf, sub)
	return [4]uint32{a, b, c, d}
}
