package wasm

import (
	"context"
	"time"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// holdFunctions keep the program stopped behind the event.
func holdFunctions() []hostFunction {
	return []hostFunction{
		{"keep", "i", true, func(c *call, a args) int32 {
			if !c.during("hold.keep", plugin.Resume, plugin.Running) {
				return abi.ErrNotAllowed
			}
			if a.i32(0) <= 0 {
				return c.fault(abi.ErrInvalid, "hold.keep: wants milliseconds above 0")
			}
			c.keep = time.Duration(a.i32(0)) * time.Millisecond
			return abi.OK
		}},
	}
}

// Hold implements plugin.Holder: the event comes again until the guest does
// not ask for more time, or its grant is used up.
func (e *extension) Hold(ctx context.Context, ev plugin.Event) error {
	keep := e.keep
	if keep == 0 {
		return nil
	}
	defer e.finish(ev)
	e.keep = 0
	over := time.NewTimer(e.mod.grants.hold)
	defer over.Stop()
	for keep > 0 && !e.failed && e.in != nil {
		again := time.NewTimer(keep)
		select {
		case <-again.C:
		case <-over.C:
			again.Stop()
			e.log.Warn().Dur("limit", e.mod.grants.hold).Msg("the program was held for as long as is granted; it runs on")
			return nil
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
		if err := e.deliver(ctx, ev); err != nil {
			return err
		}
		keep, e.keep = e.keep, 0
	}
	return nil
}

var _ plugin.Holder = (*extension)(nil)
