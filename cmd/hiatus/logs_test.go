package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestCopyLog(t *testing.T) {
	const log = `{"plugin":"core","time":"2026-01-02T03:04:05.000Z","message":"one"}
{"plugin":"file","time":"2026-01-02T03:04:06.000Z","message":"two"}
{"plugin":"fi
{"plugin":"file","time":"2026-01-02T03:05:06.000Z","message":"three"}
`
	at := func(s string) time.Time {
		t.Helper()
		since, err := parseSince(s, time.Date(2026, 1, 2, 3, 5, 7, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		return since
	}
	for _, tt := range []struct {
		plugins []string
		since   string
		want    string
	}{
		{nil, "", "one two three"},
		{[]string{"file"}, "", "two three"},
		{[]string{"file", "core"}, "10s", "three"},
		{[]string{"core"}, "2026-01-02T03:04:05Z", "one"},
		{[]string{"event"}, "", ""},
	} {
		var out bytes.Buffer
		if err := copyLog(&out, strings.NewReader(log), logFilter{tt.plugins, at(tt.since)}, false, nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			_, message, _ := strings.Cut(line, `"message":"`)
			got = append(got, strings.TrimSuffix(strings.TrimSpace(message), `"}`))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%v since %q: %q, want %q", tt.plugins, tt.since, got, tt.want)
		}
	}
}

// TestFollowLog: what comes in two pieces is one line, and the last lines of a
// computation that has ended are shown.
func TestFollowLog(t *testing.T) {
	pieces := []string{`{"plugin":"core","message":"o`, "ne\"}\n", "{\"plugin\":\"core\",\"message\":\"two\"}\n"}
	var out bytes.Buffer
	log := &growing{}
	err := copyLog(&out, log, logFilter{}, true, func() bool {
		log.WriteString(pieces[0])
		pieces = pieces[1:]
		return len(pieces) > 0
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"one"`) || !strings.Contains(got, `"two"`) {
		t.Errorf("got %q", got)
	}
}

// growing is a file that is appended to.
type growing struct{ bytes.Buffer }

func (g *growing) Read(p []byte) (int, error) {
	if g.Len() == 0 {
		return 0, io.EOF
	}
	return g.Buffer.Read(p)
}

func TestParseSince(t *testing.T) {
	if _, err := parseSince("yesterday", time.Now()); err == nil {
		t.Error("no error")
	}
}
