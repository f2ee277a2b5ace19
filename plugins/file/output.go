package file

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// placeOutput finds the output of a detached program where it has moved with the image, and
// gives it a file in dir where the program goes on under another name: what the image was
// made of may still write to the old one.
func (p *Plugin) placeOutput(dir string) {
	was, name := path.Split(p.config.Output)
	if p.config.Output == "" || dir == "" {
		return
	}
	was = path.Clean(was)
	begins, ends := strings.TrimSuffix(name, path.Ext(name)), path.Ext(name)
	for _, s := range p.state.Files {
		folder, base := path.Split(string(s.Path))
		other := strings.HasPrefix(base, begins+"-") && strings.HasSuffix(base, ends) // of another tree
		if s.Kind != kindRegular || !s.Inherited || base != name && !other || path.Base(folder) != path.Base(was) {
			continue
		}
		from, here := s.Path, path.Join(was, base)
		var st unix.Stat_t
		moved := errors.Is(unix.Stat(p.place(s.Path), &st), unix.ENOENT) && unix.Stat(here, &st) == nil
		switch {
		case dir != was && s.Flags&unix.O_APPEND != 0 && (moved || path.Clean(folder) == was):
			s.Path, s.fresh = pathname(path.Join(dir, base)), true
		case moved:
			s.Path = pathname(here)
		default:
			continue
		}
		p.host.Log().Info().Str("path", string(from)).Str("now", string(s.Path)).Msg("the output of the detached program has another place now")
	}
}

// reopenFresh opens a file for appending that may have to be made first.
func (p *Plugin) reopenFresh(s *file) (int, error) {
	name := p.place(s.Path)
	if err := os.MkdirAll(path.Dir(name), 0o700); err != nil {
		return -1, err
	}
	fd, err := unix.Open(name, s.Flags&^unix.O_ASYNC|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NOFOLLOW, s.Was.Mode&0o777)
	if err != nil {
		return -1, fmt.Errorf("%s: open: %w", s.Path, err)
	}
	return fd, nil
}
