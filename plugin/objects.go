package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Process is one process of the tree, stopped. It is valid during the call
// that received it only.
type Process interface {
	PID() int     // as the program sees it: the name of the process in the image
	HostPID() int // as the supervisor's /proc shows it
	Threads() []Thread

	// PendingSignals returns the siginfo_t, sigaction(2), of every signal that
	// waits to be delivered to the process or one of its threads. A restart
	// queues them again, but for those of POSIX timers (SI_TIMER) that have
	// by then expired again.
	PendingSignals() ([][]byte, error)

	// ReadAt and WriteAt reach the process's memory at the address off.
	io.ReaderAt
	io.WriterAt

	// Scratch is writable memory of the process for the arguments of
	// injected system calls. Its content is lost between calls of a plugin.
	Scratch() (addr uint64, size int)
	// Syscall runs one system call in the leader. A failed call returns a
	// syscall.Errno.
	Syscall(ctx context.Context, nr uintptr, args ...uintptr) (uintptr, error)
	// Batch runs many in one stop, in order, and sets Ret and Err of each.
	// It stops behind the first that fails, unless its MayFail is set, and
	// returns an error that names it.
	Batch(ctx context.Context, calls []Call) error
}

// Thread is one thread of a Process.
type Thread struct {
	TID     int // as the program sees it
	HostTID int // as the supervisor's /proc shows it
}

// LiveTID returns the id, in the supervisor's /proc, of a thread of proc that has not
// ended: the leader may have, and then shows neither files nor namespaces.
func LiveTID(proc Process) int {
	if th := proc.Threads(); len(th) > 0 {
		return th[0].HostTID
	}
	return proc.HostPID()
}

// Call is one system call of a batch.
type Call struct {
	Nr      uintptr
	Args    [6]uintptr
	MayFail bool
	// Sources are arguments that are known only when the call's turn has
	// come. A batch that has them is run in one stop: whatever becomes of the
	// supervisor meanwhile, it is carried out to its end.
	Sources []Source

	Ret uintptr       // set by Batch
	Err syscall.Errno // set by Batch; 0 where the call succeeded or was not reached
}

// SiftRing as the Nr of a Call is no system call, but code of the engine's. It
// takes out of the ring of an asynchronous I/O context, io_setup(2), at Args[0]
// with Args[2] slots the events of requests whose iocb is at Args[1]. The others
// keep their order and move up to the tail. So requests that a batch makes in a
// context of the program leave nothing in it, whatever becomes of the
// supervisor meanwhile.
const SiftRing = ^uintptr(0)

// Source says where an argument of a Call comes from.
type Source struct {
	Arg    int    // index in Args
	Addr   uint64 // of the 8 bytes that hold it in the process's memory; 0: Result
	Result int    // index of an earlier call of the batch, whose result it is
}

// FileRef is one descriptor that refers to an open file description.
type FileRef struct {
	PID     int // as the program sees it
	FD      int
	Cloexec bool
	// Locked: the process holds POSIX locks, fcntl_locking(2), that it took through
	// this description. Who claims it answers for them.
	Locked bool
}

// OpenFile is one open file description (open(2)) with all its descriptors.
// In a restart it is as ClaimFile saw it, but for FDInfo, Dup, Hold, Inherited,
// and Locked of Refs.
type OpenFile struct {
	ID    int    // names the description in the image
	Link  string // /proc/PID/fd/N, read as a link
	Flags int    // open(2) flags, without O_CLOEXEC
	Pos   int64  // file offset
	Stat  syscall.Stat_t
	Refs  []FileRef // parents first; none where only another object holds it, see Hold

	// FDInfo is /proc/PID/fdinfo/N of the first reference.
	FDInfo []byte
	// Dup returns a duplicate in the supervisor, which the caller closes.
	Dup func() (int, error)
	// Hold says that this object holds the description of fd, a descriptor
	// of the supervisor, which stays the caller's: so does a UNIX socket with
	// a descriptor in flight (SCM_RIGHTS, unix(7)). It returns the
	// description's ID. One that no process has is claimed later, as if it
	// were open. It may be called during ClaimFile only; FileFiller is its
	// counterpart in a restart.
	Hold func(fd int) (id int, err error)
	// Inherited is n+1 where the description is the supervisor's own
	// descriptor n (0, 1 or 2), so that the program has it from whoever
	// started the supervisor; 0 elsewhere.
	Inherited int
}

