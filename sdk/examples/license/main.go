// Command license gives a licence seat back before a checkpoint, and takes one
// behind it and at a restart.
//
// Configuration: server, the URL of a licence server (grant http:host:port)
// that answers POST /release and POST /take with a status of 2xx. A seat that
// cannot be had again keeps a restart from running, and is warned of behind a
// checkpoint, whose program goes on.
package main

import (
	"fmt"
	"strings"

	"github.com/hiatus-project/hiatus/sdk"
)

type license struct{}

func (license) Definition() sdk.Definition {
	return sdk.Definition{Summary: "gives a licence seat back for a checkpoint",
		Kinds: []sdk.Kind{sdk.PreSuspend, sdk.Outcome, sdk.Running}}
}

func (license) Handle(ev sdk.Event) error {
	var c struct {
		Server string `json:"server"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	server := strings.TrimSuffix(c.Server, "/")
	switch ev.Kind {
	case sdk.PreSuspend:
		return call(server + "/release")
	case sdk.Running:
		return call(server + "/take")
	}
	// The outcome comes whether the checkpoint was committed or not, and
	// whatever failed between.
	return call(server + "/take")
}

func call(url string) error {
	r, err := sdk.Do(sdk.Request{Method: "POST", URL: url})
	if err != nil {
		return err
	}
	if r.Status/100 != 2 {
		return fmt.Errorf("%s: status %d: %s", url, r.Status, strings.TrimSpace(string(r.Body)))
	}
	return nil
}

func init() { sdk.Register(license{}) }

func main() {}
