package coord

import (
	"context"
	"errors"
	"time"
)

// SetInterval sets the time between periodic checkpoints, from the end of one
// to the beginning of the next; 0 means none.
func (s *Server) SetInterval(d time.Duration) {
	s.mu.Lock()
	s.interval = max(d, 0)
	s.mu.Unlock()
	for _, m := range s.list() { // one of them may have to go on with it
		if err := m.conn.notify(methodInterval, intervalBody{max(d, 0)}); err != nil {
			s.log.Debug().Err(err).Str("agent", m.hello.ID).Msg("interval not told")
		}
	}
	select {
	case s.intervalChanged <- struct{}{}:
	default:
	}
}

// periodic takes checkpoints until the server closes. One that fails is
// logged and remembered for the status; the next goes on.
func (s *Server) periodic() {
	for {
		interval := s.currentInterval()
		var due <-chan time.Time
		if interval > 0 {
			due = time.After(interval)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-s.intervalChanged:
		case <-due:
			err := s.checkpointByTimer()
			switch {
			case err == nil || s.ctx.Err() != nil:
			case errors.Is(err, ErrBusy), errors.Is(err, ErrRestarting):
				s.log.Debug().Err(err).Msg("periodic checkpoint passed over")
			default:
				s.log.Error().Err(err).Msg("periodic checkpoint failed")
			}
		}
	}
}

// checkpointByTimer takes a checkpoint, for whose end a request waits.
func (s *Server) checkpointByTimer() error {
	if !s.start(true) {
		return ErrBusy
	}
	_, err := s.take(s.ctx, CheckpointRequest{}, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byTimer = false
	<-s.running
	return err
}

// start says whether no checkpoint is in progress, so that one is now.
func (s *Server) start(byTimer bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.running <- struct{}{}:
		s.byTimer = byTimer
		return true
	default:
		return false
	}
}

// awaitTimer waits until the periodic checkpoint has ended that is in progress, and takes its place.
func (s *Server) awaitTimer(asking context.Context, most time.Duration) error {
	s.mu.Lock()
	if !s.byTimer || s.awaited {
		s.mu.Unlock()
		return ErrBusy
	}
	s.awaited = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.awaited = false
		s.mu.Unlock()
	}()
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case s.running <- struct{}{}:
		return nil
	case <-late.C:
		return ErrBusy
	case <-asking.Done():
		return context.Cause(asking)
	case <-s.ctx.Done():
		return ErrClosed
	}
}
