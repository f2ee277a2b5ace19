package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/plugin"
)

// ClaimFile asks the plugins in order whose f is, those that take files first,
// and returns the name of the one that has saved it. An object that nobody claims is refused.
func (s *pluginSet) ClaimFile(ctx context.Context, f plugin.OpenFile) (owner string, err error) {
	about := aboutFile(f)
	for _, m := range s.members {
		if m.taker == nil || m.files == nil {
			continue
		}
		err := s.call(ctx, m, phaseTake, about, func(ctx context.Context) error { return m.taker.TakeFile(ctx, f) })
		switch {
		case err == nil:
			return m.def.Name, nil
		case !notMine(phaseTake, err):
			return "", err
		}
	}
	for _, m := range s.members {
		if m.files == nil {
			continue
		}
		err := s.call(ctx, m, phaseClaim, about, func(ctx context.Context) error { return m.files.ClaimFile(ctx, f) })
		switch {
		case err == nil:
			return m.def.Name, nil
		case !notMine(phaseClaim, err):
			return "", err
		}
	}
	return "", plugin.Refuse(f, "no plugin keeps this kind of object")
}

// ReopenFile has owner make f again, and returns the descriptor, which the
// caller closes.
func (s *pluginSet) ReopenFile(ctx context.Context, owner string, f plugin.OpenFile) (int, error) {
	m, err := s.find(owner)
	if err != nil {
		return -1, fmt.Errorf("open file %d (%s): %w", f.ID, f.Link, err)
	}
	if m.files == nil {
		return -1, fmt.Errorf("open file %d (%s): plugin %s does not keep open files", f.ID, f.Link, owner)
	}
	made := -1
	err = s.call(ctx, m, phaseReopen, aboutFile(f), func(ctx context.Context) error {
		fd, err := m.files.ReopenFile(ctx, f)
		return keepDescriptor(&made, fd, err, f.Link)
	})
	if err != nil {
		return -1, err
	}
	return made, nil
}

