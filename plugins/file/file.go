package file

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
	"github.com/hiatus-project/hiatus/plugin"
)

// Definition describes the plugin.
func Definition() plugin.Definition {
	return plugin.Definition{
		Name:    "file",
		Summary: "files, directories, deleted files, devices, pipes, FIFOs, ptys, the terminal, locks",
		State:   stateFormat,
		Oldest:  stateFormat,
		Kinds:   []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running, plugin.Exit},
		New:     newPlugin,
	}
}

type config struct {
	// DeletedMax is the most that is saved of one deleted file, in bytes; 0
	// is no limit.
	DeletedMax int64 `json:"deleted_max"`
	// AllowChangedFiles takes files as they are in a restart.
	AllowChangedFiles bool `json:"allow_changed_files"`
	// AllowFileOverwrite replaces changed files whose content was saved.
	AllowFileOverwrite bool `json:"allow_file_overwrite"`
	// Output is the file beside the image to which the output of a detached program goes.
	Output string `json:"output"`
}

func newPlugin(h plugin.Host) (plugin.Plugin, error) {
	var c config
	if err := h.Config(&c); err != nil {
		return nil, err
	}
	if c.DeletedMax < 0 {
		return nil, fmt.Errorf("deleted_max: %d is negative", c.DeletedMax)
	}
	given, err := givenPipes()
	if err != nil {
		return nil, err
	}
	p := &Plugin{host: h, config: c, given: given}
	p.saving.reset()
	p.making.reset()
	p.named.reset()
	return p, nil
}

// Plugin keeps the open files of one agent.
type Plugin struct {
	host    plugin.Host
	config  config
	given   map[string]bool // links of the pipes that the agent has inherited
	state   state           // what Save writes and Load has read
	saving  saving          // of the checkpoint under way
	making  making          // of the restart under way
	named   named           // likewise, until its end
	offsets offsets         // likewise
}

// Handle begins and ends checkpoints and restarts.
func (p *Plugin) Handle(ctx context.Context, ev plugin.Event) error {
	switch ev.Kind {
	case plugin.PreCheckpoint:
		p.saving.reset()
		p.saving.openFiles = ev.Request.OpenFiles
		for _, proc := range ev.Procs {
			p.saving.procs[proc.PID()] = true
		}
		p.state = state{Ended: ev.Request.Kill}
	case plugin.Resume:
		p.saving.reset()
	case plugin.Restart:
		p.making.reset()
		p.named.reset()
		p.offsets.close()
		p.state.Ended = p.state.Ended && !ev.Restarted
		p.placeOutput(ev.Dir)
		if ev.Beside {
			p.warnBeside()
		}
		return p.checkFiles(ev.Here)
	case plugin.Running:
		defer p.making.reset()
		return p.finish(ctx, ev.Procs)
	case plugin.Exit:
		p.saving.reset()
		p.making.reset()
		p.offsets.close()
		return p.named.takeBack()
	}
	return nil
}

// ClaimFile saves the description f.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	err := p.claim(f)
	if errors.Is(err, plugin.ErrNotMine) {
		return leave(f)
	}
	return err
}

func (p *Plugin) claim(f plugin.OpenFile) error {
	k, err := p.kindOf(f)
	p.saving.note(f, errors.Is(err, plugin.ErrNotMine))
	if err != nil {
		return err
	}
	info, err := procparse.ParseFDInfo(f.FDInfo)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	s := newFile(k, f)
	if k == kindRegular && p.stdioOf(f) >= 0 { // as of a program that was restarted
		s.Inherited = true
	}
	if err := s.takeLocks(f, info.Locks); err != nil {
		return err
	}
	if err := p.claimKind(f, s); err != nil {
		return err
	}
	p.state.add(f.ID, s)
	return nil
}

func (p *Plugin) claimKind(f plugin.OpenFile, s *file) error {
	if s.Kind != kindPath {
		return p.claimOpen(f, s)
	}
	fd, err := duplicate(f)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	magic, err := fileSystem(fd)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	switch {
	case isVirtual(magic):
		s.Virtual = true
		return p.checkVirtual(f, s)
	case deletedInode(f):
		return p.claimDeleted(f, s, fd)
	}
	return p.checkPath(f, s)
}

// deletedInode says whether f is a file or a directory without any name.
func deletedInode(f plugin.OpenFile) bool {
	t := f.Stat.Mode & unix.S_IFMT
	return f.Stat.Nlink == 0 && strings.HasSuffix(f.Link, deletedSuffix) && (t == unix.S_IFREG || t == unix.S_IFDIR)
}

// duplicate is f.Dup with an error that tells of what.
func duplicate(f plugin.OpenFile) (int, error) {
	fd, err := f.Dup()
	if err != nil {
		return -1, plugin.Refuse(f, "duplicate: %v", err)
	}
	return fd, nil
}

// claimOpen saves what a duplicate of the description shows.
func (p *Plugin) claimOpen(f plugin.OpenFile, s *file) error {
	fd, err := duplicate(f)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := p.claimAsync(f, s, fd); err != nil {
		return err
	}
	switch s.Kind {
	case kindRegular:
		return p.claimRegular(f, s, fd)
	case kindDirectory:
		return p.claimDirectory(f, s, fd)
	case kindDevice:
		return p.checkPath(f, s)
	case kindStdio, kindTerminal:
		p.claimTerminal(f, s, fd)
		p.noteUnread(f, s, fd)
		return nil
	case kindPipe:
		return p.claimPipe(f, s, fd)
	case kindPtmx:
		return p.claimMaster(f, s, fd)
	case kindPts:
		return p.claimSlave(f, s, fd)
	case kindHungUp:
		return nil
	}
	return fmt.Errorf("no claim for kind %q", s.Kind)
}

