package wasm

import (
	"path/filepath"
	"strings"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

const maxPaths = 1024

// pathFunctions rewrite paths on restart.
func pathFunctions() []hostFunction {
	return []hostFunction{
		{"map", "iiii", true, func(c *call, a args) int32 {
			if !c.during("path.map", plugin.Restart) {
				return abi.ErrNotAllowed
			}
			from, to := c.text(a.u32(0), min(a.u32(1), 1<<16)), c.text(a.u32(2), min(a.u32(3), 1<<16))
			e := c.in.ext
			if !goodPath(from) || !goodPath(to) || len(e.paths) >= maxPaths {
				return c.fault(abi.ErrInvalid, "path.map: %q to %q: wants absolute paths, at most %d pairs", from, to, maxPaths)
			}
			e.paths = append(e.paths, [2]string{filepath.Clean(from), filepath.Clean(to)})
			return abi.OK
		}},
	}
}

// MapPath implements plugin.PathMapper: the first pair that matches whole
// components counts.
func (e *extension) MapPath(path string) string {
	for _, pair := range e.paths {
		if path == pair[0] {
			return pair[1]
		}
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(pair[0], "/")+"/"); ok {
			return filepath.Join(pair[1], rest)
		}
	}
	return path
}

var _ plugin.PathMapper = (*extension)(nil)
