package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// results is a table that tests fill while they run side by side.
type results struct {
	head string // columns, divided by tabs

	mu    sync.Mutex
	lines []string
}

// add adds a line.
func (r *results) add(columns ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.TrimSuffix(fmt.Sprintf(strings.Repeat("%v\t", len(columns)), columns...), "\t"))
}

// String writes the lines in the order in which they came.
func (r *results) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	for _, l := range append([]string{r.head}, r.lines...) {
		fmt.Fprintln(w, l)
	}
	w.Flush()
	return text.String()
}

// publish shows the table, and appends it to the file that HIATUS_E2E_TABLE
// names.
func (r *results) publish(t *testing.T) {
	if len(r.lines) == 0 {
		return
	}
	t.Logf("\n%s", r)
	path := os.Getenv("HIATUS_E2E_TABLE")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s\n", r)
		f.Close()
	}
	if err != nil {
		t.Errorf("table of results: %v", err)
	}
}