// ReopenFile makes the description again.
func (p *Plugin) ReopenFile(ctx context.Context, f plugin.OpenFile) (int, error) {
	s := p.state.Files[f.ID]
	if s == nil {
		return -1, fmt.Errorf("open file %d (%s): not in the image", f.ID, f.Link)
	}
	fd, err := p.reopen(ctx, f, s)
	if err == nil {
		fd, err = p.lockOrShare(fd, s)
	}
	if err != nil {
		return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
	}
	p.making.noteAsync(f, s)
	return fd, nil
}

func (p *Plugin) reopen(ctx context.Context, f plugin.OpenFile, s *file) (int, error) {
	switch s.Kind {
	case kindPath, kindRegular, kindDirectory, kindDevice:
		if s.fresh {
			return p.reopenFresh(s)
		}
		return p.reopenPath(s)
	case kindDeleted, kindNamed:
		return p.reopenInode(s)
	case kindStdio:
		p.warnUnread(s)
		return p.reopenStdio(f, s)
	case kindTerminal:
		return p.reopenTerminal(f, s)
	case kindPipe:
		if s.Inherited {
			p.host.Log().Info().Str("link", string(s.Path)).Msg("what was left to read of the launching command's pipe comes from the image")
		}
		return p.reopenPipe(f, s)
	case kindPtmx:
		return p.reopenMaster(ctx, s)
	case kindPts:
		return p.reopenSlave(ctx, s)
	case kindHungUp:
		return p.reopenHungUp(s)
	}
	return -1, fmt.Errorf("unknown kind %q", s.Kind)
}

// kindOf tells what f is, by its type, its device and its link.
func (p *Plugin) kindOf(f plugin.OpenFile) (kind, error) {
	named := strings.HasPrefix(f.Link, "/")
	if f.Flags&unix.O_PATH != 0 && named {
		return kindPath, nil
	}
	switch f.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if !named { // a namespace, a pidfd
			return "", plugin.ErrNotMine
		}
		return kindRegular, nil
	case unix.S_IFDIR:
		if !named {
			return "", plugin.ErrNotMine
		}
		return kindDirectory, nil
	case unix.S_IFIFO:
		if f.Inherited > 0 || p.stdioOf(f) >= 0 {
			return kindOfStdio(f)
		}
		return kindPipe, nil
	case unix.S_IFSOCK:
		if f.Inherited > 0 {
			return kindStdio, nil
		}
		return "", plugin.ErrNotMine
	case unix.S_IFCHR:
		if f.Inherited > 0 {
			return kindStdio, nil
		}
		return p.deviceKind(f)
	case unix.S_IFBLK:
		return "", plugin.Refuse(f, "block device %s is not kept", deviceName(uint64(f.Stat.Rdev)))
	}
	return "", plugin.ErrNotMine
}

// fileSystem tells the type of the file system of fd, statfs(2).
func fileSystem(fd int) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, fmt.Errorf("fstatfs: %w", err)
	}
	return int64(fs.Type), nil
}

// procSelf names a descriptor of the supervisor by a path: to open it makes a
// new description of the same object, proc_pid_fd(5).
func procSelf(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// reopenAnchor makes a new description of what anchor refers to, with the
// saved flags. Some flags are refused by open(2) but not by F_SETFL: O_DIRECT
// of a pipe.
func reopenAnchor(anchor int, s *file) (int, error) {
	open := s.Flags&(unix.O_ACCMODE|unix.O_SYNC|unix.O_PATH|unix.O_DIRECTORY) | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	fd, err := unix.Open(procSelf(anchor), open, 0)
	if err != nil {
		return -1, fmt.Errorf("open of a new description: %w", err)
	}
	if open&unix.O_PATH != 0 {
		return fd, nil
	}
	return withStatus(fd, s)
}

// withStatus sets the status flags of fd, or closes it.
func withStatus(fd int, s *file) (int, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, s.Flags&statusFlags); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("fcntl F_SETFL %#o: %w", s.Flags&statusFlags, err)
	}
	return fd, nil
}

// dup duplicates a descriptor of the plugin or of the core.
func dup(fd int) (int, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("duplicate of fd %d: %w", fd, err)
	}
	return d, nil
}

// closers are descriptors of the supervisor's own.
type closers []int

func (c *closers) add(fd int) { *c = append(*c, fd) }

func (c *closers) close() {
	for _, fd := range *c {
		unix.Close(fd)
	}
	*c = nil
}

// errReplaced says that a path names something else than at the checkpoint.
var errReplaced = errors.New("replaced by a file of another type")

var (
	_ plugin.Plugin        = (*Plugin)(nil)
	_ plugin.Stater        = (*Plugin)(nil)
	_ plugin.FileClaimer   = (*Plugin)(nil)
	_ plugin.MapClaimer    = (*Plugin)(nil)
	_ plugin.MapReopener   = (*Plugin)(nil)
	_ plugin.ProcessSaver  = (*Plugin)(nil)
	_ plugin.ContentKeeper = (*Plugin)(nil)
	_ plugin.Publisher     = (*Plugin)(nil)
)
