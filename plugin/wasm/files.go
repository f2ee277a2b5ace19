package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/strictjson"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// The actions of abi.Mark, and that of abi.Own.
const (
	actionSave    = "save"
	actionSkip    = "skip"
	actionReopen  = "reopen"
	actionReplace = "replace"
	actionOwn     = "own"
)

// keptFlags are the flags of open(2) with which a file is opened again.
const keptFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_SYNC | unix.O_DSYNC | unix.O_DIRECT

// fileState is a description that the extension decided about.
type fileState struct {
	ID      int         `json:"id"`
	Refs    []abi.FDRef `json:"refs"`
	Action  string      `json:"action"`
	Path    string      `json:"path,omitempty"` // what is opened
	Flags   int         `json:"flags"`
	Pos     int64       `json:"pos"`
	Mode    uint32      `json:"mode"` // permissions, where the file has to be made
	Content []byte      `json:"content,omitempty"`
	Reopen  abi.Reopen  `json:"reopen,omitzero"` // of actionOwn
}

// filesFunctions list the open files of the tree, and mark them.
func filesFunctions() []hostFunction {
	return []hostFunction{
		{"list", "ii", true, func(c *call, a args) int32 {
			if !c.during("files.list", plugin.PreCheckpoint) {
				return abi.ErrNotAllowed
			}
			list := []abi.File{}
			for _, p := range c.event.Procs {
				files, err := openFiles(p)
				if err != nil {
					return c.fault(abi.ErrFailed, "%v", err)
				}
				list = append(list, files...)
			}
			return c.giveJSON(a.u32(0), a.u32(1), list)
		}},
		{"mark", "ii", true, func(c *call, a args) int32 {
			var m abi.Mark
			if err := c.decode(a.u32(0), a.u32(1), &m); err != nil {
				return c.fault(abi.ErrInvalid, "files.mark: %v", err)
			}
			wantsPath := m.Action == actionReopen || m.Action == actionReplace
			switch {
			case !slices.Contains([]string{actionSave, actionSkip, actionReopen, actionReplace}, m.Action):
				return c.fault(abi.ErrInvalid, "files.mark: unknown action %q", m.Action)
			case wantsPath != (m.Path != "") || wantsPath && !goodPath(m.Path):
				return c.fault(abi.ErrInvalid, "files.mark: %s, with the path %q", m.Action, m.Path)
			}
			return c.decide(m.PID, m.FD, fileState{Action: m.Action, Path: m.Path})
		}},
	}
}

// fdFunctions take descriptors over.
func fdFunctions() []hostFunction {
	return []hostFunction{
		{"own", "ii", true, func(c *call, a args) int32 {
			var o abi.Own
			if err := c.decode(a.u32(0), a.u32(1), &o); err != nil {
				return c.fault(abi.ErrInvalid, "fd.own: %v", err)
			}
			if err := checkReopen(o.Reopen); err != nil {
				return c.fault(abi.ErrInvalid, "fd.own: %v", err)
			}
			return c.decide(o.PID, o.FD, fileState{Action: actionOwn, Content: o.Bytes, Reopen: o.Reopen})
		}},
		{"saved", "iiii", true, func(c *call, a args) int32 {
			f, code := c.owned("fd.saved", a)
			if code != abi.OK {
				return code
			}
			return c.give(a.u32(2), a.u32(3), f.Content)
		}},
		{"reopen", "iiii", true, func(c *call, a args) int32 {
			f, code := c.owned("fd.reopen", a)
			if code != abi.OK {
				return code
			}
			var r abi.Reopen
			err := strictjson.Decode(strings.NewReader(c.text(a.u32(2), a.u32(3))), &r)
			if err == nil {
				err = checkReopen(r)
			}
			if err != nil {
				return c.fault(abi.ErrInvalid, "fd.reopen: %v", err)
			}
			if code := c.charge(reopenSize(r) - reopenSize(f.Reopen)); code != abi.OK {
				return code
			}
			f.Reopen = r
			return abi.OK
		}},
	}
}

// owned finds, in a restart, a descriptor that was owned.
func (c *call) owned(what string, a args) (*fileState, int32) {
	if !c.during(what, plugin.Restart) {
		return nil, abi.ErrNotAllowed
	}
	ref := abi.FDRef{PID: int(a.i32(0)), FD: int(a.i32(1))}
	files := c.in.ext.loaded
	for i := range files {
		if files[i].Action == actionOwn && slices.Contains(files[i].Refs, ref) {
			return &files[i], abi.OK
		}
	}
	return nil, c.fault(abi.ErrNotFound, "%s: pid %d fd %d is not the extension's", what, ref.PID, ref.FD)
}

// decide notes what becomes of a descriptor; TakeFile looks it up.
func (c *call) decide(pid, fd int, s fileState) int32 {
	if !c.during("a decision about a file", plugin.PreCheckpoint) {
		return abi.ErrNotAllowed
	}
	p, code := c.process(int32(pid))
	if code != abi.OK || fd < 0 || fd > math.MaxInt32 || !hasDescriptor(p, fd) {
		return c.fault(abi.ErrNotFound, "no process %d, or no descriptor %d", pid, fd)
	}
	ref := abi.FDRef{PID: pid, FD: fd}
	if code := c.charge(s.size() - c.in.ext.decided[ref].size()); code != abi.OK {
		return code
	}
	c.in.ext.decided[ref] = s
	return abi.OK
}

