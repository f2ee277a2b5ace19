package coord

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/image"
)

// Names are unique in one runtime directory only. Two computations that would have one
// folder do not remove each other's generations.
func TestOneFolderTwoComputations(t *testing.T) {
	cfg := testConfig(t)
	first := startServer(t, cfg)
	startAgent(t, first, hello("a"), nil)
	store, err := image.OpenStore(filepath.Dir(cfg.Store.Path()), filepath.Base(cfg.Store.Path()))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeDir, cfg.Store = shortDir(t), store
	second := startServer(t, cfg)
	startAgent(t, second, hello("a"), nil)
	if _, err := startClient(t, first).Checkpoint(t.Context(), CheckpointRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = startClient(t, second).Checkpoint(t.Context(), CheckpointRequest{}, nil)
	if err == nil || !strings.Contains(err.Error(), image.ErrOwned.Error()) {
		t.Errorf("the second's checkpoint: %v, want %q", err, image.ErrOwned)
	}
}
