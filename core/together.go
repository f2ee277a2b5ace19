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
		OpenStore: o.openStore,
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

// openStore opens the store for the generations of name: what keeps it from being
// one is better said now than at the first checkpoint.
func (o *Options) openStore(name string) (*image.Store, error) {
	store, err := image.OpenStore(o.Dir, name)
	if err != nil {
		return nil, err
	}
	return store, store.Check()
}

// newStore is openStore for a computation without images: that it can write none is better said
// before it runs.
func (o *Options) newStore(name string) (*image.Store, error) {
	store, err := o.openStore(name)
	if err == nil {
		err = store.CheckWritable()
	}
	return store, err
}

// storeAt is the store in a folder.
func storeAt(path string) (*image.Store, error) {
	return image.OpenStore(filepath.Dir(path), filepath.Base(path))
}
