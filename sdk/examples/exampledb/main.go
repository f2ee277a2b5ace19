// Command exampledb has the agents of a computation find each other at a
// restart, by publish and lookup.
//
// Configuration: key, under which this agent publishes, value, what it
// publishes, and peer, the key that it looks for. The image keeps all three, and
// a restart may give others. What it found is put into the environment of the
// restored processes, as HIATUS_PEER.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/hiatus-project/hiatus/sdk"
)

const barrier = "published"

// place is where this agent is, and whom it looks for.
type place struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Peer  string `json:"peer"`
}

type exampledb struct{}

func (exampledb) Definition() sdk.Definition {
	return sdk.Definition{Summary: "agents find each other at a restart", Kinds: []sdk.Kind{sdk.PreCheckpoint, sdk.Restart}, Barriers: []string{barrier}}
}

func (exampledb) Handle(ev sdk.Event) error {
	p, err := where()
	if err != nil {
		return err
	}
	if err := sdk.Publish(p.Key, []byte(p.Value)); err != nil {
		return err
	}
	if err := sdk.Barrier(barrier); err != nil {
		return err
	}
	peer, err := sdk.Lookup(p.Peer)
	if err != nil {
		return fmt.Errorf("peer %s: %w", p.Peer, err)
	}
	sdk.Infof("%s is at %s", p.Peer, peer)
	if ev.Kind != sdk.Restart {
		state, err := json.Marshal(p)
		if err != nil {
			return err
		}
		return sdk.SetState(state)
	}
	value := string(peer)
	return sdk.ChangeEnviron(0, []sdk.EnvChange{{Name: "HIATUS_PEER", Value: &value}})
}

// where returns what is configured, over what the last image has.
func where() (p place, err error) {
	state, err := sdk.State()
	if err != nil {
		return p, err
	}
	if len(state) > 0 {
		if err := json.Unmarshal(state, &p); err != nil {
			return p, fmt.Errorf("state of the image: %w", err)
		}
	}
	return p, sdk.Config(&p)
}

func init() {
	sdk.UseBarriers()
	sdk.Register(exampledb{})
}

func main() {}
