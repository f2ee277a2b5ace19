package wasm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/tetratelabs/wazero/api"

	"github.com/hiatus-project/hiatus/internal/strictjson"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// hostFunction is one import. Its type is spelled: i for a parameter of 32
// bits, l for one of 64; the result, where there is one, has 32.
type hostFunction struct {
	name string
	in   string
	out  bool
	fn   func(c *call, a args) int32
}

// args are the parameters of a host function.
type args []uint64

func (a args) i32(i int) int32  { return api.DecodeI32(a[i]) }
func (a args) u32(i int) uint32 { return api.DecodeU32(a[i]) }

func (f hostFunction) params() []api.ValueType {
	var types []api.ValueType
	for _, c := range f.in {
		if c == 'l' {
			types = append(types, api.ValueTypeI64)
		} else {
			types = append(types, api.ValueTypeI32)
		}
	}
	return types
}

func (f hostFunction) results() []api.ValueType {
	if f.out {
		return []api.ValueType{api.ValueTypeI32}
	}
	return nil
}

// goFunction finds the call in progress in the context, and the arguments and
// the result on the stack. name is for the log.
func (f hostFunction) goFunction(name string) api.GoModuleFunc {
	return func(ctx context.Context, _ api.Module, stack []uint64) {
		in, _ := ctx.Value(instanceKey{}).(*instance)
		if in == nil || in.cur == nil {
			panic(misuse("called outside of a call"))
		}
		result := f.fn(in.cur, args(stack))
		if f.out {
			stack[0] = api.EncodeI32(result)
			in.cur.trace(name, result)
		}
	}
}

// trace logs what the guest asked for. Those that return nothing have said
// what they have to say.
func (c *call) trace(function string, result int32) {
	line := c.in.ext.log.Trace()
	if !line.Enabled() {
		return
	}
	line.Str("function", function).Int32("result", result)
	if result < 0 {
		line.Str("reason", c.last)
	}
	line.Msg("host function")
}

// hostFunctions are the imports by capability; "" is the base.
func hostFunctions() map[string][]hostFunction {
	return map[string][]hostFunction{
		"":           baseFunctions(),
		abi.Coord:    coordFunctions(),
		abi.MemRead:  memReadFunctions(),
		abi.MemWrite: memWriteFunctions(),
		abi.Env:      envFunctions(),
		abi.Files:    filesFunctions(),
		abi.FD:       fdFunctions(),
		abi.Hold:     holdFunctions(),
		abi.Path:     pathFunctions(),
		abi.Exec:     execFunctions(),
		abi.HTTP:     httpFunctions(),
	}
}

// misuse ends a guest that breaks the ABI: what it would go on with is
// undefined.
type misuse string

func (m misuse) Error() string { return string(m) }

// memory is the guest's. Before its instance is complete (a start section
// that calls a host function) there is none.
func (c *call) memory() api.Memory {
	if c.in.mod == nil {
		panic(misuse("a host function was called from the start section"))
	}
	return c.in.mod.Memory()
}

// bytes copies what the guest points to.
func (c *call) bytes(ptr, size uint32) []byte {
	b, ok := c.memory().Read(ptr, size)
	if !ok {
		panic(misuse(fmt.Sprintf("a pointer outside of its memory: %d bytes at %#x", size, ptr)))
	}
	return slices.Clone(b)
}

func (c *call) text(ptr, size uint32) string { return string(c.bytes(ptr, size)) }

// give writes data to the guest's buffer, if it is large enough, and returns
// the length of data in any case.
func (c *call) give(ptr, limit uint32, data []byte) int32 {
	if len(data) > 1<<30 {
		return c.fault(abi.ErrLimit, "the answer has %d bytes", len(data))
	}
	if uint64(len(data)) <= uint64(limit) && !c.memory().Write(ptr, data) {
		panic(misuse(fmt.Sprintf("a pointer outside of its memory: %d bytes at %#x", len(data), ptr)))
	}
	return int32(len(data))
}

func (c *call) giveJSON(ptr, limit uint32, v any) int32 {
	data, err := json.Marshal(v)
	if err != nil {
		return c.fault(abi.ErrFailed, "%v", err)
	}
	return c.give(ptr, limit, data)
}

// decode reads a JSON argument strictly.
func (c *call) decode(ptr, size uint32, dst any) error {
	return strictjson.Decode(strings.NewReader(c.text(ptr, size)), dst)
}

// fault keeps the reason for last_error, and returns code.
func (c *call) fault(code int32, format string, args ...any) int32 {
	c.last = clean(fmt.Sprintf(format, args...))
	return code
}

// during says whether the call is for one of the kinds; else fault was called.
func (c *call) during(what string, kinds ...plugin.Kind) bool {
	if slices.Contains(kinds, c.kind) {
		return true
	}
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.String())
	}
	c.fault(abi.ErrNotAllowed, "%s: only during %s", what, strings.Join(names, ", "))
	return false
}

