package proc

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Commands of arch_prctl(2), and register sets, of include/uapi of the kernel.
const (
	archGetCPUID     = 0x1011
	archGetXCompPerm = 0x1022
	archReqXCompPerm = 0x1023
	archGetUntagMask = 0x4001
	ntIOPerm         = 0x201 // NT_386_IOPERM
	amxTiles         = 18    // state of XSAVE
)

// askMachine asks a process for what arch_prctl(2) has permitted it; what it writes is at at, of
// two words.
func askMachine(at uint64) []call {
	return []call{
		sys(unix.SYS_ARCH_PRCTL, archGetCPUID, 0).may(),
		sys(unix.SYS_ARCH_PRCTL, archGetXCompPerm, at).may(),
		sys(unix.SYS_ARCH_PRCTL, archGetUntagMask, at+8).may(),
	}
}

// machineRefusal refuses what of it a restart does not bring back.
func (p *Process) machineRefusal(calls []call, got []byte) error {
	if calls[0].ret == 0 {
		return refuse(p, "CPUID", "the instruction faults (arch_prctl(2), ARCH_SET_CPUID), which a restart does not bring back")
	}
	if mask := le.Uint64(got[8:]); calls[2].ret == 0 && mask != ^uint64(0) {
		return refuse(p, "tagged addresses", "their upper bits are ignored (arch_prctl(2), ARCH_ENABLE_TAGGED_ADDR), which a restart does not bring back")
	}
	return nil
}

// permitted is which of the states that a program has to ask for it may use.
func permitted(calls []call, got []byte) uint64 {
	if calls[1].ret != 0 {
		return 0
	}
	return le.Uint64(got) & (1 << amxTiles)
}

// permit asks for them again, arch_prctl(2), ARCH_REQ_XCOMP_PERM, where this processor has them.
func permit(states uint64) (calls []call) {
	here := slices.ContainsFunc(thisCPU().XSave, func(c XComponent) bool { return c.Bit == amxTiles })
	if states&(1<<amxTiles) != 0 && here {
		calls = append(calls, sys(unix.SYS_ARCH_PRCTL, archReqXCompPerm, amxTiles).as("ARCH_REQ_XCOMP_PERM %d", amxTiles))
	}
	return calls
}

// checkRegsets refuses a thread that may use ports: only the superuser gives that.
func (p *Process) checkRegsets(th *Thread) error {
	if ownCapabilities()&(1<<unix.CAP_SYS_RAWIO) == 0 {
		return nil
	}
	if n, err := getRegset(th.HostTID, ntIOPerm, make([]byte, 8)); err == nil && n > 0 { // a word of it
		return refuse(p, fmt.Sprintf("thread %d", th.TID), "it may use input and output ports (ioperm(2)), which a restart does not permit")
	}
	return nil
}

// checkLive refuses tiles that are in use: the kernel takes them back only from a thread that has
// used some before.
func (p *Process) checkLive(th *Thread, sets []RegSet) error {
	for _, x := range sets {
		if x.Note == ntX86Xstate && len(x.Data) >= xsaveHeaderEnd && le.Uint64(x.Data[xsaveHeader:])&(1<<amxTiles) != 0 {
			return &plugin.RefusalError{PID: p.pid, FD: -1, Object: fmt.Sprintf("thread %d", th.TID), Passing: true,
				Reason: "it has AMX tiles in use, which a restart could not give back"}
		}
	}
	return nil
}
