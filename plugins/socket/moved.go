package socket

import (
	"fmt"
	"path/filepath"
)

// mapNames has the sockets of UNIX be where the directories of their files are
// now. The kernel keeps the path that bind(2) is given, so an absolute one is the
// new one from then on, for getsockname(2) and for whoever connects.
func (s *state) mapNames(now func(path string) string) error {
	move := func(name []byte) ([]byte, error) {
		path, isPath := pathOf(name)
		if !isPath || path[0] != '/' {
			return name, nil
		}
		clean := filepath.Clean(path)
		moved := now(clean)
		switch {
		case moved == clean:
			return name, nil
		case len(moved) > maxName:
			return nil, fmt.Errorf("the socket %s is now %s: unix(7) allows %d bytes for a path", path, moved, maxName)
		}
		return []byte(moved), nil
	}
	for id, sock := range s.UNIX {
		var err error
		if sock.Name, err = move(sock.Name); err != nil {
			return err
		}
		if sock.PeerName, err = move(sock.PeerName); err != nil {
			return err
		}
		for i := range sock.Queue {
			if sock.Queue[i].From, err = move(sock.Queue[i].From); err != nil {
				return err
			}
		}
		sock.File.move(now)
		s.UNIX[id] = sock
	}
	return nil
}

func (f *socketFile) move(now func(path string) string) {
	if f == nil {
		return
	}
	for _, path := range []*string{&f.Dir, &f.Path} {
		if *path != "" {
			*path = now(*path)
		}
	}
}
