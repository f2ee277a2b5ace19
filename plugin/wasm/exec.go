package wasm

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// Runner runs a program to its end, or to that of ctx.
type Runner func(ctx context.Context, cmd abi.Command) (abi.CommandResult, error)

// execFunctions run helper programs, while the program of the user runs.
func execFunctions() []hostFunction {
	return []hostFunction{
		{"run", "ii", true, func(c *call, a args) int32 {
			if !c.during("exec", plugin.Launch, plugin.PreSuspend, plugin.Outcome, plugin.Restart, plugin.Running, plugin.Exit) {
				return abi.ErrNotAllowed
			}
			var cmd abi.Command
			if err := c.decode(a.u32(0), a.u32(1), &cmd); err != nil || len(cmd.Args) == 0 {
				return c.fault(abi.ErrInvalid, "exec: wants a command: %v", err)
			}
			m := c.in.ext.mod
			if !slices.Contains(m.grants.execs, cmd.Args[0]) {
				return c.fault(abi.ErrNotAllowed, "exec: %s is not granted", cmd.Args[0])
			}
			if m.cfg.Run == nil {
				return c.fault(abi.ErrNotAllowed, "exec: there is nobody to run programs here")
			}
			ctx, cancel := context.WithTimeout(c.ctx, m.limits.Deadline)
			defer cancel()
			return c.fetch(func() (any, error) { return m.cfg.Run(ctx, cmd) })
		}},
		{"result", "ii", true, (*call).giveAnswer},
	}
}

// fetch runs what takes time, and keeps its answer, as JSON, until the guest
// takes it: to ask again for want of a larger buffer would do it twice. It
// returns the length of the answer.
func (c *call) fetch(fn func() (any, error)) int32 {
	c.in.answer = nil
	var answer any
	code := c.waiting(func() (err error) { answer, err = fn(); return err })
	if code != abi.OK {
		return code
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return c.fault(abi.ErrFailed, "%v", err)
	}
	c.in.answer = data
	return int32(len(data))
}

func (c *call) giveAnswer(a args) int32 { return c.give(a.u32(0), a.u32(1), c.in.answer) }
