package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/sigio"
	"github.com/hiatus-project/hiatus/internal/strictjson"
	"github.com/hiatus-project/hiatus/plugin"
)

// stateFormat is the one format so far.
const stateFormat = 1

// Limits of what Load accepts.
const (
	maxPath     = 1 << 16
	maxCapacity = 1 << 30 // of a pipe, in bytes; the kernel's own limit is 1<<31
	maxPtyData  = 1 << 17
	maxIndex    = 1 << 20 // NR_UNIX98_PTY_MAX
)

// state is what the image holds.
type state struct {
	Files    map[int]*file `json:"files,omitempty"` // by plugin.OpenFile's ID
	Inodes   []*inode      `json:"inodes,omitempty"`
	Pipes    []*pipe       `json:"pipes,omitempty"`
	Ptys     []*pty        `json:"ptys,omitempty"`
	Locks    []processLock `json:"locks,omitempty"`
	Terminal *termios      `json:"terminal,omitempty"` // of the launching terminal
	// Ended says that the program did not run on after the checkpoint, so
	// that it was not the program that changed a file since.
	Ended bool `json:"ended,omitempty"`
}

func (s *state) add(id int, f *file) {
	if s.Files == nil {
		s.Files = make(map[int]*file)
	}
	s.Files[id] = f
}

// kind says how a description is made again.
type kind string

const (
	kindPath      kind = "path" // O_PATH
	kindRegular   kind = "regular"
	kindDirectory kind = "directory"
	kindDevice    kind = "device"
	kindDeleted   kind = "deleted"  // Index is in state.Inodes
	kindNamed     kind = "named"    // its content is saved; Index is in state.Inodes
	kindStdio     kind = "stdio"    // of the launching command
	kindTerminal  kind = "terminal" // of the launching command, opened by the program
	kindPipe      kind = "pipe"     // or a FIFO; Index is in state.Pipes
	kindPtmx      kind = "ptmx"     // Index is in state.Ptys
	kindPts       kind = "pts"      // Index is in state.Ptys
	kindHungUp    kind = "hungup"   // a slave whose master is closed
)

// file is one open file description.
type file struct {
	Kind     kind     `json:"kind"`
	Path     pathname `json:"path"`
	Flags    int      `json:"flags"` // of open(2)
	Pos      int64    `json:"pos,omitempty"`
	Was      identity `json:"was"`
	Virtual  bool     `json:"virtual,omitempty"`  // of /proc or /sys: size and times mean nothing
	Index    int      `json:"index,omitempty"`    // of the object, see kind
	Stdio    int      `json:"stdio,omitempty"`    // 0, 1 or 2 of the launching command
	Reopened bool     `json:"reopened,omitempty"` // stdio: a description of its own
	Unread   int      `json:"unread,omitempty"`   // stdio: bytes that the program had still to read
	// Inherited says that whoever launched the computation has the file, too.
	Inherited bool         `json:"inherited,omitempty"`
	fresh     bool         // in a restart: another file, which may not be there yet
	Locks     []lock       `json:"locks,omitempty"`
	Async     *sigio.Owner `json:"async,omitempty"`
}

// identity is what stat(2) said at the checkpoint.
type identity struct {
	Dev   uint64 `json:"dev,string"`
	Ino   uint64 `json:"ino,string"`
	Rdev  uint64 `json:"rdev,string"`
	Mode  uint32 `json:"mode"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime,string"` // ns since 1970
}

// The flags of open(2) that are kept. The kernel forgets O_CREAT, O_EXCL,
// O_TRUNC and O_NOCTTY itself, and O_LARGEFILE is always set.
const (
	statusFlags = unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME // of F_SETFL, without O_ASYNC
	keptFlags   = unix.O_ACCMODE | statusFlags | unix.O_SYNC | unix.O_PATH |
		unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_ASYNC
)

func newFile(k kind, f plugin.OpenFile) *file {
	return &file{
		Kind:      k,
		Path:      pathname(f.Link),
		Flags:     keptOf(f),
		Pos:       f.Pos,
		Inherited: f.Inherited > 0,
		Was: identity{
			Dev:   uint64(f.Stat.Dev),
			Ino:   f.Stat.Ino,
			Rdev:  uint64(f.Stat.Rdev),
			Mode:  f.Stat.Mode,
			Size:  f.Stat.Size,
			Mtime: f.Stat.Mtim.Nano(),
		},
	}
}

// keptOf returns the flags to open f with. O_TMPFILE leaves O_DIRECTORY behind,
// with which open(2) takes nothing but directories.
func keptOf(f plugin.OpenFile) int {
	flags := f.Flags & keptFlags
	if f.Stat.Mode&unix.S_IFMT == unix.S_IFREG {
		flags &^= unix.O_DIRECTORY
	}
	return flags
}

