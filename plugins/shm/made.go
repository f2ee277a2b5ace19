package shm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// made is what a restart has made in the supervisor's IPC namespace, where it would
// outlive a restart that fails.
type made struct {
	own     bool // in a namespace of the tree, which ends with it
	objects []madeObject
	queues  []string // names of POSIX queues
}

type madeObject struct {
	kind
	id int
}

func (m *made) add(k kind, id int) { m.objects = append(m.objects, madeObject{k, id}) }

// remove removes what is still there.
func (m *made) remove() error {
	if m.own {
		return nil
	}
	var errs []error
	for _, o := range m.objects {
		c := o.control(o.id, ipcRmid, 0)
		_, _, errno := unix.Syscall6(c.Nr, c.Args[0], c.Args[1], c.Args[2], c.Args[3], 0, 0)
		if errno != 0 && errno != unix.EINVAL && errno != unix.EIDRM { // those: it was removed already
			errs = append(errs, fmt.Errorf("%s %d: remove it: %w", o.what, o.id, errno))
		}
	}
	for _, name := range m.queues {
		if err := mqUnlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("POSIX message queue /%s: mq_unlink: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
