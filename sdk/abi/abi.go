// Package abi has the names and numbers of the WASM ABI of extensions, which
// ABI.md describes. They are append-only: what stands here keeps its meaning
// for as long as version 1 is supported.
package abi

import "strings"

// Version is the version of the ABI that this package describes.
const Version = 1

// Base is the import module that every extension may use. Capabilities are
// import modules of their own: Base + "/" + the capability's name.
const Base = "hiatus/1"

// The exports of a guest.
const (
	ExportMemory = "memory"
	ExportInit   = "hiatus_init"
	ExportEvent  = "hiatus_event"
	ExportStart  = "_initialize" // of WASI reactors; called once, before ExportInit
)

// The capabilities.
const (
	Coord    = "coord"
	MemRead  = "mem.read"
	MemWrite = "mem.write"
	Env      = "env"
	Files    = "files"
	Path     = "path"
	FD       = "fd"
	Exec     = "exec"
	Hold     = "hold"
	HTTP     = "http"
)

// Capabilities lists them all.
func Capabilities() []string {
	return []string{Coord, MemRead, MemWrite, Env, Files, Path, FD, Exec, Hold, HTTP}
}

// Module is the import module of a capability.
func Module(capability string) string { return Base + "/" + capability }

// Capability is the inverse of Module: it returns the version and the
// capability of an import module, "" for the base module. ok is false where
// the module is none of this ABI, in whatever version.
func Capability(module string) (version, capability string, ok bool) {
	rest, ok := strings.CutPrefix(module, "hiatus/")
	if !ok {
		return "", "", false
	}
	version, capability, _ = strings.Cut(rest, "/")
	return version, capability, true
}

// Kind is what an event tells: the numbers of plugin.Kind.
type Kind uint32

// The kinds of events.
const (
	PreSuspend    Kind = iota + 1 // threads still run
	PreCheckpoint                 // threads are stopped: save
	Resume                        // the state is saved, or the checkpoint was given up
	Restart                       // processes exist, without memory and descriptors
	Running                       // after a restart: threads are about to run
	Launch                        // a tree begins
	Exit                          // a tree has ended
	Outcome                       // a checkpoint was committed or given up; threads run
)

// Kinds lists them all.
func Kinds() []Kind {
	return []Kind{PreSuspend, PreCheckpoint, Resume, Restart, Running, Launch, Exit, Outcome}
}

// String returns the name that stands in the JSON of an event.
func (k Kind) String() string {
	names := [...]string{"", "presuspend", "precheckpoint", "resume", "restart", "running", "launch", "exit", "outcome"}
	if int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// What hiatus_init and hiatus_event return.
const (
	OK     = 0
	Failed = 1 // the reason was given to fail
	Skip   = 2 // init: not needed here; event: nothing to do
)

// What host functions return in place of a length or of 0.
const (
	ErrNotFound   = -1 // there is no such thing
	ErrInvalid    = -2 // an argument makes no sense
	ErrNotAllowed = -3 // not granted to this extent, or not during this event
	ErrFailed     = -4 // it was tried and failed
	ErrLimit      = -5 // a limit of the extension is reached
)

// Levels of log.
const (
	LevelTrace = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

// Event is the JSON that the function event gives.
type Event struct {
	Kind       string    `json:"kind"`
	Generation uint64    `json:"generation"` // 0 at launch
	Processes  []Process `json:"processes"`  // parents first; none at presuspend, launch, exit and outcome
	Outcome    *Figures  `json:"outcome,omitempty"`
}

// Process is one process of the tree. At restart it has no program yet: Argv,
// Exe and Cwd are empty.
type Process struct {
	PID     int      `json:"pid"`  // as the program sees it
	PPID    int      `json:"ppid"` // 0: not in the tree
	Argv    []string `json:"argv,omitempty"`
	Exe     string   `json:"exe,omitempty"`
	Cwd     string   `json:"cwd,omitempty"`
	Threads int      `json:"threads"`
}

// Figures is how a checkpoint ended. Times are in nanoseconds.
type Figures struct {
	Committed bool   `json:"committed"`
	Reason    string `json:"reason,omitempty"` // why it was given up
	Dir       string `json:"dir,omitempty"`    // of the agent's files
	Bytes     int64  `json:"bytes"`
	RawBytes  int64  `json:"raw_bytes"`
	Pause     int64  `json:"pause_ns"`
	Total     int64  `json:"total_ns"`
	Processes int    `json:"processes"`
	Threads   int    `json:"threads"`
}

// File is one descriptor of a process in the JSON of files.list.
type File struct {
	PID   int    `json:"pid"`
	FD    int    `json:"fd"`
	Link  string `json:"link"` // as /proc/PID/fd shows it
	Type  string `json:"type"` // file, dir, char, block, fifo, socket, other
	Flags int    `json:"flags"`
	Pos   int64  `json:"pos"`
	Size  int64  `json:"size"`
	Inode uint64 `json:"inode"`
}

// FDRef is a descriptor.
type FDRef struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
}

// Mark is the JSON that files.mark takes. It goes for the open file description
// and all its descriptors.
type Mark struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
	// Action is "save" (keep the content, and write it back at the restart),
	// "skip" (the content is not the image's: the file is opened as it is
	// then, made anew and empty if it is gone), "reopen" (open Path instead)
	// or "replace" (write the saved content to Path and open that).
	Action string `json:"action"`
	Path   string `json:"path,omitempty"` // of reopen and replace; absolute
}

// Own is the JSON that fd.own takes: a descriptor that the extension keeps.
type Own struct {
	PID    int    `json:"pid"`
	FD     int    `json:"fd"`
	Bytes  []byte `json:"bytes,omitempty"` // kept in the image, for fd.saved
	Reopen Reopen `json:"reopen"`          // unless fd.reopen says otherwise at the restart
}

// Reopen says what a descriptor is made of at a restart: one of its fields.
type Reopen struct {
	Path    string `json:"path,omitempty"`    // a file, opened with the flags of the descriptor
	Connect string `json:"connect,omitempty"` // "unix:/path", "tcp:host:port"
	Stdio   *int   `json:"stdio,omitempty"`   // descriptor 0, 1 or 2 of the restarting command
	Send    []byte `json:"send,omitempty"`    // written to it first; to the end of a file that is opened for reading only
}

// Mapping is one mapping in the JSON of mem.read's maps.
type Mapping struct {
	Start  uint64 `json:"start,string"`
	End    uint64 `json:"end,string"`
	Perms  string `json:"perms"` // as in /proc/PID/maps: rwxp
	Offset uint64 `json:"offset,string"`
	Path   string `json:"path,omitempty"`
}

// Command is the JSON that exec.run takes.
type Command struct {
	Args  []string `json:"args"` // the first is an absolute path that was granted
	Stdin []byte   `json:"stdin,omitempty"`
	Env   []string `json:"env,omitempty"` // added to the agent's
	Dir   string   `json:"dir,omitempty"`
}

// CommandResult is what exec.run gives.
type CommandResult struct {
	Code   int    `json:"code"` // 128+n where signal n ended it
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
}

// Request is the JSON that http.request takes.
type Request struct {
	Method string            `json:"method,omitempty"` // GET
	URL    string            `json:"url"`
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`
}

// Response is what http.request gives.
type Response struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`
}

// EnvChange is one line of the JSON list that env.change takes: Value nil
// removes the variable.
type EnvChange struct {
	Name  string  `json:"name"`
	Value *string `json:"value"`
}
