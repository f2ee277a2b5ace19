package wasm

import (
	"regexp"
	"slices"
	"sync"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

const (
	maxBarriers = 64
	maxKey      = 1 << 10
	maxValue    = 1 << 20
)

// barrierName is not compiled in commands that have no extension.
var barrierName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`) })

// coordFunctions are barriers, publish and lookup across the agents of a
// computation. Names are the extension's own.
func coordFunctions() []hostFunction {
	return []hostFunction{
		{"declare", "ii", true, func(c *call, a args) int32 {
			name := c.text(a.u32(0), min(a.u32(1), maxKey))
			switch {
			case c.kind != 0:
				return c.fault(abi.ErrNotAllowed, "declare: only in init")
			case !barrierName().MatchString(name) || len(c.in.barriers) >= maxBarriers:
				return c.fault(abi.ErrInvalid, "declare: a bad name, or more than %d", maxBarriers)
			case !slices.Contains(c.in.barriers, name):
				c.in.barriers = append(c.in.barriers, name)
			}
			return abi.OK
		}},
		{"barrier", "ii", true, func(c *call, a args) int32 {
			name := c.text(a.u32(0), min(a.u32(1), maxKey))
			if !c.during("barrier", plugin.PreSuspend, plugin.PreCheckpoint, plugin.Resume, plugin.Restart, plugin.Running) {
				return abi.ErrNotAllowed
			}
			return c.waiting(func() error { return c.in.ext.host.Barrier(c.ctx, name) })
		}},
		{"publish", "iiii", true, func(c *call, a args) int32 {
			key, ok := c.key(a)
			if !ok || a.u32(3) > maxValue {
				return c.fault(abi.ErrInvalid, "publish: a key of 1 to %d bytes and a value of at most %d are wanted, in an event", maxKey, maxValue)
			}
			value := c.bytes(a.u32(2), a.u32(3))
			return c.waiting(func() error { return c.in.ext.host.Publish(c.ctx, key, value) })
		}},
		{"lookup", "iiii", true, func(c *call, a args) int32 {
			key, ok := c.key(a)
			if !ok {
				return c.fault(abi.ErrInvalid, "lookup: a key of 1 to %d bytes is wanted, in an event", maxKey)
			}
			var value []byte
			code := c.waiting(func() (err error) { value, err = c.in.ext.host.Lookup(c.ctx, key); return err })
			if code != abi.OK {
				return c.fault(abi.ErrNotFound, "%s", c.last)
			}
			return c.give(a.u32(2), a.u32(3), value)
		}},
	}
}

// key reads the key that the first two arguments point to.
func (c *call) key(a args) (string, bool) {
	if n := a.u32(1); n == 0 || n > maxKey || c.kind == 0 {
		return "", false
	}
	return c.text(a.u32(0), a.u32(1)), true
}

// waiting runs what takes others' time, with the guest's clock stopped.
func (c *call) waiting(fn func() error) int32 {
	var err error
	c.clock.wait(func() { err = fn() })
	if err != nil {
		return c.fault(abi.ErrFailed, "%v", err)
	}
	return abi.OK
}
