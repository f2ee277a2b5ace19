package core

import (
	"context"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/proc"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// chain is what the agent knows of its incremental generations. A restart
// begins a new one.
type chain struct {
	dirty  *proc.Dirty   // nil: generations are full
	base   *image.Parent // what changes are tracked from; nil: the next one is full
	length int           // generations from the full one to base

	pending *image.Parent // written, but not committed
	told    bool          // that memory cannot be tracked
}

// mark finds out what has changed since the generation before, and what the
// image builds on.
func (c *checkpoint) mark(ctx context.Context) error {
	ch := &c.a.chain
	if ch.dirty == nil {
		return nil
	}
	from := uint64(0)
	if c.parent != nil {
		from = c.parent.Generation
		ch.length++
	} else {
		ch.length = 1
	}
	ch.base = nil // tracking begins anew: should this generation fail, nothing is known of the one before
	err := c.tree.Mark(ctx, c.state, from, c.order.Generation)
	if err == nil {
		return faultpoint.At(faultpoint.Marked)
	}
	if ctx.Err() != nil {
		return err
	}
	log := c.a.log.Debug()
	if !ch.told {
		log = c.a.log.Warn()
	}
	ch.told = true
	log.Err(err).Uint64("generation", c.order.Generation).Msg("changes of memory cannot be tracked: it is saved whole")
	return nil
}

// base returns the generation to build on, nil for none.
func (c *checkpoint) base() *image.Parent {
	ch := &c.a.chain
	if ch.base == nil || ch.length >= c.a.opts.FullEvery {
		return nil
	}
	if err := image.HasParent(c.order.Dir, c.a.computation, *ch.base); err != nil {
		c.a.log.Warn().Err(err).Uint64("generation", c.order.Generation).Msg("the image is full: it cannot build on the one before")
		return nil
	}
	return ch.base
}

// stand has the image build on nothing: none of the memory of the one before is in it.
func (c *checkpoint) stand() {
	c.parent = nil
	c.a.chain.length = 1
}

// written notes an image that is not committed yet.
func (ch *chain) written(generation uint64, sum image.Summary) {
	if ch.dirty != nil {
		ch.pending = &image.Parent{Generation: generation, XXH3: sum.Files[0].XXH3}
	}
}

// end has the next generation build on this one, if it was committed.
func (ch *chain) end(committed bool) {
	if committed {
		ch.base = ch.pending
	}
	ch.pending = nil
}

// close ends the tracking.
func (ch *chain) close() {
	if ch.dirty != nil {
		ch.dirty.Close()
	}
}
