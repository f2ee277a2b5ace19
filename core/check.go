package core

import (
	"context"
	"errors"
	"time"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/plugin"
)

// Check implements coord.Handler: a checkpoint that stops before anything is
// written.
func (a *agent) Check(ctx context.Context) ([]coord.Refusal, error) {
	a.sequence.Lock()
	defer a.sequence.Unlock()
	if err := a.awaitMemory(ctx); err != nil {
		return nil, err
	}
	a.meeting.begin(0)
	a.tr.Prepare()
	c := &checkpoint{a: a, begun: time.Now()}
	err := c.freeze(ctx)
	if err == nil {
		err = c.save(ctx)
	}
	if err == nil { // what belongs together a plugin knows when it has seen all
		_, err = a.plugins.Save(ctx)
	}
	err = errors.Join(err, c.giveUp())
	refusals, rest := splitRefusals(err)
	return refusals, rest
}

// splitRefusals takes the refusals out of joined errors.
func splitRefusals(err error) (refusals []coord.Refusal, rest error) {
	refusal, refused := errors.AsType[*plugin.RefusalError](err)
	if !refused {
		return nil, err
	}
	if wrapped, ok := err.(interface{ Unwrap() error }); ok {
		return splitRefusals(wrapped.Unwrap())
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []coord.Refusal{*refusal}, nil
	}
	all := joined.Unwrap()
	if err.Error() != errors.Join(all...).Error() { // wrapped with its cause by fmt.Errorf
		return []coord.Refusal{*refusal}, nil
	}
	for _, e := range all {
		r, other := splitRefusals(e)
		refusals, rest = append(refusals, r...), errors.Join(rest, other)
	}
	return refusals, rest
}
