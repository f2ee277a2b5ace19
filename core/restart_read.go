package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/proc"
)

// read reads the image, verifies all of it but the content of memory, and has
// every plugin load its state. It has no effect but a lock on the image.
func (r *restart) read(ctx context.Context) (err error) {
	dir := r.o.Generation
	if r.manifest, err = image.ReadManifest(dir); err != nil {
		return err
	}
	n, err := r.chooseAgent()
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if r.image, err = image.OpenAgent(dir, r.manifest, r.agent); err != nil {
		return err
	}
	if r.a.uses.origin, r.beside, err = image.Use(dir, n); err != nil {
		return err
	}
	if err := r.checkMachine(); err != nil {
		return err
	}
	payload, version, ok := r.image.Section(proc.SectionName)
	if !ok {
		return fmt.Errorf("%s: the image has no section %q", dir, proc.SectionName)
	}
	if r.state, err = proc.DecodeState(version, payload); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if payload, _, ok = r.image.Section(coreSection); !ok {
		return fmt.Errorf("%s: the image has no section %q", dir, coreSection)
	}
	if err := json.Unmarshal(payload, &r.core); err != nil {
		return fmt.Errorf("%s: section %q: %w", dir, coreSection, err)
	}
	if !r.state.Has(r.core.Main) && r.core.Ended == nil {
		return fmt.Errorf("%s: section %q: the command's process %d is not in the tree", dir, coreSection, r.core.Main)
	}
	if err := r.loadPlugins(ctx); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	a := r.a
	a.computation, a.command, a.cwd = r.manifest.Computation, r.core.Command, r.manifest.Cwd
	err = errors.Join(r.state.CheckHost(), r.checkFeatures())
	if !a.plugins.MapsPaths() { // else only they know where a file is now
		err = errors.Join(err, r.checkPaths())
	}
	return err
}

// checkFeatures refuses a processor that lacks what programs may have found at their start.
func (r *restart) checkFeatures() error {
	lacks := strings.Join(r.state.MissingFeatures(), ", ")
	if lacks == "" {
		return nil
	}
	const what = "the image was made on a processor with %s, which this one lacks: "
	if r.o.AllowMissingFeatures {
		r.a.log.Warn().Msgf(what+"a program that uses them dies", lacks)
		return nil
	}
	return fmt.Errorf(what+"its programs may use them; --allow-missing-features goes on: one that does dies", lacks)
}

// checkPaths refuses what is not as the image needs it, and tells of what goes on as it is.
func (r *restart) checkPaths() error {
	for _, path := range r.state.Written() {
		r.a.log.Warn().Str("path", path).
			Msg("the file was mapped, and has changed since the checkpoint: what was written to it stays, also by the program itself behind the checkpoint")
	}
	return r.state.CheckPaths()
}

// chooseAgent finds the agent to bring back, and returns its number in the manifest.
func (r *restart) chooseAgent() (n int, err error) {
	agents := r.manifest.Agents
	if r.o.Agent == "" && len(agents) > 1 {
		return 0, fmt.Errorf("made by %d agents, which are restarted together", len(agents))
	}
	if r.o.Agent != "" {
		n = slices.IndexFunc(agents, func(a image.AgentManifest) bool { return a.ID == r.o.Agent })
	}
	if n < 0 {
		return 0, fmt.Errorf("no agent %q", r.o.Agent)
	}
	r.agent = agents[n]
	return n, nil
}

// checkMachine refuses an image whose state cannot even be read here.
func (r *restart) checkMachine() error {
	h := r.image.Header()
	if h.Arch == archName && h.PageSize == os.Getpagesize() {
		return nil
	}
	return fmt.Errorf("%s: the image was made on %s with pages of %d bytes, this is %s with pages of %d",
		r.o.Generation, h.Arch, h.PageSize, archName, os.Getpagesize())
}

func (r *restart) loadPlugins(ctx context.Context) error {
	var sections []pluginSection
	for _, s := range r.image.Sections() {
		name, ok := strings.CutPrefix(s.Name, pluginPrefix)
		if !ok {
			continue
		}
		if slices.Contains(r.o.Ignore, name) {
			r.a.log.Warn().Str("ignored", name).Msg("the plugin's state in the image is left out")
			continue
		}
		payload, version, _ := r.image.Section(s.Name)
		sections = append(sections, pluginSection{Name: name, Version: version, Payload: payload})
	}
	return errors.Join(r.checkOwners(), r.a.plugins.Load(ctx, sections))
}

// checkOwners refuses to ignore a plugin without which descriptors would be
// missing.
func (r *restart) checkOwners() error {
	var errs []error
	for _, f := range r.state.Files {
		if slices.Contains(r.o.Ignore, f.Owner) {
			errs = append(errs, fmt.Errorf("plugin %s cannot be ignored: it keeps %s", f.Owner, f.Name()))
		}
	}
	return errors.Join(errs...)
}

// mapPaths finds directories, programs and mapped files where plugins say they
// are now.
func (r *restart) mapPaths() error {
	if !r.a.plugins.MapsPaths() {
		return nil // read has looked for them
	}
	if !r.mapped { // by a first attempt
		r.state.MapPaths(r.a.plugins.MapPath)
		r.mapped = true
	}
	return r.checkPaths()
}
