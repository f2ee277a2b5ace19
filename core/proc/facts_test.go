package proc

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// facts returns what the program says of itself, as key and value.
func (x *subject) facts(order string) map[string]string {
	x.tb.Helper()
	facts := map[string]string{}
	for _, l := range x.order(order) {
		key, value, _ := strings.Cut(l, " ")
		facts[key] = value
	}
	return facts
}

// wantFact compares what the program says with what was read from outside.
func wantFact(t *testing.T, facts map[string]string, key, format string, args ...any) {
	t.Helper()
	if got, ok := facts[key]; !ok || got != fmt.Sprintf(format, args...) {
		t.Errorf("%s: read %q, the program says %q", key, fmt.Sprintf(format, args...), got)
	}
}

// What the program says of itself is what is read of it.
func TestInspectReadsWhatTheProgramSees(t *testing.T) {
	dir := t.TempDir()
	tr := newTracer(t)
	x := newSubject(t, tr)
	x.start(exec.Command(built(t, "state_process"), dir))
	x.untilReady()
	facts := x.facts("facts")
	st := x.look()
	if again := x.facts("facts"); !sameFacts(t, facts, again) {
		t.Error("the program was changed")
	}
	if st.Uid != os.Geteuid() || st.Gid != os.Getegid() || st.Arch != arch || len(st.Vdso) == 0 || st.BootID == "" {
		t.Errorf("uid %d, gid %d, arch %s, vdso %x, boot id %q", st.Uid, st.Gid, st.Arch, st.Vdso, st.BootID)
	}
	ps := processOf(t, st, x.pid)
	checkProcessFacts(t, ps, facts)
	if len(ps.Threads) != 2 {
		t.Fatalf("%d threads, want 2", len(ps.Threads))
	}
	for i, who := range []string{"main", "worker"} {
		checkThreadFacts(t, &ps.Threads[i], who, facts)
	}
	checkPending(t, "process", ps.Pending, []pendingSignal{{34, -1, 0}, {34, -1, 1}, {15, 0, 0}})
	checkPending(t, "main thread", ps.Threads[0].Pending, []pendingSignal{{1, siTkill, 0}})
	checkPending(t, "worker", ps.Threads[1].Pending, []pendingSignal{{35, -1, 1000}, {35, -1, 1001}})
}

func sameFacts(t *testing.T, a, b map[string]string) bool {
	t.Helper()
	equal := true
	for k := range a {
		if a[k] != b[k] {
			t.Errorf("%s: was %q, is %q", k, a[k], b[k])
			equal = false
		}
	}
	return equal && len(a) == len(b)
}

func checkProcessFacts(t *testing.T, ps *ProcessState, facts map[string]string) {
	t.Helper()
	for i, a := range ps.Actions {
		w := func(i int) uint64 { return le.Uint64(a[8*i:]) }
		if key := fmt.Sprintf("action.%d", i+1); w(0) != 0 || facts[key] != "" {
			wantFact(t, facts, key, "%x %x %x %x", w(0), w(1), w(2), w(3))
		}
	}
	for i, l := range ps.Limits {
		wantFact(t, facts, fmt.Sprintf("limit.%d", i), "%x %x", l.Cur, l.Max)
	}
	sum := uint32(0)
	for _, b := range ps.Auxv {
		sum = sum*31 + uint32(b)
	}
	wantFact(t, facts, "auxv", "%d %x", len(ps.Auxv), sum)
	wantFact(t, facts, "umask", "%o", ps.Umask)
	wantFact(t, facts, "cwd", "%s", ps.Cwd)
	wantFact(t, facts, "exe", "%s", ps.Exe)
	wantFact(t, facts, "argv", "%x", ps.MM.ArgStart)
	wantFact(t, facts, "brk", "%x", ps.MM.Brk)
	wantFact(t, facts, "oom", "%d", ps.OOMScore)
	bit := map[bool]int{true: 1}
	wantFact(t, facts, "subreaper", "%d", bit[ps.Prctl.Subreaper])
	wantFact(t, facts, "no_new_privs", "%d", bit[ps.Cred.NoNewPrivs])
	wantFact(t, facts, "thp_disable", "%d", ps.Prctl.THPDisable)
	wantFact(t, facts, "dumpable", "%d", ps.Prctl.Dumpable)
}

func checkThreadFacts(t *testing.T, ts *ThreadState, who string, facts map[string]string) {
	t.Helper()
	wantFact(t, facts, who+".tid", "%d", ts.TID)
	wantFact(t, facts, who+".name", "%s", ts.Comm)
	alt := ts.AltStack
	wantFact(t, facts, who+".altstack", "%x %x %x", le.Uint64(alt), le.Uint64(alt[16:]), le.Uint32(alt[8:])&^uint32(2)) // SS_DISABLE is not set
	wantFact(t, facts, who+".tid_address", "%x", ts.TIDAddr)
	wantFact(t, facts, who+".robust", "%x %d", ts.Robust[0], ts.Robust[1])
	wantFact(t, facts, who+".mask", "%x", ts.Mask)
	wantFact(t, facts, who+".pdeathsig", "%d", ts.PDeathSig)
	wantFact(t, facts, who+".sched", "%d %d %d", ts.Sched.Policy, ts.Sched.Priority, ts.Sched.Nice)
	wantFact(t, facts, who+".ioprio", "%x", ts.IOPrio)
	if ts.CPUs != nil {
		n := 0
		for _, b := range ts.CPUs {
			for ; b != 0; b &= b - 1 {
				n++
			}
		}
		wantFact(t, facts, who+".cpus", "%d", n)
	}
	if pc := ts.Regs.PC(); pc == 0 || validateRegsets(ts.Extra) != nil {
		t.Errorf("%s: at %#x, %d register sets", who, pc, len(ts.Extra))
	}
}

// pendingSignal is what a test compares of a siginfo_t.
type pendingSignal struct{ signo, code, value int }

func checkPending(t *testing.T, who string, raw [][]byte, want []pendingSignal) {
	t.Helper()
	var got []pendingSignal
	for _, b := range raw {
		s := pendingSignal{int(le.Uint32(b)), int(int32(le.Uint32(b[8:]))), 0}
		if s.code == -1 { // SI_QUEUE: pid, uid, value
			s.value = int(le.Uint32(b[24:]))
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pending for the %s: %v, want %v", who, got, want)
	}
}
