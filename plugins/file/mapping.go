package file

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// ClaimMap claims the mappings of inodes whose content is saved, so that they
// and the open descriptions stay one.
func (p *Plugin) ClaimMap(_ context.Context, proc plugin.Process, m plugin.Mapping) (plugin.MapPolicy, error) {
	if strings.TrimSuffix(m.Path, deletedSuffix) == secretLink {
		return 0, plugin.RefuseProcess(proc, fmt.Sprintf("mapping %x-%x %s", m.Start, m.End, m.Path),
			"the kernel shows secret memory to nobody (memfd_secret(2))")
	}
	if m.Ino == 0 {
		return 0, plugin.ErrNotMine
	}
	var err error
	switch {
	case m.Named:
		err = p.claimMemory(proc, m)
	case m.Written && p.saving.openFiles:
		_, err = p.saveMapped(proc, m)
	}
	if err != nil {
		return 0, err
	}
	c := p.saving.inodes[inodeKey{m.Dev, m.Ino}]
	if c == nil {
		return 0, plugin.ErrNotMine
	}
	d := p.state.Inodes[c.index]
	if d.Huge > 0 && !m.Shared {
		return 0, plugin.RefuseProcess(proc, fmt.Sprintf("mapping %x-%x %s", m.Start, m.End, m.Path),
			"a private mapping of huge pages is not kept")
	}
	d.Mapped = d.Mapped || d.Origin == originNamed && writes(m)
	return plugin.MapReopen, nil
}

// writes says whether the file can be written to through the mapping.
func writes(m plugin.Mapping) bool { return m.Shared && slices.Contains(m.Flags, "mw") }

// ReopenMap returns a descriptor with the access that the mapping may use:
// one that could be written, where the old could not, would hinder seals.
func (p *Plugin) ReopenMap(_ context.Context, _ plugin.Process, m plugin.Mapping) (int, error) {
	index := slices.IndexFunc(p.state.Inodes, func(d *inode) bool { return d.Dev == m.Dev && d.Ino == m.Ino })
	if index < 0 {
		return -1, fmt.Errorf("mapping %x-%x %s: not in the image", m.Start, m.End, m.Path)
	}
	access := unix.O_RDONLY
	if writes(m) {
		access = unix.O_RDWR
	}
	d := p.state.Inodes[index]
	name := p.place(d.Path)
	if !p.named.asIs[index] {
		anchor, err := p.anchor(index)
		if err != nil {
			return -1, err
		}
		if access == unix.O_RDWR {
			return dup(anchor)
		}
		name = procSelf(anchor)
	}
	fd, err := p.openPath(name, &file{Kind: kindRegular, Path: d.Path, Flags: access | unix.O_NONBLOCK})
	if err != nil {
		return -1, fmt.Errorf("mapping %x-%x %s: open: %w", m.Start, m.End, m.Path, err)
	}
	return fd, nil
}
