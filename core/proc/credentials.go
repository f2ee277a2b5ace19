package proc

import (
	"math/bits"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// readCredentials fills in the credentials of a thread. Securebits come from
// askThread.
func credentialsOf(s *procfs.Status) CredState {
	return CredState{Uid: s.Uid, Gid: s.Gid, Groups: s.Groups, Caps: [3]uint64{s.CapEff, s.CapPrm, s.CapInh},
		Bounding: s.CapBnd, Ambient: s.CapAmb, NoNewPrivs: s.NoNewPrivs}
}

func (c *CredState) equal(d *CredState) bool {
	return c.Uid == d.Uid && c.Gid == d.Gid && slices.Equal(c.Groups, d.Groups) && c.Caps == d.Caps &&
		c.Bounding == d.Bounding && c.Ambient == d.Ambient && c.Securebits == d.Securebits && c.NoNewPrivs == d.NoNewPrivs
}

// credOf returns the credentials of a thread.
func (ps *ProcessState) credOf(ts *ThreadState) *CredState {
	if ts.Cred != nil {
		return ts.Cred
	}
	return &ps.Cred
}

// credCalls give the thread its credentials, as far as the first process of
// the restored tree has them: of an ordinary user's, the namespace's.
func (r *Restorer) credCalls(b *args, c *CredState) []call {
	var calls []call
	if os.Geteuid() == 0 {
		if !slices.Equal(c.Groups, r.held.Groups) { // not every user namespace allows to set them
			calls = append(calls, setGroups(b, c.Groups))
		}
		calls = append(calls, idCalls(c)...)
	}
	held := r.held
	set := func(e, p, i uint64) call {
		header := b.put(le.AppendUint64(nil, unix.LINUX_CAPABILITY_VERSION_3))
		var data []byte
		for _, shift := range []uint{0, 32} {
			for _, set := range []uint64{e, p, i} {
				data = le.AppendUint32(data, uint32(set>>shift))
			}
		}
		return sys(unix.SYS_CAPSET, header, b.put(data)).as("capset")
	}
	final := set(c.Caps[0]&held.CapPrm, c.Caps[1]&held.CapPrm, c.Caps[2]&(held.CapPrm|c.Bounding))
	if held.CapPrm&(1<<unix.CAP_SETPCAP) == 0 {
		return append(calls, final)
	}
	// The kernel asks for CAP_SETPCAP up to the last step, capabilities(7).
	calls = append(calls, set(held.CapPrm, held.CapPrm, c.Caps[2]&(held.CapPrm|held.CapBnd)),
		sys(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).as("PR_CAP_AMBIENT_CLEAR_ALL"))
	for _, n := range bitsOf(c.Ambient & c.Caps[2] & held.CapPrm) {
		calls = append(calls, sys(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0).as("PR_CAP_AMBIENT_RAISE %d", n))
	}
	for _, n := range bitsOf(held.CapBnd &^ c.Bounding) {
		calls = append(calls, sys(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n).as("PR_CAPBSET_DROP %d", n))
	}
	return append(calls, sys(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, uint64(c.Securebits)).as("PR_SET_SECUREBITS %#x", c.Securebits), final)
}

func setGroups(b *args, ids []int) call {
	var groups []byte
	for _, id := range ids {
		groups = le.AppendUint32(groups, uint32(id))
	}
	return sys(unix.SYS_SETGROUPS, uint64(len(ids)), b.put(groups)).as("setgroups")
}

// idCalls set the users and the group, and keep the capabilities meanwhile.
func idCalls(c *CredState) []call {
	return []call{
		sys(unix.SYS_SETRESGID, uint64(c.Gid[0]), uint64(c.Gid[1]), uint64(c.Gid[2])).as("setresgid"),
		sys(unix.SYS_SETFSGID, uint64(c.Gid[3])),
		sys(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1).as("PR_SET_KEEPCAPS"),
		sys(unix.SYS_SETRESUID, uint64(c.Uid[0]), uint64(c.Uid[1]), uint64(c.Uid[2])).as("setresuid"),
		sys(unix.SYS_SETFSUID, uint64(c.Uid[3])),
		sys(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0).as("PR_SET_KEEPCAPS"),
	}
}

// bitsOf lists the numbers of the bits that are set.
func bitsOf(set uint64) (list []uint64) {
	for ; set != 0; set &= set - 1 {
		list = append(list, uint64(bits.TrailingZeros64(set)))
	}
	return list
}

// warnCredentials tells what of the credentials of a process is lost here.
func (r *Restorer) warnCredentials(ps *ProcessState) {
	lost, unbound, bits := uint64(0), uint64(0), false
	for i := range ps.Threads {
		c := ps.credOf(&ps.Threads[i])
		lost |= (c.Caps[0] | c.Caps[1]) &^ r.held.CapPrm
		unbound |= r.held.CapBnd &^ c.Bounding
		bits = bits || c.Securebits != 0
	}
	if lost != 0 {
		r.warn("pid %d: loses capabilities %#x, which nobody has here (capabilities(7))", ps.PID, lost)
	}
	if r.held.CapPrm&(1<<unix.CAP_SETPCAP) == 0 && (unbound != 0 || bits) {
		r.warn("pid %d: its bounding set, ambient set and securebits are not kept: CAP_SETPCAP is missing here", ps.PID)
	}
	if os.Geteuid() != 0 && !slices.Equal(ps.Cred.Groups, r.held.Groups) {
		r.warn("pid %d: its supplementary groups %v are those of the restarting user now: %v", ps.PID, ps.Cred.Groups, r.held.Groups)
	}
}