// inEvent says whether an event is handled, whichever.
func (c *call) inEvent(what string) bool {
	if c.kind == 0 {
		c.fault(abi.ErrNotAllowed, "%s: not in init", what)
	}
	return c.kind != 0
}

// process finds one of the event's processes.
func (c *call) process(pid int32) (plugin.Process, int32) {
	for _, p := range c.event.Procs {
		if p.PID() == int(pid) {
			return p, 0
		}
	}
	return nil, c.fault(abi.ErrNotFound, "no process %d in this event", pid)
}

func baseFunctions() []hostFunction {
	return []hostFunction{
		{"event", "ii", true, func(c *call, a args) int32 {
			if !c.inEvent("event") {
				return abi.ErrNotAllowed
			}
			if c.json == nil {
				data, err := json.Marshal(describeEvent(c.event))
				if err != nil {
					return c.fault(abi.ErrFailed, "%v", err)
				}
				c.json = data
			}
			return c.give(a.u32(0), a.u32(1), c.json)
		}},
		{"config", "ii", true, func(c *call, a args) int32 {
			values := c.in.ext.mod.cfg.Values
			if values == nil {
				values = json.RawMessage("{}")
			}
			return c.give(a.u32(0), a.u32(1), values)
		}},
		{"state_read", "ii", true, func(c *call, a args) int32 {
			return c.give(a.u32(0), a.u32(1), c.in.currentState())
		}},
		{"state_write", "ii", true, func(c *call, a args) int32 {
			if !c.inEvent("state_write") {
				return abi.ErrNotAllowed
			}
			if limit := c.in.ext.mod.limits.State; uint64(a.u32(1)) > uint64(limit) {
				return c.fault(abi.ErrLimit, "a state of %d bytes, the limit is %d", a.u32(1), limit)
			}
			c.in.state, c.in.written = c.bytes(a.u32(0), a.u32(1)), true
			return abi.OK
		}},
		{"log", "iii", false, func(c *call, a args) int32 {
			size := min(a.u32(2), uint32(c.in.ext.mod.limits.Log)+1)
			c.log(a.i32(0), c.bytes(a.u32(1), size))
			return 0
		}},
		{"fail", "ii", false, func(c *call, a args) int32 {
			const most = 4096
			c.reason = clean(c.text(a.u32(0), min(a.u32(1), most)))
			return 0
		}},
		{"subscribe", "i", true, func(c *call, a args) int32 {
			kind := plugin.Kind(a.u32(0))
			switch {
			case c.kind != 0:
				return c.fault(abi.ErrNotAllowed, "subscribe: only in init")
			case !slices.Contains(allKinds(), kind):
				return c.fault(abi.ErrNotFound, "no event of kind %d", kind)
			case !slices.Contains(c.in.kinds, kind):
				c.in.kinds = append(c.in.kinds, kind)
			}
			return abi.OK
		}},
		{"describe", "ii", true, func(c *call, a args) int32 {
			const most = 200
			if c.kind != 0 || a.u32(1) > most {
				return c.fault(abi.ErrNotAllowed, "describe: only in init, and at most %d bytes", most)
			}
			c.in.summary = clean(c.text(a.u32(0), a.u32(1)))
			return abi.OK
		}},
		{"features", "ii", true, func(c *call, a args) int32 {
			return c.give(a.u32(0), a.u32(1), []byte(strings.Join(features(), "\n")))
		}},
		{"last_error", "ii", true, func(c *call, a args) int32 {
			return c.give(a.u32(0), a.u32(1), []byte(c.last))
		}},
	}
}

// features names every function, as capability.name, so that a guest may see
// what a newer host has.
func features() []string {
	var list []string
	for capability, functions := range hostFunctions() {
		for _, f := range functions {
			list = append(list, strings.TrimPrefix(capability+"."+f.name, "."))
		}
	}
	slices.Sort(list)
	return list
}

// logLeast is what a line counts for at least: it has a level, a time and a name.
const logLeast = 64

// log writes a line of the guest's, within its limit.
func (c *call) log(level int32, text []byte) {
	limit := c.in.ext.mod.limits.Log
	if c.logged += max(len(text), logLeast); c.logged > limit {
		if !c.dropped {
			c.dropped = true
			c.in.ext.log.Warn().Int("limit", limit).Msg("the extension logs too much in one call; the rest is left out")
		}
		return
	}
	levels := [...]zerolog.Level{zerolog.TraceLevel, zerolog.DebugLevel, zerolog.InfoLevel, zerolog.WarnLevel, zerolog.ErrorLevel}
	if level < 0 || int(level) >= len(levels) {
		level = abi.LevelInfo
	}
	c.in.ext.log.WithLevel(levels[level]).Msg(clean(string(text)))
}
