// Command exampledb has the agents of a computation find each other at a
// restart, by publish and lookup.
//
// Configuration: key, under which this agent publishes, value, what it
// publishes, and peer, the key that it looks for. What it found is put into
// the environment of the restored processes, as HIATUS_PEER.
package main

import (
	"fmt"

	"github.com/hiatus-project/hiatus/sdk"
)

const barrier = "published"

type exampledb struct{}

func (exampledb) Definition() sdk.Definition {
	return sdk.Definition{Summary: "agents find each other at a restart", Kinds: []sdk.Kind{sdk.PreCheckpoint, sdk.Restart}, Barriers: []string{barrier}}
}

func (exampledb) Handle(ev sdk.Event) error {
	var c struct {
		Key   string `json:"key"`
		Value string `json:"value"`
		Peer  string `json:"peer"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	if err := sdk.Publish(c.Key, []byte(c.Value)); err != nil {
		return err
	}
	if err := sdk.Barrier(barrier); err != nil {
		return err
	}
	peer, err := sdk.Lookup(c.Peer)
	if err != nil {
		return fmt.Errorf("peer %s: %w", c.Peer, err)
	}
	sdk.Infof("%s is at %s", c.Peer, peer)
	if ev.Kind != sdk.Restart {
		return nil
	}
	value := string(peer)
	return sdk.ChangeEnviron(0, []sdk.EnvChange{{Name: "HIATUS_PEER", Value: &value}})
}

func init() {
	sdk.UseBarriers()
	sdk.Register(exampledb{})
}

func main() {}
