package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// pluginSection is the state of one plugin in an image.
type pluginSection struct {
	Name    string // of the plugin
	Version uint16 // the state format of Payload
	Payload []byte
}

// Save returns the state of each plugin that has some, in order. One that
// writes nothing has none: the image does not need it.
func (s *pluginSet) Save(ctx context.Context) ([]pluginSection, error) {
	var sections []pluginSection
	for _, m := range s.members {
		if m.stater == nil {
			continue
		}
		var state bytes.Buffer
		err := s.call(ctx, m, phaseSave, subject{}, func(ctx context.Context) error { return m.stater.Save(ctx, &state) })
		if err != nil {
			return nil, err
		}
		if state.Len() == 0 {
			continue
		}
		sections = append(sections, pluginSection{m.def.Name, m.def.State, state.Bytes()})
	}
	return sections, nil
}

// Load gives each plugin its state. It first makes sure that every section
// has its plugin, in a format that the plugin reads; then every Load runs, and
// the errors are joined, so that the user learns at once of all that stands
// in the way. A plugin without a section starts afresh.
func (s *pluginSet) Load(ctx context.Context, sections []pluginSection) error {
	s.resetTimings()
	byName := make(map[string]pluginSection, len(sections))
	var errs []error
	for _, sec := range sections {
		if _, twice := byName[sec.Name]; twice {
			errs = append(errs, fmt.Errorf("the image has two sections of plugin %s", sec.Name))
		}
		byName[sec.Name] = sec
		errs = append(errs, s.accepts(sec))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, m := range s.members {
		sec, saved := byName[m.def.Name]
		if !saved {
			continue
		}
		errs = append(errs, s.call(ctx, m, phaseLoad, subject{}, func(ctx context.Context) error {
			return m.stater.Load(ctx, sec.Version, bytes.NewReader(sec.Payload))
		}))
	}
	return errors.Join(errs...)
}

// accepts says whether a plugin of the set can read sec.
func (s *pluginSet) accepts(sec pluginSection) error {
	m, err := s.find(sec.Name)
	switch {
	case err != nil:
		return fmt.Errorf("the image has state of a plugin: %w; give it by --with-plugin, or leave its state out by --ignore-plugin %s", err, sec.Name)
	case m.stater == nil:
		return fmt.Errorf("the image has state of plugin %s, which keeps none", sec.Name)
	case sec.Version < m.def.Oldest || sec.Version > m.def.State:
		return fmt.Errorf("plugin %s: the image has state format %d, readable are %d to %d", sec.Name, sec.Version, m.def.Oldest, m.def.State)
	}
	return nil
}