// Mapping is one mapping of a process: a line of /proc/PID/smaps.
type Mapping struct {
	Start, End uint64
	Prot       int // PROT_READ | PROT_WRITE | PROT_EXEC
	Shared     bool
	Offset     uint64
	Dev        uint64 // as in stat(2)
	Ino        uint64
	Path       string   // as in /proc/PID/maps
	Flags      []string // VmFlags of /proc/PID/smaps, proc_pid_smaps(5)
	// Named says of a mapping of a file in memory (tmpfs(5)) that the file has the
	// name Path, and that a process of the tree may write to it through a shared
	// mapping: this one or another.
	Named bool
	// Written says the same of a mapping of another file that has the name Path, is
	// larger than 64 KiB, and whose content the engine leaves to where it is.
	Written bool
}

// MapPolicy tells the engine what to do with a claimed mapping.
type MapPolicy uint8

const (
	MapSave   MapPolicy = iota + 1 // save its bytes; it comes back as private anonymous memory
	MapShare                       // save the bytes of the object (Dev, Ino) once; it comes back as shared memory
	MapReopen                      // the plugin's ReopenMap gives the file; only changed private pages are saved
	MapSkip                        // leave it out
	MapAttach                      // save the bytes of the object (Dev, Ino) once; the plugin's AttachMap makes the mapping
)

// Content is data of a plugin that is too large for its state, as that of a
// file. The image keeps it beside the memory, under checksums.
type Content struct {
	Object int         // the plugin's own number of it, from 0
	From   io.ReaderAt // read by several goroutines, until Resume; behind its end are zeros
	Size   int64
	Data   []Range // what is no hole, ascending
}

// Range is a part of a Content, from the byte Start to the one before End.
type Range struct{ Start, End int64 }

// RefusalError says that an object cannot be saved, and why. The program
// runs on.
type RefusalError struct {
	PID    int    `json:"pid"`
	FD     int    `json:"fd"` // -1 where the object is not a descriptor
	Object string `json:"object"`
	Reason string `json:"reason"`
	// Passing says that the reason may be gone in a moment, by what the program
	// does next: a checkpoint is tried again a few times before it is given up.
	Passing bool `json:"passing,omitempty"`
}

// ErrPassing is what a [RefusalError] matches that has Passing set, and what
// the error may wrap that a plugin gives to Refuse.
var ErrPassing = errors.New("the reason may be gone in a moment")

// Is makes the error match ErrPassing.
func (e *RefusalError) Is(target error) bool { return target == ErrPassing && e.Passing }

// Error names the pid, the descriptor, the object and the reason.
func (e *RefusalError) Error() string {
	if e.FD < 0 {
		return fmt.Sprintf("pid %d: %s: %s", e.PID, e.Object, e.Reason)
	}
	return fmt.Sprintf("pid %d fd %d: %s: %s", e.PID, e.FD, e.Object, e.Reason)
}

// Refuse returns the error by which a plugin refuses an open file of its own. It
// is Passing where one of args is an error that wraps ErrPassing.
func Refuse(f OpenFile, format string, args ...any) error {
	e := &RefusalError{FD: -1, Object: f.Link, Reason: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if err, ok := arg.(error); ok && errors.Is(err, ErrPassing) {
			e.Passing = true
		}
	}
	if len(f.Refs) > 0 {
		e.PID, e.FD = f.Refs[0].PID, f.Refs[0].FD
	}
	return e
}

// Passing is a reason, to be given to Refuse, that may be gone in a moment.
type Passing string

// Error returns the reason.
func (p Passing) Error() string { return string(p) }

// Is makes the error match ErrPassing.
func (p Passing) Is(target error) bool { return target == ErrPassing }

// RefuseProcess returns the error by which a plugin refuses an object of a
// process that is not a descriptor.
func RefuseProcess(p Process, object, format string, args ...any) error {
	return &RefusalError{PID: p.PID(), FD: -1, Object: object, Reason: fmt.Sprintf(format, args...)}
}
