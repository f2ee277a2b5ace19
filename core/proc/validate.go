package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/strictjson"
)

// StateVersion is the version of the engine's section.
const StateVersion = 1

// SectionName is the name of the engine's section in an image.
const SectionName = "engine"

// Encode returns the section's payload.
func (st *State) Encode() ([]byte, error) { return json.Marshal(st) }

// DecodeState reads and validates a payload: it may be damaged or hostile.
func DecodeState(version uint16, payload []byte) (*State, error) {
	if version != StateVersion {
		return nil, fmt.Errorf("engine section: version %d is not known here (%d is)", version, StateVersion)
	}
	st := new(State)
	if err := strictjson.Decode(bytes.NewReader(payload), st); err != nil {
		return nil, fmt.Errorf("engine section: %w", err)
	}
	if err := st.validate(); err != nil {
		return nil, fmt.Errorf("engine section: %w", err)
	}
	return st, nil
}

const (
	maxPID     = 1 << 22         // PID_MAX_LIMIT
	maxAddress = uint64(1) << 63 // no user address is above
	maxFD      = 1 << 30
	maxName    = 64 // TASK_COMM_LEN is 16
)

func (st *State) validate() error {
	if len(st.Processes) == 0 {
		return errors.New("no processes")
	}
	if st.Reaper <= 0 || st.Reaper >= maxPID {
		return fmt.Errorf("reaper %d", st.Reaper)
	}
	alive, threads, err := st.validateIDs()
	if err != nil {
		return err
	}
	if err := st.validateFiles(alive); err != nil {
		return err
	}
	for i := range st.Processes {
		p := &st.Processes[i]
		if p.Space != uint32(i) || threads[p.PGID] || threads[p.SID] {
			return fmt.Errorf("process %d: space %d, group %d, session %d", p.PID, p.Space, p.PGID, p.SID)
		}
		if err := st.validateProcess(p); err != nil {
			return fmt.Errorf("process %d: %w", p.PID, err)
		}
	}
	for _, p := range st.Places {
		if !cleanPath(p.Path) || p.Mode&^0o7777 != 0 || p.UID < 0 || p.GID < 0 {
			return fmt.Errorf("place %+v", p)
		}
	}
	if err := errors.Join(st.validateExes(), st.validateVdso(), st.CPU.validate(extraNotes[0].room)); err != nil {
		return err
	}
	for _, inherit := range []bool{true, false} {
		if _, err := st.plan(inherit); err != nil {
			return err
		}
	}
	return nil
}

// validateIDs makes sure that each id stands once and that parents stand
// before their children. It returns the processes that live, and the ids of
// threads that are no processes.
func (st *State) validateIDs() (alive, threads map[int]bool, err error) {
	alive, threads = map[int]bool{}, map[int]bool{}
	ids := map[int]bool{st.Reaper: true}
	take := func(id int) error {
		if id <= 0 || id >= maxPID || ids[id] {
			return fmt.Errorf("id %d is impossible or stands twice", id)
		}
		ids[id] = true
		return nil
	}
	for i := range st.Processes {
		p := &st.Processes[i]
		if err := take(p.PID); err != nil {
			return nil, nil, err
		}
		if p.PPID != 0 && !alive[p.PPID] {
			return nil, nil, fmt.Errorf("process %d: no living parent %d stands before it", p.PID, p.PPID)
		}
		alive[p.PID] = !p.Zombie
		for j, t := range p.Threads {
			if j == 0 && t.TID == p.PID && !p.LeaderGone {
				continue
			}
			if t.TID == p.PID {
				return nil, nil, fmt.Errorf("process %d: threads without a leader, or with two of id %d", p.PID, t.TID)
			}
			if err := take(t.TID); err != nil {
				return nil, nil, err
			}
			threads[t.TID] = true
		}
	}
	return alive, threads, nil
}

