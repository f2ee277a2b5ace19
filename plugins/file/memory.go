package file

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// claimMemory saves a file in memory to which the tree writes by mappings, and which
// has a name, as those of shm_open(3) and sem_open(3): to its users it is memory, and
// belongs to what else they remember. Its descriptions were claimed before, as of a
// file that is there.
func (p *Plugin) claimMemory(proc plugin.Process, m plugin.Mapping) error {
	d, err := p.saveMapped(proc, m)
	if err != nil {
		return err
	}
	if d.Origin != originNamed { // its name was removed, and another is left
		return nil
	}
	if d.Born == "" {
		if d.Born, err = birth(p.host.Root() + string(d.Path)); err != nil {
			return plugin.RefuseProcess(proc, "shared memory "+string(d.Path), "%v", err)
		}
	}
	d.Memory = true
	d.Written = d.Written || m.Shared && m.Prot&unix.PROT_WRITE != 0
	return nil
}

// saveMapped saves the file of a mapping, which need not be open, once.
func (p *Plugin) saveMapped(proc plugin.Process, m plugin.Mapping) (*inode, error) {
	key := inodeKey{m.Dev, m.Ino}
	if p.saving.inodes[key] == nil {
		if err := p.saveMemory(key, m); err != nil {
			return nil, plugin.RefuseProcess(proc, fmt.Sprintf("mapping %x-%x %s", m.Start, m.End, m.Path), "%v", err)
		}
	}
	return p.state.Inodes[p.saving.inodes[key].index], nil
}

func (p *Plugin) saveMemory(key inodeKey, m plugin.Mapping) error {
	path := p.host.Root() + m.Path
	by := &file{Kind: kindRegular, Path: pathname(m.Path), Flags: unix.O_RDONLY | unix.O_NONBLOCK}
	fd, err := p.openPath(path, by)
	if err != nil {
		return fmt.Errorf("this user may not open its file again: %w", err)
	}
	defer unix.Close(fd)
	f := plugin.OpenFile{Link: m.Path}
	if err := syscall.Fstat(fd, &f.Stat); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if uint64(f.Stat.Dev) != key.dev || f.Stat.Ino != key.ino {
		return errors.New("another file has taken its name")
	}
	by.Flags = unix.O_RDWR
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil && !mayGrant(by, f.Stat.Uid) {
		return fmt.Errorf("this user may not open its file again: %w", err)
	}
	c := &inodeClaim{index: len(p.state.Inodes), from: -1}
	d := newInode(originNamed, f)
	d.Directory = p.directoryOf(d.Path)
	if err := p.openContent(f, by, fd, d, c); err != nil {
		return err
	}
	p.saving.inodes[key] = c
	p.state.Inodes = append(p.state.Inodes, d)
	for _, s := range p.state.Files {
		if s.Was.Dev == key.dev && s.Was.Ino == key.ino && !s.Virtual && (s.Kind == kindRegular || s.Kind == kindPath) {
			s.Kind, s.Index = kindNamed, c.index
		}
	}
	return nil
}

// decideMemory decides what a restart does with such memory. Where nobody uses it any
// more, and it is that of the checkpoint, it gets its content back. What the tree could not
// write to through its mappings is the memory of others, and stays where they use it, or
// the user does not want the saved content.
func (p *Plugin) decideMemory(index int, d *inode, now *unix.Stat_t) error {
	if !d.Written && (!p.config.AllowFileOverwrite || p.inUse(d) != nil) {
		p.named.asIs[index] = true
		p.host.Log().Info().Str("path", string(d.Path)).Msg("shared memory that was only read is as it is now")
		return nil
	}
	used := p.inUse(d)
	switch {
	case used == nil && p.isSame(d, now):
		p.named.puts[index] = &exchange{dev: uint64(now.Dev), ino: now.Ino, file: -1, other: -1}
	case used == nil && p.config.AllowFileOverwrite:
		p.named.replace[index] = true
	case p.config.AllowChangedFiles:
		p.named.asIs[index] = true
		p.host.Log().Warn().Str("path", string(d.Path)).AnErr("reason", used).
			Msg("shared memory is as it is now, not as it was at the checkpoint")
	case used != nil:
		return fmt.Errorf("shared memory %s: %w; --allow-changed-files goes on with it as it is now", d.Path, used)
	default:
		return fmt.Errorf("shared memory %s: another file has taken its name since the checkpoint; "+
			"--allow-file-overwrite puts the saved content in its place, --allow-changed-files keeps it as it is now", d.Path)
	}
	return nil
}

// inUse says why others may use the memory, nil where nobody has it open or mapped: a
// write lease on it can be had then, fcntl(2). Another restart of the same computation
// looks in the same way, and processes that were killed take their time to end.
func (p *Plugin) inUse(d *inode) error {
	const patience = time.Second // for all files together
	for nap := time.Millisecond; ; nap *= 2 {
		err := p.lease(p.place(d.Path))
		switch {
		case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL): // fs.leases-enable
			return fmt.Errorf("it cannot be seen whether others use it now: %w", err)
		case !errors.Is(err, unix.EAGAIN):
			return err
		case time.Since(p.named.begun) > patience:
			return errors.New("other processes use it now")
		}
		time.Sleep(nap)
	}
}

// lease takes a write lease and gives it back.
func (p *Plugin) lease(name string) error {
	fd, err := p.openPath(name, &file{Kind: kindRegular, Path: pathname(name), Flags: unix.O_RDONLY | unix.O_NONBLOCK})
	if err != nil {
		return err
	}
	defer unix.Close(fd) // and the lease ends
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return fmt.Errorf("fcntl F_SETLEASE: %w", err)
	}
	return nil
}

// markRemade is an attribute of files that a restart has made again, by which the next
// one knows them. Linux 6.6 has it in tmpfs(5).
const markRemade = "user.hiatus.remade"

func (d *inode) identity() []byte { return fmt.Appendf(nil, "%d:%d:%s", d.Dev, d.Ino, d.Born) }

// birth is when a file was made, or, where its file system does not know that, under which boot
// of the machine: its numbers are then another's only where all was unmounted.
func birth(path string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err != nil {
		return "", fmt.Errorf("statx: %w", err)
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		return fmt.Sprintf("%d.%09d", st.Btime.Sec, st.Btime.Nsec), nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return "boot " + strings.TrimSpace(string(boot)), err
}

// isSame says whether the file that is there is that of the checkpoint, or was made by
// an earlier restart. Numbers come again, and anybody can set an attribute of his own file.
func (p *Plugin) isSame(d *inode, now *unix.Stat_t) bool {
	if now.Uid != d.UID && now.Uid != uint32(os.Geteuid()) {
		return false
	}
	if uint64(now.Dev) == d.Dev && now.Ino == d.Ino {
		born, err := birth(p.place(d.Path))
		return err == nil && born == d.Born
	}
	b := make([]byte, 128)
	n, err := unix.Getxattr(p.place(d.Path), markRemade, b)
	return err == nil && slices.Equal(b[:n], d.identity())
}
