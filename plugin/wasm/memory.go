package wasm

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// withMemory are the events in which the processes have their memory.
func withMemory() []plugin.Kind {
	return []plugin.Kind{plugin.PreCheckpoint, plugin.Resume, plugin.Running}
}

// memReadFunctions read processes.
func memReadFunctions() []hostFunction {
	return []hostFunction{
		{"maps", "iii", true, func(c *call, a args) int32 {
			p, code := c.memoryOf(a.i32(0))
			if code != abi.OK {
				return code
			}
			if made, ok := p.(*madeUp); ok {
				return c.giveJSON(a.u32(1), a.u32(2), made.maps())
			}
			maps, err := readMaps(p.HostPID())
			if err != nil {
				return c.fault(abi.ErrFailed, "%v", err)
			}
			return c.giveJSON(a.u32(1), a.u32(2), maps)
		}},
		{"read", "ilii", true, func(c *call, a args) int32 {
			p, code := c.memoryOf(a.i32(0))
			if code != abi.OK {
				return code
			}
			addr, ptr, size := a[1], a.u32(2), a.u32(3)
			view, ok := c.memory().Read(ptr, size)
			if !ok {
				panic(misuse("a pointer outside of its memory"))
			}
			if addr > math.MaxInt64-uint64(size) {
				return c.fault(abi.ErrInvalid, "no address %#x", addr)
			}
			if size == 0 {
				return abi.OK
			}
			if _, err := p.ReadAt(view, int64(addr)); err != nil {
				clear(view)
				return c.fault(abi.ErrFailed, "%v", err)
			}
			return abi.OK
		}},
	}
}

// memWriteFunctions write to processes.
func memWriteFunctions() []hostFunction {
	return []hostFunction{
		{"write", "ilii", true, func(c *call, a args) int32 {
			p, code := c.memoryOf(a.i32(0))
			if code != abi.OK {
				return code
			}
			addr, data := a[1], c.bytes(a.u32(2), a.u32(3))
			if addr > math.MaxInt64-uint64(len(data)) {
				return c.fault(abi.ErrInvalid, "no address %#x", addr)
			}
			if len(data) == 0 {
				return abi.OK
			}
			if err := c.in.ext.write(c.kind, p, int64(addr), data); err != nil {
				return c.fault(abi.ErrFailed, "%v", err)
			}
			return abi.OK
		}},
	}
}

func (c *call) memoryOf(pid int32) (plugin.Process, int32) {
	if !c.during("memory", withMemory()...) {
		return nil, abi.ErrNotAllowed
	}
	return c.process(pid)
}

// write keeps what was there, so that a guest that fails leaves the program
// as it was.
func (e *extension) write(kind plugin.Kind, p plugin.Process, addr int64, data []byte) error {
	if kind == plugin.PreCheckpoint {
		old := make([]byte, len(data))
		if _, err := p.ReadAt(old, addr); err != nil {
			return err
		}
		e.undo = append(e.undo, written{p.PID(), addr, old})
	}
	_, err := p.WriteAt(data, addr)
	return err
}

// readMaps reads /proc/PID/maps, proc_pid_maps(5).
func readMaps(host int) ([]abi.Mapping, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(host) + "/maps")
	if err != nil {
		return nil, err
	}
	maps := []abi.Mapping{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			continue
		}
		start, end, _ := strings.Cut(fields[0], "-")
		m := abi.Mapping{Perms: fields[1], Path: strings.TrimLeft(fields[5], " ")}
		m.Start, _ = strconv.ParseUint(start, 16, 64)
		m.End, _ = strconv.ParseUint(end, 16, 64)
		m.Offset, _ = strconv.ParseUint(fields[2], 16, 64)
		maps = append(maps, m)
	}
	return maps, lines.Err()
}