func (st *State) validateProcess(p *ProcessState) error {
	if p.PGID < 0 || p.PGID >= maxPID || p.SID < 0 || p.SID >= maxPID {
		return fmt.Errorf("group %d, session %d", p.PGID, p.SID)
	}
	if len(p.Comm) > maxName {
		return errors.New("name too long")
	}
	if s := p.ExitSignal; s != nil && (*s < 0 || *s > nsig) {
		return fmt.Errorf("exit signal %d", *s)
	}
	if !p.validStop() {
		return fmt.Errorf("stopped by signal %d", p.StopSignal)
	}
	if p.Zombie {
		return validateZombie(p)
	}
	if len(p.Threads) == 0 || p.LeaderGone == (p.Threads[0].TID == p.PID) {
		return errors.New("threads without a leader")
	}
	if !cleanPath(p.Exe) || !cleanPath(p.Cwd) || p.Root != "" && !cleanPath(p.Root) || p.CwdGone != nil && *p.CwdGone&^0o7777 != 0 {
		return fmt.Errorf("paths %q, %q, %q", p.Exe, p.Cwd, p.Root)
	}
	if len(p.Actions) != nsig || len(p.Limits) != rlimNlimits {
		return fmt.Errorf("%d signal actions, %d limits", len(p.Actions), len(p.Limits))
	}
	for _, a := range p.Actions {
		if len(a) != sigactionBytes {
			return errors.New("a signal action of the wrong size")
		}
	}
	if err := validateSignals(p.Pending); err != nil {
		return err
	}
	const maxAuxv = 4096
	if len(p.Auxv) > maxAuxv {
		return errors.New("auxiliary vector too long")
	}
	for i := range p.Threads {
		if err := validateThread(&p.Threads[i]); err != nil {
			return fmt.Errorf("thread %d: %w", p.Threads[i].TID, err)
		}
	}
	if p.UTS < 0 || p.UTS > len(st.UTS) {
		return fmt.Errorf("UTS namespace %d", p.UTS)
	}
	if err := validateFS(p); err != nil {
		return err
	}
	return st.validateMaps(p)
}

// harmless are the signals that end nobody: a zombie was not ended by one.
const harmless = 1<<(unix.SIGCHLD-1) | 1<<(unix.SIGCONT-1) | 1<<(unix.SIGSTOP-1) | 1<<(unix.SIGTSTP-1) |
	1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1) | 1<<(unix.SIGURG-1) | 1<<(unix.SIGWINCH-1)

func validateZombie(p *ProcessState) error {
	if !isEnd(p.ExitCode) || p.Stopped || len(p.Threads)+len(p.Maps) > 0 {
		return fmt.Errorf("a zombie with the wait status %#x", p.ExitCode)
	}
	return nil
}

// isEnd says whether a process can end with the wait status.
func isEnd(status int) bool {
	ws := unix.WaitStatus(status)
	return status>>16 == 0 && (ws.Exited() || ws.Signaled() && int(ws.Signal()) <= nsig && harmless&sigBit(ws.Signal()) == 0)
}

func validateThread(t *ThreadState) error {
	const stackT = 24
	if len(t.CPUs) > maxCPUBytes {
		return errors.New("an affinity of too many processors")
	}
	if len(t.AltStack) != stackT || len(t.Comm) > maxName {
		return errors.New("incomplete")
	}
	if t.Rest < 0 || t.Rest > maxRest {
		return fmt.Errorf("a time-out of %v", t.Rest)
	}
	if err := validateRegsets(t.Extra); err != nil {
		return err
	}
	if err := t.Seccomp.validate(); err != nil {
		return err
	}
	return validateSignals(t.Pending)
}

func validateSignals(list [][]byte) error {
	for _, s := range list {
		if len(s) != siginfoSize {
			return fmt.Errorf("a pending signal of %d bytes", len(s))
		}
		if sig := le.Uint32(s); sig == 0 || sig > nsig || sig == uint32(unix.SIGKILL) || sig == uint32(unix.SIGSTOP) {
			return fmt.Errorf("pending signal %d", sig)
		}
	}
	return nil
}

