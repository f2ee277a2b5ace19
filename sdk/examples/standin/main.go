// Command standin lets a program be checkpointed that holds descriptors which
// nothing can make again, where it can do without them: at a restart a file
// stands in their place. The program must know how to go on with it.
//
// Configuration: links, an object from links as /proc/PID/fd has them
// ("anon_inode:[userfaultfd]") to absolute paths of files. A line that tells
// what stood there is written to the file first.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/hiatus-project/hiatus/sdk"
)

type standin struct{}

func (standin) Definition() sdk.Definition {
	return sdk.Definition{Summary: "has files stand in for descriptors that cannot be made again",
		Kinds: []sdk.Kind{sdk.PreCheckpoint, sdk.Restart}}
}

// owned is a descriptor in the state: at a restart nothing is open yet.
type owned struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
}

func (standin) Handle(ev sdk.Event) error {
	var c struct {
		Links map[string]string `json:"links"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	if ev.Kind == sdk.PreCheckpoint {
		return keep(c.Links)
	}
	return reopen(c.Links)
}

// keep owns the descriptors, and saves what each was.
func keep(links map[string]string) error {
	files, err := sdk.Files()
	if err != nil {
		return err
	}
	list := []owned{}
	for _, f := range files {
		path, ok := links[f.Link]
		if !ok {
			continue
		}
		own := sdk.Own{PID: f.PID, FD: f.FD, Bytes: []byte(f.Link), Reopen: sdk.Reopen{Path: path}}
		if err := sdk.OwnFD(own); err != nil {
			return fmt.Errorf("%s: %w", f.Link, err)
		}
		list = append(list, owned{f.PID, f.FD})
	}
	state, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return sdk.SetState(state)
}

// reopen follows the configuration of this restart, which may name other
// files than that of the checkpoint.
func reopen(links map[string]string) error {
	state, err := sdk.State()
	if err != nil || len(state) == 0 {
		return err
	}
	var list []owned
	if err := json.Unmarshal(state, &list); err != nil {
		return err
	}
	for _, o := range list {
		link, err := sdk.SavedFD(o.PID, o.FD)
		if err != nil {
			return err
		}
		path, ok := links[string(link)]
		if !ok {
			continue
		}
		first := fmt.Appendf(nil, "in place of %s\n", link)
		if err := sdk.ReopenFD(o.PID, o.FD, sdk.Reopen{Path: path, Send: first}); err != nil {
			return fmt.Errorf("%s: %w", link, err)
		}
		sdk.Infof("pid %d fd %d: %s stands in for %s", o.PID, o.FD, path, link)
	}
	return nil
}

func init() { sdk.Register(standin{}) }

func main() {}
