package core

import (
	"context"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/core/image"
)

// Together opens the coordinator of a restart of several agents, each of which
// is a Restart of its own, with Join. It returns the name of the computation;
// the caller calls end when the agents have ended.
func Together(ctx context.Context, o Options, generation string) (name string, end func() error, err error) {
	m, err := image.ReadManifest(generation)
	if err != nil {
		return "", nil, err
	}
	log := o.Log("")
	server, err := coord.Listen(coord.Config{Name: o.Name, Unique: o.UniqueName, Computation: m.Computation,
		OpenStore: func(name string) (*image.Store, error) { return image.OpenStore(o.Dir, name) },
		Keep:      o.Keep, Interval: o.Interval, Restart: m.Generation, Agents: len(m.Agents), Log: log,
		Manifest: func() image.Manifest {
			return baseManifest(image.Manifest{Command: m.Command, Cwd: m.Cwd, Settings: o.settings()})
		}})
	if err != nil {
		return "", nil, err
	}
	go serve(ctx, server, log)
	return server.Name(), server.Close, nil
}

func serve(ctx context.Context, server *coord.Server, log zerolog.Logger) {
	if err := server.Serve(ctx); err != nil {
		log.Error().Err(err).Msg("the coordinator has ended")
	}
}

// storeAt is the store in a folder.
func storeAt(path string) (*image.Store, error) {
	return image.OpenStore(filepath.Dir(path), filepath.Base(path))
}
