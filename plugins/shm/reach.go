package shm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Before Linux 5.19 NAME_next_id belongs to root of the machine, also in an IPC namespace
// that an ordinary user has made (ipc/ipc_sysctl.c). The ids of a new namespace are known
// all the same (ipc/util.c, ipc_idr_alloc): places in the table are given in turn, and each
// time they begin anew the number above them is counted up. Objects that are made and
// removed bring the turn to the id that is wanted.
const (
	placesInTurn = 64      // ipc_min_cycle; more where the table holds more than two thirds of them
	mostTurns    = 1 << 20 // objects made in vain for one; some 3 us each
)

// errUnreachable says that the id of an object cannot be chosen.
var errUnreachable = errors.New("before Linux 5.19 only root chooses such an id")

// turnOf numbers ids in the order in which they are given.
func turnOf(id int) int { return id/(slotMask+1)*placesInTurn + id&slotMask }

// reach makes objects in vain until the one after them could get the id of o, but for ids
// in use, which have no turn.
func (m *maker) reach(ctx context.Context, o perm) error {
	const most = 64 // objects of one batch
	want := turnOf(o.ID)
	crowded := m.made*3/2 >= placesInTurn
	if o.ID&slotMask >= placesInTurn || crowded || want <= m.turn || want-m.turn > mostTurns {
		return errUnreachable
	}
	for {
		// Each that is in use may take the turn further.
		n := min((want-m.turn-1)/(1+m.made), most)
		if n == 0 {
			return nil
		}
		var calls []plugin.Call
		for range n {
			remove := m.control(0, ipcRmid, 0)
			remove.Sources = []plugin.Source{{Arg: 0, Result: len(calls)}}
			calls = append(calls, m.vain(), remove)
		}
		if err := m.proc.Batch(ctx, calls); err != nil {
			return fmt.Errorf("reach its id: %w", err)
		}
		m.turn = turnOf(int(calls[2*n-2].Ret))
	}
}

// vain is a call that makes an object for nothing but its turn.
func (k kind) vain() plugin.Call {
	const mode = ipcCreat | 0o600
	switch k.ctl {
	case unix.SYS_SHMCTL:
		return plugin.Call{Nr: unix.SYS_SHMGET, Args: [6]uintptr{0, 1, mode}}
	case unix.SYS_SEMCTL:
		return plugin.Call{Nr: unix.SYS_SEMGET, Args: [6]uintptr{0, 1, mode}}
	}
	return plugin.Call{Nr: unix.SYS_MSGGET, Args: [6]uintptr{0, mode}}
}

// makeInTurn makes o by get, whose id it gets when its turn has come.
func (m *maker) makeInTurn(ctx context.Context, o perm, get func() (int, error)) (int, error) {
	for {
		if err := m.reach(ctx, o); err != nil {
			return 0, err
		}
		id, err := get()
		if err != nil {
			return 0, err
		}
		if m.turn = turnOf(id); m.turn >= turnOf(o.ID) {
			m.made++
			return id, nil // maybe another, which the caller finds
		}
		c := m.control(id, ipcRmid, 0)
		if _, err := m.proc.Syscall(ctx, c.Nr, c.Args[:]...); err != nil {
			return 0, fmt.Errorf("remove what has got the id %d: %w", id, err)
		}
	}
}

// inTurn orders n objects by the turn of their ids.
func inTurn(n int, at func(int) perm) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return turnOf(at(a).ID) - turnOf(at(b).ID) })
	return order
}
