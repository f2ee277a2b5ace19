package coord

import (
	"context"
	"errors"

	"github.com/hiatus-project/hiatus/plugin"
)

var (
	// ErrGivenUp says that the session (a checkpoint, or a restart) was
	// given up. It wraps the reason.
	ErrGivenUp = errors.New("given up")
	// ErrNotFound is Lookup's answer for a key that is not visible.
	ErrNotFound = errors.New("not published")
	// ErrBusy is the answer to a checkpoint request during another one, unless that is a periodic
	// one that ends in time, and nobody else waits for that.
	ErrBusy = errors.New("a checkpoint is in progress")
	// ErrRestarting is the answer while agents wait for each other in a restart.
	ErrRestarting = errors.New("a restart is in progress")
	// ErrNoAgent is the answer to a checkpoint request when nobody has joined.
	ErrNoAgent = errors.New("the computation has no agent")
	// ErrMismatch says that an agent differs from the others in plugins, state
	// formats or barriers, and cannot join them.
	ErrMismatch = errors.New("agents differ")
	// ErrOther says that the computation under a name is not the one that an
	// agent belongs to.
	ErrOther = errors.New("another computation runs under the name")
	// ErrIDTaken says that the computation has an agent of that id.
	ErrIDTaken = errors.New("is taken by another agent")
	// ErrNameTaken says that a running computation has the name.
	ErrNameTaken = errors.New("name is taken by a running computation")
	// ErrNotRunning says that no computation runs under the name.
	ErrNotRunning = errors.New("no such computation is running")
	// ErrStopped says that the coordinator's process is stopped, as the agent is
	// by ^Z together with its program: it cannot answer.
	ErrStopped = errors.New("the computation is suspended, and its agent with it")
	// ErrClosed says that the coordinator ends.
	ErrClosed = errors.New("the coordinator is closing")
	// ErrConnectionLost says that the other end is gone.
	ErrConnectionLost = errors.New("connection lost")

	// errProtocol marks what a well-behaved peer never sends.
	errProtocol = errors.New("protocol error")
)

// wireNames are the errors that keep their identity across the wire.
func wireNames() map[string]error {
	return map[string]error{
		"given-up":      ErrGivenUp,
		"not-found":     ErrNotFound,
		"busy":          ErrBusy,
		"restarting":    ErrRestarting,
		"no-agent":      ErrNoAgent,
		"mismatch":      ErrMismatch,
		"other":         ErrOther,
		"id-taken":      ErrIDTaken,
		"closed":        ErrClosed,
		"connection":    ErrConnectionLost,
		"deadline":      context.DeadlineExceeded,
		"canceled":      context.Canceled,
		"not-supported": errors.ErrUnsupported,
		"passing":       plugin.ErrPassing,
	}
}

// wireError is an error on the wire.
type wireError struct {
	Text    string               `json:"text"`
	Is      []string             `json:"is,omitempty"`
	Refusal *plugin.RefusalError `json:"refusal,omitempty"`
}

// remoteError is an error that has crossed the wire.
type remoteError struct {
	text  string
	wraps []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.wraps }

// encodeError prepares err, which is not nil, for the wire.
func encodeError(err error) *wireError {
	w := &wireError{Text: err.Error()}
	for name, known := range wireNames() {
		if errors.Is(err, known) {
			w.Is = append(w.Is, name)
		}
	}
	errors.As(err, &w.Refusal)
	return w
}

// decode is encodeError's inverse; names from a newer peer are passed over.
func (w *wireError) decode() error {
	e := &remoteError{text: w.Text}
	names := wireNames()
	for _, name := range w.Is {
		if known, ok := names[name]; ok {
			e.wraps = append(e.wraps, known)
		}
	}
	if w.Refusal != nil {
		e.wraps = append(e.wraps, w.Refusal)
	}
	return e
}

// givenUp wraps the reason for which a session was given up.
func givenUp(reason error) error {
	if errors.Is(reason, ErrGivenUp) {
		return reason
	}
	return &remoteError{
		text:  ErrGivenUp.Error() + ": " + reason.Error(),
		wraps: []error{ErrGivenUp, reason},
	}
}
