// Command relocate has a program find its files where they are now, when
// directories were moved between the checkpoint and the restart.
//
// Configuration: moved, a list of {"from", "to"}, absolute paths; the first
// that fits a path counts. It goes for open and mapped files, programs, working
// directories and UNIX sockets, not for names that the program keeps in its
// memory.
package main

import (
	"fmt"

	"github.com/hiatus-project/hiatus/sdk"
)

type relocate struct{}

func (relocate) Definition() sdk.Definition {
	return sdk.Definition{Summary: "finds open files in directories that were moved", Kinds: []sdk.Kind{sdk.Restart}}
}

func (relocate) Handle(sdk.Event) error {
	var c struct {
		Moved []struct {
			From string `json:"from"`
			To   string `json:"to"`
		} `json:"moved"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	for _, m := range c.Moved {
		if err := sdk.MapPath(m.From, m.To); err != nil {
			return fmt.Errorf("%s to %s: %w", m.From, m.To, err)
		}
		sdk.Infof("%s is now %s", m.From, m.To)
	}
	return nil
}

func init() { sdk.Register(relocate{}) }

func main() {}
