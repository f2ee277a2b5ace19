package proc

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Layout of struct new_utsname, uname(2).
const (
	utsField    = 65 // __NEW_UTS_LEN + 1
	utsHostOff  = utsField
	utsNameOff  = 5 * utsField
	utsNameSize = 6 * utsField
)

// utsSaver numbers the UTS namespaces of a tree.
type utsSaver struct {
	outer string
	known map[string]int
}

func newUTSSaver(reference int) *utsSaver {
	u := &utsSaver{known: map[string]int{}}
	u.outer, _ = utsOf(reference)
	return u
}

// utsOf names the UTS namespace of a process.
func utsOf(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", pid)) }

// save enters the namespace of p in the image, and its names, which p is asked for.
func (u *utsSaver) save(ctx context.Context, st *State, p *Process, ps *ProcessState) error {
	link, err := utsOf(p.liveTID())
	if err != nil || link == u.outer {
		return err
	}
	if ps.UTS = u.known[link]; ps.UTS != 0 {
		return nil
	}
	b := make([]byte, utsNameSize)
	err = p.tr.Do(func() error {
		return p.run(ctx, p.threads[0], []call{sys(unix.SYS_UNAME, p.inj.scratch()).as("uname")})
	})
	if err == nil {
		err = p.readMem(p.inj.scratch(), b)
	}
	if err != nil {
		return err
	}
	st.UTS = append(st.UTS, UTSState{Host: text(unix.ByteSliceToString(b[utsHostOff : utsHostOff+utsField])),
		Domain: text(unix.ByteSliceToString(b[utsNameOff:]))})
	ps.UTS = len(st.UTS)
	u.known[link] = ps.UTS
	return nil
}

// enterUTS puts a process into its UTS namespace, which the first of those in
// it makes.
func (m *memoryRestorer) enterUTS(ctx context.Context, p *Process, ps *ProcessState) error {
	if ps.UTS == 0 {
		return nil
	}
	first := m.uts[ps.UTS]
	if first == nil {
		m.uts[ps.UTS] = p
		u := m.st.UTS[ps.UTS-1]
		b := newArgs(p)
		return b.flush(ctx, p.threads[0], []call{
			sys(unix.SYS_UNSHARE, unix.CLONE_NEWUTS).as("unshare(CLONE_NEWUTS)"),
			sys(unix.SYS_SETHOSTNAME, b.str(string(u.Host)), uint64(len(u.Host))).as("sethostname"),
			sys(unix.SYS_SETDOMAINNAME, b.str(string(u.Domain)), uint64(len(u.Domain))).as("setdomainname"),
		})
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", first.host))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := m.pass(ctx, p, []int{int(ns.Fd())}); err != nil {
		return err
	}
	return p.run(ctx, p.threads[0], []call{sys(unix.SYS_SETNS, 0, unix.CLONE_NEWUTS).as("setns"), sys(unix.SYS_CLOSE, 0)})
}
