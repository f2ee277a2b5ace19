package shm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// Commands and flags of shmctl(2), semctl(2), msgctl(2) and their kin.
const (
	ipcRmid = 0
	ipcSet  = 1
	ipcStat = 2

	msgInfo    = 12
	msgStatAny = 13
	shmInfo    = 14
	shmStatAny = 15
	semInfo    = 19
	semStatAny = 20

	shmLock = 11

	semGetPID = 11
	semGetAll = 13
	semSetVal = 16
	semSetAll = 17

	ipcCreat  = 0o1000
	ipcExcl   = 0o2000
	ipcNowait = 0o4000
	semUndo   = 0x1000
	msgCopy   = 0o40000

	shmHugetlb   = 0o4000
	shmHugeShift = 26
	shmRdonly    = 0o10000
	shmRemap     = 0o40000
)

// Sizes and places in struct shmid64_ds and struct msqid64_ds; ipc64_perm has
// the first 48 bytes of each.
const (
	dsSize     = 128 // none is larger
	shmSizeAt  = 48
	shmAtimeAt = 56
	shmDtimeAt = 64
	shmCtimeAt = 72
	shmCpidAt  = 80
	shmLpidAt  = 84
	shmCountAt = 88
	semOtimeAt = 48
	msgStimeAt = 48
	msgRtimeAt = 56
	msgCtimeAt = 64
	msgBytesAt = 72
	msgCountAt = 80
	msgLimitAt = 88
	msgSendAt  = 96
	msgRecvAt  = 100
)

var native = binary.NativeEndian

// kind is one of the three kinds of System V IPC.
type kind struct {
	name    string // in /proc/sys/kernel/NAME_next_id
	what    string
	ctl     uintptr
	info    uintptr
	statAny uintptr
	ctimeAt int
	timesAt []int // of its other times
	countAt int   // of the number of objects in what info tells
}

var (
	shmKind = kind{"shm", "shared memory segment", unix.SYS_SHMCTL, shmInfo, shmStatAny, shmCtimeAt,
		[]int{shmAtimeAt, shmDtimeAt}, 0} // struct shm_info, used_ids
	semKind = kind{"sem", "semaphore set", unix.SYS_SEMCTL, semInfo, semStatAny, semCtimeAt,
		[]int{semOtimeAt}, 28} // struct seminfo, semusz
	msgKind = kind{"msg", "message queue", unix.SYS_MSGCTL, msgInfo, msgStatAny, msgCtimeAt,
		[]int{msgStimeAt, msgRtimeAt}, 0} // struct msginfo, msgpool
)

// control is a call of shmctl, semctl or msgctl, whose buffer stands in
// another place for semaphores.
func (k kind) control(id int, cmd, buf uintptr) plugin.Call {
	c := plugin.Call{Nr: k.ctl, Args: [6]uintptr{uintptr(id), cmd, buf}}
	if k.ctl == unix.SYS_SEMCTL {
		c.Args = [6]uintptr{uintptr(id), 0, cmd, buf}
	}
	return c
}

// object is what *_STAT_ANY tells.
type object struct {
	perm
	ctime int64
	last  int64 // when it was made, changed or used last; both in seconds since the epoch
	ds    []byte
}

func (o object) u64(at int) uint64 { return native.Uint64(o.ds[at:]) }
func (o object) pid(at int) int    { return int(int32(native.Uint32(o.ds[at:]))) }

// list finds all objects in the IPC namespace of the tree. One batch asks how
// many there are of each kind: mostly there are none.
func (t *tree) list(ctx context.Context) error {
	proc := t.procs[0]
	addr, _ := proc.Scratch()
	kinds := []kind{shmKind, semKind, msgKind}
	calls := make([]plugin.Call, len(kinds))
	for i, k := range kinds {
		calls[i] = k.control(0, k.info, uintptr(addr)+uintptr(i*dsSize))
	}
	if err := proc.Batch(ctx, calls); err != nil {
		return fmt.Errorf("pid %d: list of all System V IPC: %w", proc.PID(), err)
	}
	info := make([]byte, len(kinds)*dsSize)
	if err := read(proc, info, addr); err != nil {
		return err
	}
	t.found = map[string][]object{}
	for i, k := range kinds {
		if native.Uint32(info[i*dsSize+k.countAt:]) == 0 {
			continue
		}
		all, err := k.list(ctx, proc, int(calls[i].Ret))
		if err != nil {
			return fmt.Errorf("pid %d: list of every %s: %w", proc.PID(), k.what, err)
		}
		t.found[k.name] = all
	}
	return nil
}

