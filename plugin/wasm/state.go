package wasm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/hiatus-project/hiatus/internal/strictjson"
)

// stateFormat is of the host's frame; what is inside of Guest is the guest's
// affair.
const stateFormat = 1

// state is an extension in an image.
type state struct {
	Guest []byte      `json:"guest,omitempty"`
	Files []fileState `json:"files,omitempty"`
}

// empty says that an image need not name the extension.
func (s *state) empty() bool { return len(s.Guest) == 0 && len(s.Files) == 0 }

// Save implements plugin.Stater. An extension that has nothing to keep leaves
// nothing in the image, which can then be restarted without it.
func (e *extension) Save(_ context.Context, w io.Writer) error {
	s := state{Guest: e.committed, Files: e.taken}
	if e.in != nil {
		s.Guest = e.in.currentState()
	}
	e.saved, e.hasSaved = s.Guest, true
	if s.empty() {
		return nil
	}
	return json.NewEncoder(w).Encode(s)
}

// Load implements plugin.Stater.
func (e *extension) Load(_ context.Context, _ uint16, r io.Reader) error {
	var s state
	if err := strictjson.Decode(r, &s); err != nil {
		return err
	}
	if limit := e.mod.limits.State; len(s.Guest) > limit {
		return fmt.Errorf("a state of %d bytes, the limit is %d", len(s.Guest), limit)
	}
	ids := map[int]bool{}
	for _, f := range s.Files {
		if err := f.check(); err != nil {
			return fmt.Errorf("open file %d: %w", f.ID, err)
		}
		if ids[f.ID] {
			return fmt.Errorf("open file %d stands there twice", f.ID)
		}
		ids[f.ID] = true
	}
	e.reset()
	if e.next != nil { // it may have read the state that was
		(<-e.next).in.close()
		e.next = nil
	}
	e.committed, e.loaded = s.Guest, s.Files
	return nil
}