// access is O_RDONLY, O_WRONLY or O_RDWR.
func (f *file) access() int    { return f.Flags & unix.O_ACCMODE }
func (f *file) readable() bool { return f.access() == unix.O_RDONLY || f.access() == unix.O_RDWR }
func (f *file) writable() bool { return f.access() == unix.O_WRONLY || f.access() == unix.O_RDWR }

// pathname is a string of bytes, as the kernel keeps names: see
// strictjson.MarshalBytes.
type pathname string

func (p pathname) MarshalJSON() ([]byte, error) { return strictjson.MarshalBytes(string(p)) }

func (p *pathname) UnmarshalJSON(b []byte) error {
	s, err := strictjson.UnmarshalBytes(b)
	if err == nil {
		*p = pathname(s)
	}
	return err
}

// Save writes the state.
func (p *Plugin) Save(_ context.Context, w io.Writer) error {
	if err := p.saving.unresolved(); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(p.state)
}

// Load reads and validates a state.
func (p *Plugin) Load(_ context.Context, format uint16, r io.Reader) error {
	if format != stateFormat {
		return fmt.Errorf("file: state format %d is unknown, want %d", format, stateFormat)
	}
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return fmt.Errorf("file: state: %w", err)
	}
	if err := s.validate(); err != nil {
		return fmt.Errorf("file: state: %w", err)
	}
	p.state = s
	return nil
}

func (s *state) validate() error {
	for id, f := range s.Files {
		if err := s.validateFile(f); err != nil {
			return fmt.Errorf("open file %d: %w", id, err)
		}
	}
	for i, d := range s.Inodes {
		if err := d.validate(); err != nil {
			return fmt.Errorf("inode %d: %w", i, err)
		}
	}
	for i, q := range s.Pipes {
		if err := q.validate(); err != nil {
			return fmt.Errorf("pipe %d: %w", i, err)
		}
	}
	seen := map[uint32]bool{}
	for i, t := range s.Ptys {
		if err := t.validate(); err != nil {
			return fmt.Errorf("pty %d: %w", i, err)
		}
		if seen[t.Number] {
			return fmt.Errorf("pty %d: number %d twice", i, t.Number)
		}
		seen[t.Number] = true
	}
	for i, l := range s.Locks {
		if l.PID <= 0 || l.FD < 0 {
			return fmt.Errorf("lock %d: pid %d fd %d", i, l.PID, l.FD)
		}
		if err := l.validate(lockPOSIX); err != nil {
			return fmt.Errorf("lock %d: %w", i, err)
		}
	}
	return nil
}

func (s *state) validateFile(f *file) error {
	if f == nil {
		return errors.New("null")
	}
	objects := 1
	wantPath := false
	switch f.Kind {
	case kindPath, kindRegular, kindDirectory, kindDevice:
		wantPath = true
	case kindDeleted, kindNamed:
		objects = len(s.Inodes)
		wantPath = f.Kind == kindNamed
	case kindPipe:
		objects = len(s.Pipes)
	case kindPtmx, kindPts:
		objects = len(s.Ptys)
	case kindStdio, kindTerminal, kindHungUp:
	default:
		return fmt.Errorf("unknown kind %q", f.Kind)
	}
	if wantPath {
		if err := f.Path.validate(); err != nil {
			return err
		}
	}
	switch {
	case f.Index < 0 || f.Index >= objects:
		return fmt.Errorf("index %d of %d", f.Index, objects)
	case f.Flags&^keptFlags != 0:
		return fmt.Errorf("flags %#o", f.Flags)
	case f.Pos < 0:
		return fmt.Errorf("offset %d", f.Pos)
	case f.Stdio < 0 || f.Stdio > 2:
		return fmt.Errorf("standard descriptor %d", f.Stdio)
	}
	for _, l := range f.Locks {
		if err := l.validate(lockFLOCK, lockOFD, lockLease); err != nil {
			return err
		}
	}
	return f.Async.Validate()
}

// validate accepts what can be opened below a root: an absolute path.
func (p pathname) validate() error {
	if len(p) == 0 || p[0] != '/' {
		return fmt.Errorf("path %q is not absolute", string(p))
	}
	if len(p) > maxPath {
		return fmt.Errorf("path of %d bytes, at most %d", len(p), maxPath)
	}
	for i := range len(p) {
		if p[i] == 0 {
			return fmt.Errorf("path %q has a zero byte", string(p))
		}
	}
	return nil
}
