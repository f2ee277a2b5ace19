package core

import "context"

// Publish has the plugins, in reverse, show what they have made.
func (s *pluginSet) Publish(ctx context.Context) error {
	for _, m := range reversed(s.members) {
		if m.shows == nil {
			continue
		}
		if err := s.callWithin(ctx, maxHold, m, phasePublish, subject{}, m.shows.Publish); err != nil {
			return err
		}
	}
	return nil
}

// Published tells them that it stays.
func (s *pluginSet) Published(ctx context.Context) {
	for _, m := range reversed(s.members) {
		if m.shows != nil {
			err := s.call(ctx, m, phasePublish, subject{}, func(context.Context) error { m.shows.Published(); return nil })
			if err != nil {
				m.log.Warn().Err(err).Msg("after the restart")
			}
		}
	}
}
