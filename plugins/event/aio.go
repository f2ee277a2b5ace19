package event

import (
	"context"
	"strings"

	"github.com/hiatus-project/hiatus/plugin"
)

// ClaimMap refuses the ring of an asynchronous I/O context by name. The ring
// shows what has ended; that a request is under way nothing shows, and one
// that is lost would be waited for without end.
func (p *Plugin) ClaimMap(_ context.Context, proc plugin.Process, m plugin.Mapping) (plugin.MapPolicy, error) {
	if !strings.HasPrefix(m.Path, "/[aio]") {
		return 0, plugin.ErrNotMine
	}
	return 0, plugin.RefuseProcess(proc, "asynchronous I/O context", "the kernel does not show whether requests of it are under way (io_setup(2))")
}
