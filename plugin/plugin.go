package plugin

import (
	"context"
	"errors"
	"io"

	"github.com/rs/zerolog"
)

var (
	// ErrNotMine is a claimer's answer for an object of another plugin.
	ErrNotMine = errors.New("not mine")
	// ErrSkip is New's answer where the plugin has nothing to do on this
	// host: no such hardware, no such kernel feature. It is not a failure.
	ErrSkip = errors.New("plugin not needed here")
	// ErrTaken is what a Placer's error wraps at Restart where an id or name
	// that FreeHere found free is another's by now.
	ErrTaken = errors.New("taken meanwhile")
)

// Definition describes a plugin. It is inert data: making one has no effect.
type Definition struct {
	Name     string   // folder, configuration key, log field, image section
	Summary  string   // one line for `hiatus plugins`
	State    uint16   // the state format that Save writes
	Oldest   uint16   // the oldest state format that Load accepts
	After    []string // names that must stand earlier in the list: asserted, never sorted
	Kinds    []Kind   // the events that Handle wants
	Barriers []string // names used with Host.Barrier, compared across hosts before a checkpoint

	// New makes the plugin for one agent. It returns ErrSkip where the
	// plugin is not needed.
	New func(Host) (Plugin, error)
}

// Plugin is the one interface that every plugin implements.
type Plugin interface {
	// Handle is called for each event listed in Definition.Kinds.
	Handle(ctx context.Context, ev Event) error
}

// Stater is a plugin with state in the image. Both methods are pure: no
// system calls. The state is an explicit, versioned structure in JSON.
//
// A plugin that writes nothing leaves nothing in the image, which can then be
// restarted without it.
type Stater interface {
	Save(ctx context.Context, w io.Writer) error
	// Load validates all it reads: the image may be damaged or hostile.
	Load(ctx context.Context, format uint16, r io.Reader) error
}

// FileClaimer is a plugin that owns open file descriptions.
type FileClaimer interface {
	// ClaimFile is called with the program stopped. It returns ErrNotMine
	// for an object of another plugin, nil for one that it has saved, and
	// any other error (see Refuse) for one of its own that it cannot keep.
	ClaimFile(ctx context.Context, f OpenFile) error
	// ReopenFile makes the description again in the supervisor and returns
	// a descriptor, which the engine passes to the processes and closes.
	ReopenFile(ctx context.Context, f OpenFile) (fd int, err error)
}

// FileFiller is a FileClaimer whose objects hold other descriptions, as
// OpenFile.Hold told.
type FileFiller interface {
	// FillFiles is called in a restart when all descriptions exist again and
	// no process has them yet. fds are by OpenFile.ID, and stay the engine's.
	FillFiles(ctx context.Context, procs []Process, fds map[int]int) error
}

// FileTaker is a FileClaimer that is asked first, before the ClaimFile of any
// plugin and whatever its own place: it decides, by the user's word, about
// files that others would keep. What it takes it reopens.
type FileTaker interface {
	// TakeFile answers as ClaimFile does.
	TakeFile(ctx context.Context, f OpenFile) error
}

// Holder is a plugin that may keep the program stopped, or has to do what comes
// behind the Running of all others.
type Holder interface {
	// Hold is called when all plugins have handled Resume or Running, with
	// that event, and returns when the program may run. It has no deadline;
	// ctx ends when the checkpoint is given up. Behind Running an error ends the
	// restart.
	Hold(ctx context.Context, ev Event) error
}

// PathMapper is a plugin that knows where files are that were elsewhere at
// the checkpoint.
type PathMapper interface {
	// MapPath returns the path of today, path itself where it is the same. It
	// is called from Restart to Running only, by any number of goroutines.
	MapPath(path string) string
}

// MapClaimer is a plugin that owns mappings of memory.
type MapClaimer interface {
	// ClaimMap returns ErrNotMine for a mapping that is not of this plugin.
	// It is not asked about private anonymous memory.
	ClaimMap(ctx context.Context, p Process, m Mapping) (MapPolicy, error)
}

