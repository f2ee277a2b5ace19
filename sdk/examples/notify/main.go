// Command notify tells a webhook or a program of each checkpoint, before it
// begins and behind its end, with its figures.
//
// Configuration: url, to which a JSON object is sent by POST (grant
// http:host:port), or command, a list of words, which gets the object on its
// standard input (grant exec:/path), or both.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/hiatus-project/hiatus/sdk"
)

type notify struct{}

func (notify) Definition() sdk.Definition {
	return sdk.Definition{Summary: "tells a webhook or a program of each checkpoint", Kinds: []sdk.Kind{sdk.PreSuspend, sdk.Outcome}}
}

// config may be changed while a computation waits for its restart only.
type config struct {
	URL     string   `json:"url"`
	Command []string `json:"command"`
}

func (notify) Handle(ev sdk.Event) error {
	var c config
	if err := sdk.Config(&c); err != nil {
		return err
	}
	details, err := ev.Details()
	if err != nil {
		return err
	}
	message, err := json.Marshal(details)
	if err != nil {
		return err
	}
	// A message that does not arrive is no reason to give a checkpoint up.
	if c.URL != "" {
		if err := post(c.URL, message); err != nil {
			sdk.Warnf("webhook: %v", err)
		}
	}
	if len(c.Command) > 0 {
		if err := run(c.Command, message); err != nil {
			sdk.Warnf("command: %v", err)
		}
	}
	return nil
}

func post(url string, message []byte) error {
	r, err := sdk.Do(sdk.Request{Method: "POST", URL: url, Header: map[string]string{"Content-Type": "application/json"}, Body: message})
	if err == nil && r.Status >= 300 {
		err = fmt.Errorf("%s: status %d", url, r.Status)
	}
	return err
}

func run(command []string, message []byte) error {
	r, err := sdk.Run(sdk.Command{Args: command, Stdin: message})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", command[0], r.Code, r.Stderr)
	}
	return err
}

func init() { sdk.Register(notify{}) }

func main() {}
