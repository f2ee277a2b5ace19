package file

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// claimNamed saves a file that has its name, with its content: launch or
// checkpoint --ckpt-open-files.
func (p *Plugin) claimNamed(f plugin.OpenFile, s *file, fd int) error {
	s.Kind = kindNamed
	d := newInode(originNamed, f)
	d.Path = s.Path // which it has, be f's gone
	return p.claimInode(f, s, fd, d)
}

// decideNamed decides what a restart does with such a file: one that is as it
// was stays, one that is gone is made again, and one that has changed is
// replaced only where the user allows it. What is written through memory to a page
// that is to be written back already moves no time, so that of a mapped file
// nobody knows: it is replaced where the user allows it, and stays else.
func (p *Plugin) decideNamed(index int, d *inode) error {
	var now unix.Stat_t
	err := unix.Stat(p.place(d.Path), &now)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return fmt.Errorf("%s: stat: %w", d.Path, err)
	case now.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s: %w", d.Path, errReplaced)
	case now.Size == d.Size && now.Mtim.Nano() == d.Mtime && !(d.Mapped && p.config.AllowFileOverwrite):
		p.making.asIs[index] = true
		p.warnMapped(d)
		return nil
	case p.config.AllowFileOverwrite:
		p.making.replace[index] = true
		return nil
	case p.config.AllowChangedFiles:
		p.making.asIs[index] = true
		return nil
	}
	return fmt.Errorf("%s: %s; --allow-file-overwrite puts the saved content in its place, --allow-changed-files keeps it as it is now",
		d.Path, differs(d.Size, d.Mtime, &now))
}

// warnMapped tells of a file that the program may have written to since.
func (p *Plugin) warnMapped(d *inode) {
	if d.Mapped && !p.state.Ended && !p.config.AllowChangedFiles {
		p.host.Log().Warn().Str("path", string(d.Path)).
			Msg("the file was mapped, and what the program has written to it through its memory since the checkpoint, if anything, stays; --allow-file-overwrite puts the saved content in its place")
	}
}

// makeNamed makes the file beside its place. It gets its name in Running, when
// all is well, so that no moment leaves a half-written file.
func (p *Plugin) makeNamed(index int, d *inode) (int, error) {
	dir := path.Dir(p.place(d.Path))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return -1, err
	}
	f, err := os.CreateTemp(dir, ".hiatus-restart-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	p.making.temporary[index] = f.Name()
	return dup(int(f.Fd()))
}

// publish gives a file its name.
func (p *Plugin) publish(index int, d *inode) error {
	from, to := p.making.temporary[index], p.place(d.Path)
	flags := uint(unix.RENAME_NOREPLACE)
	if p.making.replace[index] {
		flags = 0
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	if errors.Is(err, unix.EINVAL) && flags != 0 { // not every file system has it, rename(2)
		if _, lerr := os.Lstat(to); errors.Is(lerr, os.ErrNotExist) {
			err = unix.Rename(from, to)
		} else {
			err = unix.EEXIST
		}
	}
	if err != nil {
		return fmt.Errorf("rename to its name: %w", err)
	}
	delete(p.making.temporary, index)
	return nil
}
