package plugintest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

// descriptors maps every open descriptor of the test process to its link.
type descriptors map[int]string

// openDescriptors reads /proc/self/fd.
func openDescriptors(t testing.TB) descriptors {
	t.Helper()
	// The runtime makes the descriptors of its poller with the first pipe;
	// they must not look like a plugin's.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := descriptors{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// The descriptor of the directory itself is gone by now.
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[fd] = link
		}
	}
	return open
}

// requireSame fails the test when the open descriptors are no longer before.
func requireSame(t testing.TB, before descriptors, what string) {
	t.Helper()
	for _, change := range before.changes(openDescriptors(t)) {
		t.Errorf("%s: %s", what, change)
	}
}

// changes names each difference. A link is compared too, since a number may
// be closed and used again.
func (before descriptors) changes(after descriptors) []string {
	var changes []string
	for fd, link := range after {
		switch was, ok := before[fd]; {
		case !ok:
			changes = append(changes, fmt.Sprintf("descriptor %d (%s) was left open", fd, link))
		case was != link:
			changes = append(changes, fmt.Sprintf("descriptor %d was %s and is %s", fd, was, link))
		}
	}
	for fd, link := range before {
		if _, ok := after[fd]; !ok {
			changes = append(changes, fmt.Sprintf("descriptor %d (%s) was closed", fd, link))
		}
	}
	slices.Sort(changes)
	return changes
}
