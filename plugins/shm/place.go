package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// taken is what exists of one kind in the supervisor's IPC namespace.
type taken struct {
	slots map[int]bool
	keys  map[int32]bool
}

// slotMask is IPCMNI - 1: of an id, the place in the kernel's table; the rest
// is counted up with each use of it. With ipcmni_extend it is larger, and this
// finds too much.
const slotMask = 1<<15 - 1

func (k taken) has(o perm) bool { return k.slots[o.ID&slotMask] || o.Key != 0 && k.keys[o.Key] }

// readTaken reads /proc/sysvipc/NAME, sysvipc(7), which shows the reader's own
// namespace.
func readTaken(k kind) (taken, error) {
	raw, err := os.ReadFile("/proc/sysvipc/" + k.name)
	if errors.Is(err, os.ErrNotExist) {
		return taken{}, nil // a kernel without System V IPC
	}
	if err != nil {
		return taken{}, err
	}
	return parseTaken(string(raw))
}

func parseTaken(table string) (taken, error) {
	t := taken{map[int]bool{}, map[int32]bool{}}
	first := true
	for line := range strings.Lines(table) {
		if first {
			first = false
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return t, fmt.Errorf("sysvipc: line %.200q", line)
		}
		key, err := strconv.ParseInt(f[0], 10, 32)
		id, err2 := strconv.ParseInt(f[1], 10, 32)
		if err = errors.Join(err, err2); err != nil {
			return t, fmt.Errorf("sysvipc: %w", err)
		}
		t.slots[int(id)&slotMask] = true
		if key != 0 {
			t.keys[int32(key)] = true
		}
	}
	return t, nil
}

// FreeHere implements plugin.Placer.
func (p *Plugin) FreeHere(context.Context) error {
	s := &p.state
	var errs []error
	check := func(k kind, n int, at func(int) perm) {
		if n == 0 {
			return
		}
		t, err := readTaken(k)
		errs = append(errs, err)
		for i := range n {
			switch o := at(i); {
			case o.Unproven:
				errs = append(errs, fmt.Errorf("the System V %s %d (key %#x): nothing shows whether it is the computation's", k.what, o.ID, uint32(o.Key)))
			case !o.Doubtful && t.has(o):
				errs = append(errs, fmt.Errorf("the System V %s %d (key %#x): its id or key is in use here", k.what, o.ID, uint32(o.Key)))
			case o.Doubtful && !t.has(o):
				// Made here, one of another program would stay for ever.
				errs = append(errs, fmt.Errorf("the System V %s %d (key %#x), which the program may use, does not exist here any more", k.what, o.ID, uint32(o.Key)))
			}
		}
	}
	check(shmKind, len(s.Segments), func(i int) perm { return s.Segments[i].perm })
	check(semKind, len(s.Semaphores), func(i int) perm { return s.Semaphores[i].perm })
	check(msgKind, len(s.Queues), func(i int) perm { return s.Queues[i].perm })
	for _, q := range s.POSIX {
		if !errors.Is(mqExists(q.Name), unix.ENOENT) {
			errs = append(errs, fmt.Errorf("POSIX message queue /%s exists here", q.Name))
		}
	}
	return errors.Join(errs...)
}

// leave notes that a doubtful object is still there, and stays as it is.
func (m *making) leave(k kind, id int) {
	if m.there == nil {
		m.there = map[string]bool{}
	}
	m.there[leftKey(k, id)] = true
}

func (m *making) left(k kind, id int) bool { return m.there[leftKey(k, id)] }

func leftKey(k kind, id int) string { return fmt.Sprint(k.name, id) }
