// Command empty is an extension that does nothing, for benchmarks.
package main

import "github.com/hiatus-project/hiatus/sdk"

type empty struct{}

func (empty) Definition() sdk.Definition {
	return sdk.Definition{Summary: "does nothing", Kinds: []sdk.Kind{sdk.PreSuspend, sdk.PreCheckpoint, sdk.Resume, sdk.Outcome}}
}

func (empty) Handle(sdk.Event) error { return nil }

func init() { sdk.Register(empty{}) }

func main() {}