// FillFiles tells the plugins, in reverse, that all open files exist: fds by
// their IDs.
func (s *pluginSet) FillFiles(ctx context.Context, procs []plugin.Process, fds map[int]int) error {
	for _, m := range reversed(s.members) {
		if m.filler == nil {
			continue
		}
		err := s.call(ctx, m, phaseFill, subject{}, func(ctx context.Context) error {
			return m.filler.FillFiles(ctx, leaseAll(ctx, procs), maps.Clone(fds))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ClaimMap asks the plugins in order whose mapping m of p is. The owner is ""
// where nobody claims it: the engine's own rules apply.
func (s *pluginSet) ClaimMap(ctx context.Context, p plugin.Process, mapping plugin.Mapping) (owner string, policy plugin.MapPolicy, err error) {
	about := aboutMapping(p, mapping)
	for _, m := range s.members {
		if m.maps == nil {
			continue
		}
		var answer plugin.MapPolicy
		err := s.call(ctx, m, phaseMap, about, func(ctx context.Context) (err error) {
			answer, err = m.maps.ClaimMap(ctx, leaseOf(ctx, p), mapping)
			if err == nil {
				err = m.checkPolicy(answer)
			}
			return err
		})
		switch {
		case err == nil:
			return m.def.Name, answer, nil
		case !notMine(phaseMap, err):
			return "", 0, err
		}
	}
	return "", 0, nil
}

// checkPolicy rejects an answer that a restart could not follow.
func (m *member) checkPolicy(policy plugin.MapPolicy) error {
	switch {
	case policy < plugin.MapSave || policy > plugin.MapAttach:
		return fmt.Errorf("claimed a mapping with the unknown policy %d", policy)
	case policy == plugin.MapReopen && m.reopener == nil:
		return errors.New("claimed a mapping to reopen it, but has no ReopenMap")
	case policy == plugin.MapAttach && m.attacher == nil:
		return errors.New("claimed a mapping to attach it, but has no AttachMap")
	}
	return nil
}

// ReopenMap has owner make the file of a mapping again, and returns the
// descriptor, which the caller closes.
func (s *pluginSet) ReopenMap(ctx context.Context, owner string, p plugin.Process, mapping plugin.Mapping) (int, error) {
	m, err := s.find(owner)
	if err != nil {
		return -1, fmt.Errorf("pid %d: mapping %#x-%#x: %w", p.PID(), mapping.Start, mapping.End, err)
	}
	if m.reopener == nil {
		return -1, fmt.Errorf("pid %d: mapping %#x-%#x: plugin %s has no ReopenMap", p.PID(), mapping.Start, mapping.End, owner)
	}
	made := -1
	err = s.call(ctx, m, phaseMapAt, aboutMapping(p, mapping), func(ctx context.Context) error {
		fd, err := m.reopener.ReopenMap(ctx, leaseOf(ctx, p), mapping)
		return keepDescriptor(&made, fd, err, mapping.Path)
	})
	if err != nil {
		return -1, err
	}
	return made, nil
}

// Contents lists what the plugins keep beside their states, by owner.
func (s *pluginSet) Contents(ctx context.Context) ([]proc.Content, error) {
	var all []proc.Content
	for _, m := range s.members {
		if m.contents == nil {
			continue
		}
		err := s.call(ctx, m, phaseContent, subject{fd: -1}, func(ctx context.Context) error {
			list, err := m.contents.Contents(ctx)
			for _, c := range list {
				all = append(all, proc.Content{Owner: m.def.Name, Content: c})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ContentTarget has owner say where the content of its object goes.
func (s *pluginSet) ContentTarget(ctx context.Context, owner string, object int, size int64) (w io.WriterAt, err error) {
	m, err := s.find(owner)
	if err != nil {
		return nil, fmt.Errorf("content %d: %w", object, err)
	}
	if m.contents == nil {
		return nil, fmt.Errorf("content %d: plugin %s keeps none", object, owner)
	}
	err = s.call(ctx, m, phaseContent, subject{fd: -1}, func(ctx context.Context) (err error) {
		w, err = m.contents.ContentTarget(ctx, object, size)
		return err
	})
	return w, err
}

// AttachMap has owner make a mapping again.
func (s *pluginSet) AttachMap(ctx context.Context, owner string, p plugin.Process, mapping plugin.Mapping, filling bool) error {
	m, err := s.find(owner)
	if err != nil {
		return fmt.Errorf("pid %d: mapping %#x-%#x: %w", p.PID(), mapping.Start, mapping.End, err)
	}
	if m.attacher == nil {
		return fmt.Errorf("pid %d: mapping %#x-%#x: plugin %s has no AttachMap", p.PID(), mapping.Start, mapping.End, owner)
	}
	return s.call(ctx, m, phaseAttach, aboutMapping(p, mapping), func(ctx context.Context) error {
		return m.attacher.AttachMap(ctx, leaseOf(ctx, p), mapping, filling)
	})
}

// FreeHere returns what keeps the saved objects from being made in the current
// namespaces.
func (s *pluginSet) FreeHere(ctx context.Context) error {
	var errs []error
	for _, m := range s.members {
		if m.placer != nil {
			errs = append(errs, s.call(ctx, m, phasePlace, subject{}, m.placer.FreeHere))
		}
	}
	return errors.Join(errs...)
}

// SaveProcess has the plugins save what they keep of p, in order.
func (s *pluginSet) SaveProcess(ctx context.Context, p plugin.Process) error {
	return s.eachSaver(ctx, s.members, phaseProcess, p, plugin.ProcessSaver.SaveProcess)
}

// RestoreProcess has the plugins restore what they keep of p, in reverse.
func (s *pluginSet) RestoreProcess(ctx context.Context, p plugin.Process) error {
	return s.eachSaver(ctx, reversed(s.members), phaseRestore, p, plugin.ProcessSaver.RestoreProcess)
}

func (s *pluginSet) eachSaver(ctx context.Context, members []*member, phase string, p plugin.Process, do func(plugin.ProcessSaver, context.Context, plugin.Process) error) error {
	about := subject{pid: p.PID(), fd: -1, object: "process"}
	for _, m := range members {
		if m.saver == nil {
			continue
		}
		if err := s.call(ctx, m, phase, about, func(ctx context.Context) error { return do(m.saver, ctx, leaseOf(ctx, p)) }); err != nil {
			return err
		}
	}
	return nil
}

// keepDescriptor stores the descriptor that a plugin made, if it made one.
func keepDescriptor(dst *int, fd int, err error, object string) error {
	switch {
	case err != nil:
		return err
	case fd < 0:
		return fmt.Errorf("%s: returned neither a descriptor nor an error", object)
	}
	*dst = fd
	return nil
}

func aboutFile(f plugin.OpenFile) subject {
	about := subject{fd: -1, object: f.Link}
	if len(f.Refs) > 0 {
		about.pid, about.fd = f.Refs[0].PID, f.Refs[0].FD
	}
	return about
}

func aboutMapping(p plugin.Process, m plugin.Mapping) subject {
	return subject{pid: p.PID(), fd: -1, object: m.Path}
}
