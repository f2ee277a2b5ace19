// Package plugins is the ordered list of the plugins that are built in.
package plugins

import (
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugins/event"
	"github.com/hiatus-project/hiatus/plugins/file"
	"github.com/hiatus-project/hiatus/plugins/shm"
	"github.com/hiatus-project/hiatus/plugins/socket"
	"github.com/hiatus-project/hiatus/plugins/timer"
)

// Standard returns the built-in plugins in their order. The file plugin is
// first: standard input, output and error are its own, even where they are
// sockets. Of the others no two claim the same kind of object.
func Standard() []plugin.Definition {
	return []plugin.Definition{
		file.Definition(),
		event.Definition(),
		socket.Definition(),
		shm.Definition(),
		timer.Definition(),
	}
}
