package wasm

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hiatus-project/hiatus/internal/environ"
	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// envFunctions read the environments of processes and of the command, and
// change the former in a restart.
func envFunctions() []hostFunction {
	return []hostFunction{
		{"process", "iii", true, func(c *call, a args) int32 {
			p, code := c.memoryOf(a.i32(0))
			if code != abi.OK {
				return code
			}
			// What the C library has now, else what the process began with.
			list, err := environ.Read(p)
			if err != nil {
				data, err := os.ReadFile("/proc/" + strconv.Itoa(p.HostPID()) + "/environ")
				if err != nil {
					return c.fault(abi.ErrFailed, "%v", err)
				}
				return c.give(a.u32(1), a.u32(2), data)
			}
			return c.give(a.u32(1), a.u32(2), joinEnviron(list))
		}},
		{"own", "ii", true, func(c *call, a args) int32 {
			return c.give(a.u32(0), a.u32(1), joinEnviron(c.in.ext.mod.cfg.Environ))
		}},
		{"change", "iii", true, func(c *call, a args) int32 {
			if !c.during("env.change", plugin.Restart) {
				return abi.ErrNotAllowed
			}
			var changes []abi.EnvChange
			if err := c.decode(a.u32(1), a.u32(2), &changes); err != nil {
				return c.fault(abi.ErrInvalid, "env.change: %v", err)
			}
			for _, ch := range changes {
				if ch.Name == "" || strings.ContainsAny(ch.Name, "=\x00") || ch.Value != nil && strings.ContainsRune(*ch.Value, 0) {
					return c.fault(abi.ErrInvalid, "env.change: no name, or a character that may not stand there: %q", ch.Name)
				}
			}
			pid := int(a.i32(0))
			if pid != 0 {
				if _, code := c.process(int32(pid)); code != abi.OK {
					return code
				}
			}
			e := c.in.ext
			e.environ = append(e.environ, envChanges{pid, changes})
			return abi.OK
		}},
	}
}

// envChanges are for one process, or for all where pid is 0.
type envChanges struct {
	pid     int
	changes []abi.EnvChange
}

func joinEnviron(list []string) []byte {
	var b []byte
	for _, entry := range list {
		b = append(append(b, entry...), 0)
	}
	return b
}

// SaveProcess implements plugin.ProcessSaver: there is nothing to save.
func (e *extension) SaveProcess(context.Context, plugin.Process) error { return nil }

// RestoreProcess implements plugin.ProcessSaver: the process has its memory,
// and one thread.
func (e *extension) RestoreProcess(ctx context.Context, p plugin.Process) error {
	if e.failed {
		return nil
	}
	change := map[string]*string{}
	for _, c := range e.environ {
		if c.pid != 0 && c.pid != p.PID() {
			continue
		}
		for _, ch := range c.changes {
			change[ch.Name] = ch.Value
		}
	}
	if len(change) == 0 {
		return nil
	}
	err := environ.Change(ctx, p, func(old []string) []string { return applyEnviron(old, change) })
	if err != nil {
		// A program without a C library has its environment where nobody else
		// can know: that is no reason not to restart it.
		e.log.Warn().Err(err).Int("pid", p.PID()).Msg("the environment is not changed")
	}
	return nil
}

// applyEnviron changes what is there and appends what is new, sorted.
func applyEnviron(old []string, change map[string]*string) []string {
	var out []string
	done := map[string]bool{}
	for _, entry := range old {
		name, _, _ := strings.Cut(entry, "=")
		value, changed := change[name]
		switch {
		case !changed:
			out = append(out, entry)
		case value != nil && !done[name]:
			out = append(out, name+"="+*value)
		}
		done[name] = true
	}
	var added []string
	for name, value := range change {
		if value != nil && !done[name] {
			added = append(added, name+"="+*value)
		}
	}
	slices.Sort(added)
	return append(out, added...)
}

var _ plugin.ProcessSaver = (*extension)(nil)