// hasDescriptor says no only where it is sure.
func hasDescriptor(p plugin.Process, fd int) bool {
	_, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", p.HostPID(), fd))
	return !errors.Is(err, fs.ErrNotExist)
}

// charge counts what is kept of all open files together, with the contents that
// TakeFile saves, against the limit of the state: each may be as large as the guest's
// memory, and there may be many.
func (c *call) charge(more int64) int32 {
	e := c.in.ext
	if limit := int64(e.mod.limits.State); more > 0 && more > limit-e.kept {
		return c.fault(abi.ErrLimit, "%d bytes more to keep of open files; %d are left of the limit", more, max(limit-e.kept, 0))
	}
	e.kept += more
	return abi.OK
}

// size is what the guest has given, but for paths, which are short.
func (s fileState) size() int64 { return int64(len(s.Content)) + reopenSize(s.Reopen) }

func reopenSize(r abi.Reopen) int64 { return int64(len(r.Connect) + len(r.Send)) }

func goodPath(path string) bool {
	return filepath.IsAbs(path) && !strings.ContainsRune(path, 0) && len(path) < unix.PathMax
}

func checkReopen(r abi.Reopen) error {
	given := 0
	for _, is := range []bool{r.Path != "", r.Connect != "", r.Stdio != nil} {
		if is {
			given++
		}
	}
	network, _, _ := strings.Cut(r.Connect, ":")
	switch {
	case given != 1:
		return errors.New("wants one of path, connect and stdio")
	case r.Path != "" && !goodPath(r.Path):
		return fmt.Errorf("path %q is not absolute", r.Path)
	case r.Connect != "" && network != "unix" && network != "tcp":
		return fmt.Errorf("connect %q: wants unix:/path or tcp:host:port", r.Connect)
	case r.Stdio != nil && (*r.Stdio < 0 || *r.Stdio > 2):
		return fmt.Errorf("stdio %d: wants 0, 1 or 2", *r.Stdio)
	}
	return nil
}

// openFiles lists the descriptors of a process.
func openFiles(p plugin.Process) ([]abi.File, error) {
	dir := "/proc/" + strconv.Itoa(p.HostPID())
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil, err
	}
	var list []abi.File
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f := abi.File{PID: p.PID(), FD: fd}
		var st unix.Stat_t
		if f.Link, err = os.Readlink(dir + "/fd/" + e.Name()); err != nil || unix.Stat(dir+"/fd/"+e.Name(), &st) != nil {
			continue
		}
		f.Type, f.Size, f.Inode = typeName(st.Mode), st.Size, st.Ino
		info, _ := os.ReadFile(dir + "/fdinfo/" + e.Name())
		for line := range strings.Lines(string(info)) { // proc_pid_fdinfo(5)
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch value = strings.TrimSpace(value); key {
			case "pos":
				f.Pos, _ = strconv.ParseInt(value, 10, 64)
			case "flags":
				flags, _ := strconv.ParseInt(value, 8, 64)
				f.Flags = int(flags)
			}
		}
		list = append(list, f)
	}
	return list, nil
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "other"
}

// TakeFile implements plugin.FileTaker: the extension has what it decided
// about.
func (e *extension) TakeFile(_ context.Context, f plugin.OpenFile) error {
	for _, ref := range f.Refs {
		s, ok := e.decided[abi.FDRef{PID: ref.PID, FD: ref.FD}]
		if !ok {
			continue
		}
		s.ID, s.Flags, s.Pos, s.Mode = f.ID, f.Flags&keptFlags, f.Pos, f.Stat.Mode&0o777
		for _, r := range f.Refs {
			s.Refs = append(s.Refs, abi.FDRef{PID: r.PID, FD: r.FD})
		}
		if err := e.saveFile(f, &s); err != nil {
			return err
		}
		e.taken = append(e.taken, s)
		return nil
	}
	return plugin.ErrNotMine
}

// saveFile saves what the action needs.
func (e *extension) saveFile(f plugin.OpenFile, s *fileState) error {
	if s.Action == actionOwn {
		if slices.ContainsFunc(f.Refs, func(r plugin.FileRef) bool { return r.Locked }) {
			return plugin.Refuse(f, "extension %s owns it, and there are POSIX locks on it", e.mod.Name)
		}
		return nil
	}
	regular := f.Stat.Mode&unix.S_IFMT == unix.S_IFREG
	switch {
	case strings.Contains(string(f.FDInfo), "\nlock:"):
		return plugin.Refuse(f, "it is locked, and extension %s wants to %s it", e.mod.Name, s.Action)
	case s.Action != actionReopen && (!regular || f.Stat.Nlink == 0):
		return plugin.Refuse(f, "extension %s wants to %s it, which goes for regular files that have a name", e.mod.Name, s.Action)
	}
	if s.Path == "" {
		s.Path = f.Link
	}
	if s.Action != actionSave && s.Action != actionReplace {
		return nil
	}
	limit := int64(e.mod.limits.State)
	if f.Stat.Size > limit-e.kept {
		return plugin.Refuse(f, "extension %s wants to save its %d bytes; %d are left of its limit (state)", e.mod.Name, f.Stat.Size, limit-e.kept)
	}
	// Another description: this one may be open for writing only.
	file, err := os.Open(e.host.Root() + f.Link)
	if err != nil {
		return plugin.Refuse(f, "extension %s wants to save it: %v", e.mod.Name, err)
	}
	defer file.Close()
	if s.Content, err = io.ReadAll(io.LimitReader(file, limit-e.kept)); err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	e.kept += int64(len(s.Content))
	return nil
}

