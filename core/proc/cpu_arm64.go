package proc

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Tags of the auxiliary vector by which the kernel tells programs what the
// processor has: getauxval(3).
const (
	atHwcap  = 16
	atHwcap2 = 26
	atHwcap3 = 29
	atHwcap4 = 30
)

// capabilities are the names of the bits, arch/arm64/kernel/cpuinfo.c. A name is
// - where it does not matter: a bit of the kernel's, or instructions that do
// nothing elsewhere.
var capabilities = map[uintptr]string{
	atHwcap: "fp asimd - aes pmull sha1 sha2 crc32 atomics fphp asimdhp - asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 " +
		"asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg gcs cmpbr fprcvt f8mm8 f8mm4 svef16mm sveeltperm " +
		"sveaes2 svebfscale sve2p2 sme2p2 smesbitperm smeaes smesfexpa smestmop smesmop4",
	atHwcap2: "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 " +
		"- rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16 " +
		"cssc rprfm sve2p1 sme2 sme2p1 smei16i32 smebi32i32 smeb16b16 smef16f16 mops hbc sveb16b16 lrcpc3 lse128 fpmr lut faminmax " +
		"f8cvt f8fma f8dp4 f8dp2 f8e4m3 f8e5m2 smelutv2 smef8f16 smef8f32 smesf8fma smesf8dp4 smesf8dp2 poe",
	atHwcap3: "mtefar mtestoreonly lsfe",
	atHwcap4: "",
}

// readCPU describes this processor, as the kernel shows it to programs.
func readCPU() (c CPUState) {
	vector, err := unix.Auxv()
	if err != nil {
		return c
	}
	for _, v := range vector {
		if names, ok := capabilities[v[0]]; ok {
			c.Features = append(c.Features, capabilitiesIn(v[0], uint64(v[1]), strings.Fields(names))...)
		}
	}
	return c
}

// capabilitiesIn names the bits that are set.
func capabilitiesIn(tag uintptr, bits uint64, names []string) (out []string) {
	for i := range 64 {
		switch {
		case bits&(1<<i) == 0:
		case i >= len(names):
			out = append(out, fmt.Sprintf("capability %d:%d", tag, i))
		case names[i] != "-":
			out = append(out, names[i])
		}
	}
	return out
}

// fitRegset has nothing to do: the register sets that are kept have the same
// layout on every processor.
func fitRegset(x RegSet, _, _ *CPUState, _ int) (RegSet, error) { return x, nil }

// sysModifyLDT is modify_ldt(2); 0: there is none.
const sysModifyLDT = 0
