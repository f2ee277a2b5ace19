// Package core is the runtime of an agent: the supervisor of one process
// tree on one host. It holds the agent's event loop, the two sequences
// (checkpoint.go and restart.go, each readable from top to bottom) and the
// dispatch of events to plugins.
package core

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/plugin"
)

// Options are common to Launch and Restart.
type Options struct {
	Name     string        // of the computation; made unique among the running ones by a suffix -2, -3, ... if UniqueName
	Dir      string        // the directory of images (--ckptdir), absolute
	Interval time.Duration // between checkpoints; 0: on request only
	Keep     int           // committed generations kept; at least 1
	Compress string        // as image.CheckCompression allows
	// Incremental has generations store only what has changed since the one
	// before, but for every FullEvery-th.
	Incremental bool
	FullEvery   int
	// Direct writes images past the page cache, where the file system can.
	Direct   bool
	LogFile  string // absolute; "" for none
	Detached bool   // the command has let go of its terminal
	// OpenFiles has every checkpoint save the content of open files.
	OpenFiles bool
	// NoSnapshot has every checkpoint write all memory while the tree stands still.
	NoSnapshot bool
	// SelfContained has every image carry the programs, libraries and other
	// files that are mapped.
	SelfContained bool
	// Flags are options of the command, for the manifest.
	Flags map[string]string
	// UniqueName lets a suffix be added to Name where a running computation
	// has it; else that is an error.
	UniqueName bool
	// Join makes the tree part of the computation that runs under Name, which
	// has Dir, Interval and Keep already.
	Join bool

	Plugins       []plugin.Definition                // in order
	PluginConfig  func(name string, dst any) error   // decodes a plugin's configuration
	PluginTimeout time.Duration                      // for each call of a plugin; 0: 30 s
	Log           func(plugin string) zerolog.Logger // the logger of a plugin, "" for the core's own

	// Ready is called once when the tree runs, with the final name.
	Ready func(name string)
}

// LaunchOptions are the options of Launch.
type LaunchOptions struct {
	Options
	Args []string // the command and its arguments
	Env  []string // its environment, as in os.Environ
	// UserNamespace runs the command in a user namespace of its own, where an
	// ordinary user may trace programs that are not dumpable.
	UserNamespace bool
}

// RestartOptions are the options of Restart.
type RestartOptions struct {
	Options
	Generation string // the folder of a committed generation
	Namespaces string // "auto", "always" or "never"
	// Agent is the one to bring back, by id, of a generation of several: each
	// is a Restart of its own, with Join. "" is the only one.
	Agent string
	// Ignore names plugins whose state in the image is left out.
	Ignore []string
	// AllowMissingFeatures goes on where the processor lacks features that the image's had.
	AllowMissingFeatures bool
	// Lazy lets the program run before its memory is there.
	Lazy bool

	// Progress tells how far a phase is, in bytes: "fill". It
	// may be nil, and is called from several goroutines.
	Progress func(phase string, done, total int64)
}

// settings are how the computation is checkpointed, for the manifest. The
// coordinator adds its own.
func (o *Options) settings() image.Settings {
	return image.Settings{Compress: o.Compress, Incremental: o.Incremental, FullEvery: o.FullEvery, Direct: o.Direct, Flags: o.Flags}
}