// MapReopener is a MapClaimer that answers MapReopen.
type MapReopener interface {
	// ReopenMap returns a descriptor in the supervisor, which the engine
	// passes to the process, maps at m.Offset and closes.
	ReopenMap(ctx context.Context, p Process, m Mapping) (fd int, err error)
}

// MapAttacher is a MapClaimer that answers MapAttach: its objects are mapped by
// system calls of their own, as shmat(2), and have no descriptor.
type MapAttacher interface {
	// AttachMap makes the mapping m in the process, and is called twice for
	// each. With filling it must be writable whatever m.Prot is, for the
	// engine fills the object through it; then it gets its protection.
	AttachMap(ctx context.Context, p Process, m Mapping, filling bool) error
}

// Placer is a plugin whose objects have ids or names that may be taken.
type Placer interface {
	// FreeHere is called after Load. It returns nil where everything that
	// was saved can be made in the namespaces of the supervisor, else an
	// error that tells what stands in the way; new namespaces are made then,
	// as they are where Restart fails with ErrTaken: Exit, Load and Restart follow.
	FreeHere(ctx context.Context) error
}

// ProcessSaver is a plugin with kernel state of each process that only an
// injected system call can read, as POSIX timers.
type ProcessSaver interface {
	SaveProcess(ctx context.Context, p Process) error
	RestoreProcess(ctx context.Context, p Process) error
}

// ContentKeeper is a plugin with data that is too large for its state.
type ContentKeeper interface {
	// Contents lists them, after Save.
	Contents(ctx context.Context) ([]Content, error)
	// ContentTarget returns where the content of an object of the image goes
	// in a restart. It is called behind the last ReopenFile, and written to
	// by several goroutines until RestoreProcess. Holes are left out.
	ContentTarget(ctx context.Context, object int, size int64) (io.WriterAt, error)
}

// Publisher is a plugin that changes in a restart what others can see, as files
// with names.
type Publisher interface {
	// Publish is called behind Running, and before Hold, which may need what has a
	// name. What it changes an Exit with Failed takes back.
	Publish(ctx context.Context) error
	// Published is called when all agents have come as far: nothing is taken back
	// any more.
	Published()
}

// Host is what a plugin may ask of the core. Its methods may be called from
// any method of the plugin but Save and Load, which may use Log only.
type Host interface {
	// Log has the field plugin=<name>, and a level of its own.
	Log() *zerolog.Logger
	// Config decodes the plugin's configuration; an unknown key is an error.
	Config(dst any) error
	// Root is the path under which the supervisor sees the programs' root
	// directory, without a trailing slash: "" for the host's own,
	// "/proc/N/root" inside namespaces. Prefix every path of a program with
	// it: a descriptor that was opened on another mount cannot be linked or
	// renamed by the program (EXDEV).
	Root() string
	// MapPath returns where a path of the image is in this restart: path
	// itself, but where a PathMapper says otherwise.
	MapPath(path string) string
	// Terminal returns a descriptor of the terminal of the command that
	// launched or restarted the tree, and false where it has none. It stays
	// the core's: duplicate it.
	Terminal() (fd int, ok bool)
	// Stdio returns descriptor 0, 1 or 2 of the launching or restarting
	// command, which the core owns: duplicate it.
	Stdio(n int) (fd int)
	// Ended makes a process of the tree that ends with the wait status, which
	// wait(2) describes, and is waited for. use is called while it lives, with
	// its id as the supervisor's /proc shows it, and may keep what outlives
	// it, as a pidfd. It is there in a restart only, until Running.
	Ended(ctx context.Context, status int, use func(hostPID int) error) error
	// Barrier waits until every agent of the computation has come to name.
	Barrier(ctx context.Context, name string) error
	// Publish makes val known under key, seen by Lookup after the next barrier.
	Publish(ctx context.Context, key string, val []byte) error
	// Lookup returns what was published, or an error where nothing was.
	Lookup(ctx context.Context, key string) ([]byte, error)
}
