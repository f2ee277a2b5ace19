// Command redirect opens descriptors elsewhere on restart.
//
// Configuration: files, an object from numbers of descriptors to absolute
// paths: {"1": "/scratch/out.log"}. It goes for every process of the tree, and
// for what the program had from whoever launched it as well as for what it
// opened itself.
package main

import (
	"slices"
	"strconv"

	"github.com/hiatus-project/hiatus/sdk"
)

type redirect struct{}

func (redirect) Definition() sdk.Definition {
	return sdk.Definition{Summary: "opens descriptors elsewhere on restart", Kinds: []sdk.Kind{sdk.PreCheckpoint}}
}

func (redirect) Handle(sdk.Event) error {
	var c struct {
		Files map[string]string `json:"files"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	files, err := sdk.Files()
	if err != nil {
		return err
	}
	var links []string
	for _, f := range files {
		path, ok := c.Files[strconv.Itoa(f.FD)]
		if !ok {
			continue
		}
		if err := sdk.MarkFile(sdk.Mark{PID: f.PID, FD: f.FD, Action: "reopen", Path: path}); err != nil {
			return err
		}
		if !slices.Contains(links, f.Link) {
			links = append(links, f.Link)
		}
	}
	sdk.Infof("to be opened elsewhere: %q", links)
	return nil
}

func init() { sdk.Register(redirect{}) }

func main() {}