func (st *State) validateMaps(p *ProcessState) error {
	page := uint64(os.Getpagesize())
	end := uint64(0)
	for i := range p.Maps {
		m := &p.Maps[i]
		if m.Start%page != 0 || m.End%page != 0 || m.Offset%page != 0 || m.Start < end || m.End <= m.Start || m.End > maxAddress {
			return fmt.Errorf("mapping %x-%x", m.Start, m.End)
		}
		end = m.End
		if err := st.validateMap(m); err != nil {
			return fmt.Errorf("mapping %x-%x: %w", m.Start, m.End, err)
		}
	}
	return nil
}

func (st *State) validateMap(m *MapState) error {
	switch m.Kind {
	case MapAnon, MapVdso, MapPlugin:
		if m.Ref != 0 {
			return fmt.Errorf("reference %d of memory without one", m.Ref)
		}
		return nil
	case MapFile:
		if m.Ref < 0 || m.Ref >= len(st.Refs) || st.Refs[m.Ref].Path != m.Path {
			return fmt.Errorf("path %q of reference %d", m.Path, m.Ref)
		}
		return nil
	case MapObject, MapAttach:
		if m.Ref >= 0 && m.Ref < len(st.Objects) && st.Objects[m.Ref].Attached != (m.Kind == MapAttach) {
			return fmt.Errorf("reference %d to memory of another kind", m.Ref)
		}
		if m.Ref < 0 || m.Ref >= len(st.Objects) || m.Offset+m.End-m.Start > st.Objects[m.Ref].Size || m.Offset > maxAddress {
			return fmt.Errorf("reference %d, offset %#x", m.Ref, m.Offset)
		}
		return nil
	}
	return fmt.Errorf("kind %q", m.Kind)
}

func (st *State) validateFiles(pids map[int]bool) error {
	type key struct{ pid, fd int }
	seen := map[key]bool{}
	ids := map[int]bool{}
	for _, f := range st.Files {
		if ids[f.ID] || f.Owner == "" || f.Held != (len(f.Refs) == 0) {
			return fmt.Errorf("open file %d: stands twice, or has no owner or descriptor", f.ID)
		}
		ids[f.ID] = true
		for _, r := range f.Refs {
			k := key{r.PID, r.FD}
			if !pids[r.PID] || r.FD < 0 || r.FD > maxFD || seen[k] {
				return fmt.Errorf("open file %d: descriptor %d of process %d", f.ID, r.FD, r.PID)
			}
			seen[k] = true
		}
	}
	if err := st.validateTables(ids); err != nil {
		return err
	}
	for i, o := range st.Objects {
		if o.Space != uint32(len(st.Processes)+i) || o.Size > maxAddress || o.File != 0 && !ids[o.File] {
			return fmt.Errorf("object %d: space %d, size %#x, file %d", i, o.Space, o.Size, o.File)
		}
	}
	if err := st.validateContents(); err != nil {
		return err
	}
	for _, f := range st.Refs {
		if !cleanPath(f.Path) || f.Size < 0 || f.Size > 1<<50 || len(f.Content) > smallFile || f.Carried && f.Write {
			return fmt.Errorf("mapped file of path %.100q", f.Path)
		}
		if f.Mode&^0o7777 != 0 || !f.Owner.Valid() || f.Directory.Check() != nil {
			return fmt.Errorf("mapped file %.100q of mode %#o and owner %+v in %+v", f.Path, f.Mode, f.Owner, f.Directory)
		}
	}
	return nil
}

func cleanPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && !strings.ContainsRune(p, 0) && len(p) < unix.PathMax
}

// CheckHost refuses an image that could not run here, before anything is
// made. All findings are joined.
func (st *State) CheckHost() error {
	var errs []error
	if st.Arch != arch {
		return fmt.Errorf("the image was made on %s, this is %s", st.Arch, arch)
	}
	if uid := os.Geteuid(); uid != st.Uid {
		return fmt.Errorf("the image belongs to user %d, not to user %d", st.Uid, uid)
	}
	errs = append(errs, st.checkVdso(), st.checkXSave())
	return errors.Join(errs...)
}

