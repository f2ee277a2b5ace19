// Command gate keeps a program stopped, behind a checkpoint or a restart,
// until a server lets it go: while its node is serviced, or until the others
// of a job are there.
//
// Configuration: url, which is asked for as long as it does not answer with a
// status below 300 (grant http:host:port); every, the milliseconds between two
// questions, 1000 where it is not given. Nothing keeps the program longer than
// the grant (hold:10m; a minute where it has no time).
package main

import (
	"github.com/hiatus-project/hiatus/sdk"
)

type gate struct{}

func (gate) Definition() sdk.Definition {
	return sdk.Definition{Summary: "keeps the program stopped until a server lets it go", Kinds: []sdk.Kind{sdk.Resume, sdk.Running}}
}

func (gate) Handle(sdk.Event) error {
	var c struct {
		URL   string `json:"url"`
		Every int    `json:"every"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	if c.Every == 0 {
		c.Every = 1000
	}
	r, err := sdk.Do(sdk.Request{URL: c.URL})
	switch {
	case err != nil: // the grant ends it, if the server stays down
		sdk.Warnf("%v", err)
	case r.Status < 300:
		return nil
	}
	return sdk.KeepStopped(c.Every)
}

func init() { sdk.Register(gate{}) }

func main() {}