// list returns all objects of a kind in the IPC namespace of proc, the last of
// which is in the place last of the kernel's table.
func (k kind) list(ctx context.Context, proc plugin.Process, last int) ([]object, error) {
	addr, size := proc.Scratch()
	var all []object
	most := min(size/dsSize, 1024)
	for first := 0; first <= last; first += most {
		n := min(most, last+1-first)
		calls := make([]plugin.Call, n)
		for i := range calls {
			calls[i] = k.control(first+i, k.statAny, uintptr(addr)+uintptr(i*dsSize))
			calls[i].MayFail = true // there are gaps
		}
		if err := proc.Batch(ctx, calls); err != nil {
			return nil, err
		}
		buf := make([]byte, n*dsSize)
		if err := read(proc, buf, addr); err != nil {
			return nil, err
		}
		for i, c := range calls {
			if c.Err == 0 {
				all = append(all, k.parse(int(c.Ret), buf[i*dsSize:][:dsSize]))
			}
		}
	}
	return all, nil
}

func (k kind) parse(id int, ds []byte) object {
	u32 := func(at int) uint32 { return native.Uint32(ds[at:]) }
	o := object{perm: perm{ID: id, Key: int32(u32(0)), UID: u32(4), GID: u32(8), CUID: u32(12), CGID: u32(16), Mode: u32(20)},
		ctime: int64(native.Uint64(ds[k.ctimeAt:])), ds: ds}
	o.last = o.ctime
	for _, at := range k.timesAt {
		o.last = max(o.last, int64(o.u64(at)))
	}
	return o
}

// maker makes objects with given ids in a process of a restart.
type maker struct {
	kind
	log  *made
	proc plugin.Process
	next int // descriptor of /proc/sys/kernel/NAME_next_id; -1: it cannot be written to, see reach
	turn int // of the last id that was given, where next is -1
	made int // and how many objects there are
}

