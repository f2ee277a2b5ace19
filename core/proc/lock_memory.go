package proc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// lockMemory locks what was locked, mlock(2): first on fault, which tells whether it can
// be, then with all pages present. That fails, as it did for the program, where memory is
// locked and some of it cannot be accessed.
func (m *memoryRestorer) lockMemory(ctx context.Context) error {
	for i := range m.st.Processes {
		ps := &m.st.Processes[i]
		if ps.Zombie {
			continue
		}
		p := m.byPID[ps.PID]
		var locks, present []call
		for _, ms := range ps.Maps {
			if slices.Contains(ms.Flags, "lo") && ms.Kind != MapVdso {
				lock := sys(unix.SYS_MLOCK2, ms.Start, ms.End-ms.Start, mlockOnFault).may().as("mlock2 %#x", ms.Start)
				locks = append(locks, lock)
				if !slices.Contains(ms.Flags, "lf") {
					lock.args[2] = 0
					present = append(present, lock)
				}
			}
		}
		if ps.LockFuture != 0 {
			locks = append(locks, sys(unix.SYS_MLOCKALL, ps.LockFuture).may().as("mlockall"))
		}
		calls := slices.Concat(locks, present)
		if err := p.run(ctx, p.threads[0], calls); err != nil {
			return err
		}
		vmas := sync.OnceValue(func() []procfs.VMA {
			vmas, _ := procfs.ReadSmaps(p.liveTID()) // none: nothing is known to be locked
			return vmas
		})
		for _, c := range calls[:len(locks)] {
			if err := c.err(); err != nil && !(c.nr == unix.SYS_MLOCK2 && errors.Is(err, unix.ENOMEM) && isLocked(vmas(), c.args[0])) {
				m.warn("pid %d: memory stays unlocked: %v", p.pid, err)
			}
		}
	}
	return nil
}

// isLocked says whether memory at addr is locked though mlock2(2) has failed: kernels before 5.18 lock it,
// and try then to read what cannot be accessed (mm/gup.c, populate_vma_page_range).
func isLocked(vmas []procfs.VMA, addr uint64) bool {
	i, _ := slices.BinarySearchFunc(vmas, addr, func(v procfs.VMA, a uint64) int { return cmp.Compare(v.End, a+1) })
	return i < len(vmas) && vmas[i].Start <= addr && vmas[i].Has("lo")
}
