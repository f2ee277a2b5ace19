package proc

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestAskMembarrier finds out what MEMBARRIER_CMD_GET_REGISTRATIONS tells of the private
// registrations.
func TestAskMembarrier(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(command(program(t, "threads"), "2"))
	x.untilReady()
	tree := x.freeze()
	defer x.release(tree)
	x.open(tree)
	p := tree.procs[0]
	for _, register := range []uintptr{0, 1 << 4, 1 << 6} { // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, ..._SYNC_CORE
		if _, err := p.Syscall(soon(t), unix.SYS_MEMBARRIER, register, 0); register != 0 && err != nil {
			t.Fatal(err)
		}
		want, err := p.Syscall(soon(t), unix.SYS_MEMBARRIER, membarrierGet, 0)
		if err != nil {
			t.Skipf("the kernel does not tell them: %v", err)
		}
		var got uint32
		err = x.tr.Do(func() (err error) { got, err = p.askMembarrier(soon(t)); return err })
		if err != nil || got&^membarrierGlobal != uint32(want) {
			t.Errorf("found %#x, want %#x (%v)", got, want, err)
		}
	}
}