func (k kind) maker(ctx context.Context, proc plugin.Process, log *made) (*maker, error) {
	path := "/proc/sys/kernel/" + k.name + "_next_id"
	addr, _ := proc.Scratch()
	if err := write(proc, append([]byte(path), 0), addr); err != nil {
		return nil, err
	}
	const cwd = ^uintptr(99) // AT_FDCWD
	fd, err := proc.Syscall(ctx, unix.SYS_OPENAT, cwd, uintptr(addr), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) { // not root, who alone restarts in a namespace with other objects
		return &maker{kind: k, log: log, proc: proc, next: -1, turn: -1}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &maker{kind: k, log: log, proc: proc, next: int(fd)}, nil
}

func (m *maker) close(ctx context.Context) error {
	if m.next < 0 {
		return nil
	}
	_, err := m.proc.Syscall(ctx, unix.SYS_CLOSE, uintptr(m.next))
	return err
}

// make makes the object o by the call get, in creator. It can be written to by
// its owner until finish.
func (m *maker) make(ctx context.Context, creator plugin.Process, o perm, get plugin.Call) error {
	if m.next >= 0 {
		if err := m.choose(ctx, o.ID); err != nil {
			return fmt.Errorf("%s %d: set %s_next_id: %w", m.what, o.ID, m.name, err)
		}
	}
	var got int
	one := func() (id int, err error) {
		err = as(ctx, creator, o, func() error {
			ret, err := creator.Syscall(ctx, get.Nr, get.Args[:]...)
			id = int(ret)
			return err
		})
		return id, err
	}
	var err error
	if m.next >= 0 {
		got, err = one()
	} else {
		got, err = m.makeInTurn(ctx, o, one)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s %d: its key %#x: %w", m.what, o.ID, uint32(o.Key), plugin.ErrTaken)
	case err != nil:
		return fmt.Errorf("%s %d: make it: %w", m.what, o.ID, err)
	}
	m.log.add(m.kind, got)
	if got != o.ID {
		return fmt.Errorf("%s %d: it got the id %d, its own is %w", m.what, o.ID, got, plugin.ErrTaken)
	}
	return nil
}

// choose gives the next object its id.
func (m *maker) choose(ctx context.Context, id int) error {
	addr, _ := m.proc.Scratch()
	text := strconv.Itoa(id)
	if err := write(m.proc, []byte(text), addr); err != nil {
		return err
	}
	_, err := m.proc.Syscall(ctx, unix.SYS_PWRITE64, uintptr(m.next), uintptr(addr), uintptr(len(text)), 0)
	return err
}

// as runs do with the ids of the object's creator, where they are not the
// process's own: only a privileged restart has others.
func as(ctx context.Context, proc plugin.Process, o perm, do func() error) error {
	const keep = ^uintptr(0)
	uid, err := proc.Syscall(ctx, unix.SYS_GETEUID)
	if err != nil {
		return err
	}
	gid, err := proc.Syscall(ctx, unix.SYS_GETEGID)
	if err != nil {
		return err
	}
	if uint32(uid) == o.CUID && uint32(gid) == o.CGID || uid != 0 {
		return do()
	}
	steps := []plugin.Call{
		{Nr: unix.SYS_SETRESGID, Args: [6]uintptr{keep, uintptr(o.CGID), keep}},
		{Nr: unix.SYS_SETRESUID, Args: [6]uintptr{keep, uintptr(o.CUID), keep}},
	}
	if err := proc.Batch(ctx, steps); err != nil {
		return err
	}
	err = do()
	back := []plugin.Call{
		{Nr: unix.SYS_SETRESUID, Args: [6]uintptr{keep, uid, keep}},
		{Nr: unix.SYS_SETRESGID, Args: [6]uintptr{keep, gid, keep}},
	}
	return errors.Join(err, proc.Batch(ctx, back))
}

// writable is o's mode as it is made: its owner fills it.
func (o perm) writable() uintptr { return uintptr(o.Mode&0o777 | 0o600) }

// finishObject gives the object its owner and permissions. msg_qbytes of a queue is
// in limit, which the other kinds ignore. What was given away to an owner that does not
// exist here stays the process's own, where nothing shows that the computation uses it.
func (p *Plugin) finishObject(ctx context.Context, k kind, proc plugin.Process, o perm, limit uint64) error {
	err := k.set(ctx, proc, o, limit)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) || !o.Unproven && !o.Doubtful {
		return err
	}
	p.host.Log().Warn().Err(err).Uint32("uid", o.UID).Uint32("gid", o.GID).Msg("it keeps the owner who restarts it: nothing shows that the program uses it")
	ids := []plugin.Call{{Nr: unix.SYS_GETEUID}, {Nr: unix.SYS_GETEGID}}
	if err := proc.Batch(ctx, ids); err != nil {
		return err
	}
	o.UID, o.GID = uint32(ids[0].Ret), uint32(ids[1].Ret)
	return k.set(ctx, proc, o, limit)
}

// set is IPC_SET.
func (k kind) set(ctx context.Context, proc plugin.Process, o perm, limit uint64) error {
	addr, _ := proc.Scratch()
	ds := make([]byte, dsSize)
	native.PutUint32(ds[4:], o.UID)
	native.PutUint32(ds[8:], o.GID)
	native.PutUint32(ds[20:], o.Mode&0o777)
	if k.ctl == unix.SYS_MSGCTL {
		native.PutUint64(ds[msgLimitAt:], limit)
	}
	if err := write(proc, ds, addr); err != nil {
		return err
	}
	c := k.control(o.ID, ipcSet, uintptr(addr))
	if _, err := proc.Syscall(ctx, c.Nr, c.Args[:]...); err != nil {
		return fmt.Errorf("%s %d: owner and mode: %w", k.what, o.ID, err)
	}
	return nil
}

func read(proc plugin.Process, b []byte, addr uint64) error {
	if _, err := proc.ReadAt(b, int64(addr)); err != nil {
		return fmt.Errorf("pid %d: read memory: %w", proc.PID(), err)
	}
	return nil
}

func write(proc plugin.Process, b []byte, addr uint64) error {
	if _, err := proc.WriteAt(b, int64(addr)); err != nil {
		return fmt.Errorf("pid %d: write memory: %w", proc.PID(), err)
	}
	return nil
}
