package coord

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"
)

// stayEach is how often the socket is looked at. inotify(7) would tell at once, but a user has
// 128 instances of it, and may have more computations on a machine.
const stayEach = 5 * time.Second

// stay makes the socket again where others remove it: the directory of a login session goes with
// the user's last one (user-runtime-dir@.service of systemd), and jobs go on. It ends with
// the server.
func (s *Server) stay(each time.Duration) {
	look := time.NewTicker(each)
	defer look.Stop()
	told := false
	for {
		select {
		case <-look.C:
		case <-s.ctx.Done():
			return
		}
		slot, _ := s.listening()
		if slot.hasSocket() {
			continue
		}
		if err := s.move(slot); err != nil && !told {
			told = true
			s.log.Warn().Err(err).Str("socket", socketPath(slot.dir, slot.name)).Msg("the socket was removed, and cannot be made again")
		}
	}
}

// move listens anew in place of old.
func (s *Server) move(old *slot) error {
	slot, ln, err := s.again(old)
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
	case slot != old:
		err = old.release()
	}
	err = errors.Join(err, ended.Close())
	s.log.Warn().AnErr("left", err).Str("removed", socketPath(old.dir, old.name)).Str("socket", socketPath(slot.dir, slot.name)).Msg("the socket was removed, and is made again")
	return nil
}

// again listens by the same name: where it did, or in the directory that stays, which comes first
// where the other is a session's, and may be about to go.
func (s *Server) again(old *slot) (*slot, *net.UnixListener, error) {
	uid := os.Geteuid()
	dirs := []string{old.dir, s.cfg.lasting}
	if old.dir == filepath.Join(sessionBase(uid), "hiatus") {
		dirs = []string{s.cfg.lasting, old.dir}
	}
	var errs []error
	for _, dir := range dirs {
		err := makePrivate(dir, uid)
		if err == nil {
			var slot *slot
			var ln *net.UnixListener
			if slot, ln, err = old.again(dir); err == nil {
				return slot, ln, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
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