// ClaimFile implements plugin.FileClaimer: see TakeFile.
func (e *extension) ClaimFile(context.Context, plugin.OpenFile) error { return plugin.ErrNotMine }

// ReopenFile implements plugin.FileClaimer.
func (e *extension) ReopenFile(ctx context.Context, f plugin.OpenFile) (int, error) {
	i := slices.IndexFunc(e.loaded, func(s fileState) bool { return s.ID == f.ID })
	if i < 0 {
		return -1, fmt.Errorf("open file %d is not in the extension's state", f.ID)
	}
	s := e.loaded[i]
	switch s.Action {
	case actionOwn:
		return e.remake(ctx, s)
	case actionSave, actionReplace:
		if err := e.writeContent(s); err != nil {
			return -1, err
		}
	}
	return e.open(s, s.Path)
}

// open opens a path as the description was; it makes the file where it is
// gone.
func (e *extension) open(s fileState, path string) (int, error) {
	flags := s.Flags | unix.O_CLOEXEC | unix.O_NOCTTY
	full := e.host.Root() + path
	fd, err := unix.Open(full, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = unix.Open(full, flags|unix.O_CREAT, s.Mode|0o600)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		// Not behind the end: a hole would come of it.
		_, err = unix.Seek(fd, min(s.Pos, st.Size), unix.SEEK_SET)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("seek in %s: %w", path, err)
		}
	}
	return fd, nil
}

// writeContent writes a file whole or not at all.
func (e *extension) writeContent(s fileState) error {
	full := e.host.Root() + s.Path
	tmp, err := os.CreateTemp(filepath.Dir(full), ".hiatus-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // ENOENT after the rename
	_, err = tmp.Write(s.Content)
	err = errors.Join(err, tmp.Chmod(fs.FileMode(s.Mode&0o777)), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), full)
}

// remake makes what an owned descriptor refers to.
func (e *extension) remake(ctx context.Context, s fileState) (fd int, err error) {
	switch r := s.Reopen; {
	case r.Path != "":
		fd, err = e.open(s, r.Path)
	case r.Stdio != nil:
		fd, err = unix.FcntlInt(uintptr(e.host.Stdio(*r.Stdio)), unix.F_DUPFD_CLOEXEC, 3)
	default:
		fd, err = e.connect(ctx, r.Connect)
	}
	if err == nil && len(s.Reopen.Send) > 0 {
		err = e.sendFirst(fd, s)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("pid %d fd %d: %w", s.Refs[0].PID, s.Refs[0].FD, err)
	}
	return fd, nil
}

// sendFirst writes what the program is to find. Where its descriptor is for
// reading only, it is written by another one, behind the file's end.
func (e *extension) sendFirst(fd int, s fileState) error {
	if s.Reopen.Path == "" || s.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return writeAll(fd, s.Reopen.Send)
	}
	w, err := unix.Open(e.host.Root()+s.Reopen.Path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s for writing: %w", s.Reopen.Path, err)
	}
	defer unix.Close(w)
	return writeAll(w, s.Reopen.Send)
}

func (e *extension) connect(ctx context.Context, where string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, e.mod.limits.Deadline)
	defer cancel()
	network, address, _ := strings.Cut(where, ":")
	if network == "unix" && filepath.IsAbs(address) {
		address = e.host.Root() + address
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	raw, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return -1, err
	}
	defer raw.Close()
	fd, err := unix.FcntlInt(raw.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	return fd, err
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// check validates what an image says of a file.
func (s fileState) check() error {
	switch {
	case s.ID < 0 || len(s.Refs) == 0:
		return errors.New("no id, or no descriptor")
	case s.Flags&^keptFlags != 0 || s.Pos < 0 || s.Mode&^0o777 != 0:
		return fmt.Errorf("flags %#x, position %d, mode %#o", s.Flags, s.Pos, s.Mode)
	case s.Action == actionOwn:
		return checkReopen(s.Reopen)
	case !slices.Contains([]string{actionSave, actionSkip, actionReopen, actionReplace}, s.Action):
		return fmt.Errorf("unknown action %q", s.Action)
	case !goodPath(s.Path):
		return fmt.Errorf("path %q is not absolute", s.Path)
	}
	return nil
}

var (
	_ plugin.FileClaimer = (*extension)(nil)
	_ plugin.FileTaker   = (*extension)(nil)
)
