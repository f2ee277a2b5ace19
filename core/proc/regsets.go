package proc

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// regsetNote is a register set beside the general ones, with the room to read it.
type regsetNote struct {
	note     uint32
	room     int
	optional bool // not every processor, or kernel, has it
}

// readRegsets returns the register sets of a thread that are kept.
func readRegsets(tid int) (out []RegSet, err error) {
	room := scratch.Get().(*[scratchSize]byte)
	defer scratch.Put(room)
	for _, n := range extraNotes {
		b := room[:n.room]
		k, err := getRegset(tid, n.note, b)
		if n.optional && isNoRegset(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tid %d: read register set %#x: %w", tid, n.note, err)
		}
		out = append(out, RegSet{n.note, slices.Clone(b[:usedOf(n.note, b[:k])])})
	}
	return out, nil
}

// isNoRegset says whether there is no such register set here.
func isNoRegset(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) }

// validateRegsets wants the sets in the order of extraNotes.
func validateRegsets(sets []RegSet) error {
	for _, n := range extraNotes {
		switch {
		case len(sets) == 0 && !n.optional:
			return errors.New("incomplete")
		case len(sets) == 0 || n.optional && sets[0].Note != n.note:
			continue
		case sets[0].Note != n.note || len(sets[0].Data) == 0 || len(sets[0].Data) > n.room:
			return fmt.Errorf("register set %#x of %d bytes", sets[0].Note, len(sets[0].Data))
		}
		sets = sets[1:]
	}
	if len(sets) > 0 {
		return fmt.Errorf("incomplete, or with register set %#x, which is not known", sets[0].Note)
	}
	return nil
}

// readVector notes the registers that a call of ours takes from a thread, beside Regs.
func (th *Thread) readVector() (err error) {
	th.vector, err = vectorOf(th.HostTID)
	return err
}

// ownVector gives them back.
func (th *Thread) ownVector() error { return setVector(th.HostTID, th.vector) }
