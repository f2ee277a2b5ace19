package core

import (
	"fmt"
	"os"
	"slices"

	"github.com/hiatus-project/hiatus/core/image"
)

// inUse is the generations whose state this agent's tree goes on from: a restart of them
// writes to the same files.
type inUse struct {
	origin *os.File // that it was restarted from; nil: it was not
	newest *os.File // that it made; nil: none, or its tree has ended with it
}

func (u *inUse) close() {
	for _, f := range []*os.File{u.origin, u.newest} {
		f.Close() // os.ErrInvalid: there is none
	}
}

// goOnFrom takes a generation that was just committed for the newest one. The one before
// can be pruned then.
func (u *inUse) goOnFrom(dir, agent string) error {
	m, err := image.ReadManifest(dir)
	if err != nil {
		return err
	}
	n := slices.IndexFunc(m.Agents, func(a image.AgentManifest) bool { return a.ID == agent })
	if n < 0 {
		return fmt.Errorf("%s: no agent %q", dir, agent)
	}
	f, _, err := image.Use(dir, n)
	if err != nil {
		return err
	}
	u.newest.Close() // os.ErrInvalid: there was none
	u.newest = f
	return nil
}
