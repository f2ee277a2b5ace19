package socket

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// ReopenFile makes a socket, and with it those that can only be made
// together: the other end of a pair, or all connections of a listener.
func (p *Plugin) ReopenFile(_ context.Context, f plugin.OpenFile) (int, error) {
	if p.made == nil {
		p.made = make(map[int]int)
	}
	if _, done := p.made[f.ID]; !done {
		if err := p.reopen(f.ID); err != nil {
			return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
		}
	}
	fd, ok := p.made[f.ID]
	if !ok {
		return -1, fmt.Errorf("open file %d (%s): its connection is not in the image", f.ID, f.Link)
	}
	delete(p.made, f.ID)
	if f.Flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("open file %d (%s): fcntl O_NONBLOCK: %w", f.ID, f.Link, err)
		}
	}
	return fd, nil
}

// FillFiles brings the sockets to their old state, now that all exist.
func (p *Plugin) FillFiles(ctx context.Context, procs []plugin.Process, fds map[int]int) error {
	if err := p.fillDatagrams(ctx, fds); err != nil {
		return err
	}
	return p.fillUNIX(ctx, procs, fds)
}
