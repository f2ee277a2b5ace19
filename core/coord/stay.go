package coord

import (
	"errors"
	"io/fs"
	"net"
	"os"

	"github.com/fsnotify/fsnotify"
)

// stay makes the socket again where others remove it: the directory of a login session goes with
// the user's last one (user-runtime-dir@.service of systemd), and jobs go on. It ends with
// the server.
func (s *Server) stay() {
	watcher, err := fsnotify.NewWatcher()
	if err != nil { // fs.inotify.max_user_instances
		s.log.Debug().Err(err).Msg("should the socket be removed, it is not made again")
		return
	}
	defer watcher.Close()
	for {
		slot, _ := s.listening()
		if err := watcher.Add(slot.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Debug().Err(err).Msg("should the socket be removed, it is not made again")
			return
		}
		for slot.hasSocket() {
			select {
			case <-watcher.Events:
			case <-watcher.Errors: // events may be lost: it looks
			case <-s.ctx.Done():
				return
			}
		}
		_ = watcher.Remove(slot.dir) // it may be gone
		if err := s.move(slot); err != nil {
			s.log.Warn().Err(err).Str("socket", socketPath(slot.dir, slot.name)).Msg("the socket was removed, and cannot be made again")
			return
		}
	}
}

func (s *slot) hasSocket() bool {
	_, err := os.Lstat(socketPath(s.dir, s.name))
	return !errors.Is(err, fs.ErrNotExist)
}

// move listens anew in place of old.
func (s *Server) move(old *slot) error {
	dir := s.cfg.lasting // what has lost the socket may be about to go as a whole
	if err := makePrivate(dir, os.Geteuid()); err != nil {
		return err
	}
	slot, ln, err := old.again(dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	closing, ended := s.closing, s.ln
	if !closing {
		s.slot, s.ln = slot, ln
	}
	s.mu.Unlock()
	switch {
	case closing && slot != old:
		return errors.Join(ln.Close(), slot.release())
	case closing: // the name goes with old
		return ln.Close()
	case dir != old.dir:
		err = old.release()
	case slot != old:
		err = old.lock.Close()
	}
	err = errors.Join(err, ended.Close())
	s.log.Warn().AnErr("left", err).Str("removed", socketPath(old.dir, old.name)).Str("socket", socketPath(dir, slot.name)).Msg("the socket was removed, and is made again")
	return nil
}

// again listens by the same name in dir, which may be the slot's own.
func (s *slot) again(dir string) (*slot, *net.UnixListener, error) {
	if dir != s.dir || !s.hasLock() {
		return claim(dir, s.name, false, func(string) error { return nil })
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	ln, err := s.listen()
	return s, ln, err
}

// hasLock says whether the lock file is still the one that is held.
func (s *slot) hasLock() bool {
	held, err := s.lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(lockPath(s.dir, s.name))
	return err == nil && os.SameFile(held, there)
}