// MapPaths has the image refer to files where they are now.
func (st *State) MapPaths(now func(path string) string) {
	for i := range st.Processes {
		p := &st.Processes[i]
		for _, path := range []*string{&p.Cwd, &p.Root, &p.Exe} {
			if *path != "" {
				*path = now(*path)
			}
		}
		for j := range p.Threads {
			if fs := p.Threads[j].FS; fs != nil {
				fs.Cwd = now(fs.Cwd)
			}
		}
		for j := range p.Maps {
			if m := &p.Maps[j]; m.Kind == MapFile {
				m.Path = now(m.Path)
			}
		}
	}
	for i := range st.Refs {
		st.Refs[i].Path = now(st.Refs[i].Path)
	}
	for i := range st.Places {
		st.Places[i].Path = now(st.Places[i].Path)
	}
	for i := range st.Exes {
		st.Exes[i].Path = now(st.Exes[i].Path)
	}
}

// IsOfThisBoot says whether the state is of this host, since its last boot.
func (st *State) IsOfThisBoot() bool { return st.BootID == bootID() }

// CheckPaths refuses an image whose mapped files have changed and are not in
// it, or whose directories are not there. All findings are joined.
func (st *State) CheckPaths() error {
	var errs []error
	here := st.IsOfThisBoot()
	for i := range st.Refs {
		errs = append(errs, st.Refs[i].check(here))
	}
	for i := range st.Processes {
		if p := &st.Processes[i]; !p.Zombie {
			errs = append(errs, st.checkDirectories(p))
		}
	}
	return errors.Join(errs...)
}

// Written lists the files that the program writes to through its memory and has not open, which a
// plugin would look after, and that have changed since the image was made: they stay as they are. What
// is written to a page that was not written back before it does not show (mm/memory.c, page_mkwrite), nor
// what is written on tmpfs.
func (st *State) Written() (paths []string) {
	for i := range st.Refs {
		f := &st.Refs[i]
		var s unix.Stat_t
		if !f.Write || f.Mtime.IsZero() || unix.Stat(f.Path, &s) != nil || s.Size == f.Size && timeOf(s.Mtim).Equal(f.Mtime) {
			continue
		}
		if !slices.ContainsFunc(st.Files, func(o FileState) bool { return o.Link == f.Path }) {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// check tells whether a mapped file still has the bytes the image refers to, or
// else is made from it.
func (f *MappedFile) check(here bool) error {
	err := f.compare(here)
	f.remake = err != nil && f.Carried
	switch {
	case err == nil || f.remake:
		return nil
	case f.Write && f.Size <= smallFile:
		return fmt.Errorf("mapped file %s: %w", f.Path, err)
	case f.Write:
		return fmt.Errorf("mapped file %s: %w; put it back as it was, or restart a generation that was made with --ckpt-open-files", f.Path, err)
	}
	return fmt.Errorf("mapped file %s: %w; put it back as it was, or restart a generation that was made with --self-contained", f.Path, err)
}

func (f *MappedFile) compare(here bool) error {
	var s unix.Stat_t
	err := unix.Stat(f.Path, &s)
	switch {
	case errors.Is(err, unix.ENOENT) && f.Content != nil:
		return nil
	case err != nil:
		return err
	case s.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no regular file any more")
	case f.Write && s.Size < f.Size:
		return fmt.Errorf("it has %d bytes, and had %d when the image was made", s.Size, f.Size)
	case f.Write:
		return nil
	}
	same, err := f.same(&s, here)
	if err == nil && !same {
		err = fmt.Errorf("it has changed since the image was made (size %d and %d, modified %v and %v)", f.Size, s.Size, f.Mtime, timeOf(s.Mtim))
	}
	return err
}
