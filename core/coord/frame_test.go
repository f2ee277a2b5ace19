package coord

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
)

func TestFrame(t *testing.T) {
	want := envelope{ID: 7, Method: "barrier", Body: json.RawMessage(`{"name":"<x>"}`)}
	frame, err := encodeFrame(want)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(frame, frame...))
	for range 2 {
		got, err := readFrame(r)
		var a, b barrierBody
		if err != nil || got.ID != want.ID || got.Method != want.Method ||
			json.Unmarshal(got.Body, &a) != nil || json.Unmarshal(want.Body, &b) != nil || a != b {
			t.Errorf("got %+v, error %v", got, err)
		}
	}
	if _, err := readFrame(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < len(frame); n++ {
		if _, err := readFrame(bytes.NewReader(frame[:n])); err != io.ErrUnexpectedEOF {
			t.Fatalf("after %d of %d bytes: %v", n, len(frame), err)
		}
	}
}

func TestFrameLimit(t *testing.T) {
	body, err := json.Marshal(strings.Repeat("x", maxFrame))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encodeFrame(envelope{Method: "publish", Body: body}); err == nil {
		t.Error("a frame over the limit was encoded")
	}
	body = body[len(body)-maxFrame+100:]
	body[0] = '"'
	frame, err := encodeFrame(envelope{Method: "publish", Body: body})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(bytes.NewReader(frame)); err != nil {
		t.Errorf("a frame of %d bytes: %v", len(frame), err)
	}
}

// TestPublishTooBig must not cost the connection.
func TestPublishTooBig(t *testing.T) {
	s := startServer(t, testConfig(t))
	a := startAgent(t, s, hello("a"), nil)
	if err := a.member.Publish(t.Context(), "k", make([]byte, maxFrame)); err == nil || errors.Is(err, ErrConnectionLost) {
		t.Errorf("Publish: %v", err)
	}
	if err := a.member.Publish(t.Context(), "k", make([]byte, 12e6)); err != nil {
		t.Errorf("Publish of 12 MB: %v", err)
	}
}

func TestErrorAcrossTheWire(t *testing.T) {
	refusal := &plugin.RefusalError{PID: 7, FD: -1, Object: "io_uring", Reason: "not kept"}
	err := fmt.Errorf("agent a: %w: %w", refusal, givenUp(context.DeadlineExceeded))
	b, jsonErr := json.Marshal(encodeError(err))
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	var w wireError
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	w.Is = append(w.Is, "from-the-future")
	got := w.decode()
	var gotRefusal *plugin.RefusalError
	if got.Error() != err.Error() || !errors.As(got, &gotRefusal) || *gotRefusal != *refusal {
		t.Errorf("got %v, refusal %+v", got, gotRefusal)
	}
	for name, known := range wireNames() {
		if errors.Is(got, known) != errors.Is(err, known) {
			t.Errorf("%s: errors.Is differs", name)
		}
	}
	if again := encodeError(got); again.Text != err.Error() || again.Refusal == nil {
		t.Errorf("a second crossing gives %+v", again)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", "\x00\x00\x00\x00", "\xff\xff\xff\xff{}", rawFrame(helloCommand), rawFrame(`{"id":1}`),
		rawFrame(`{"id":1,"error":{"text":"x","is":["busy"],"refusal":{"pid":1}}}`), rawFrame(`{"id":1e3,"body":null}`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		e, err := readFrame(r)
		if err != nil {
			return
		}
		if e.ID == 0 && e.Method == "" || e.Method != "" && e.Error != nil {
			t.Fatalf("accepted %+v", e)
		}
		if e.Error != nil {
			_ = e.Error.decode().Error()
		}
		frame, err := encodeFrame(e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readFrame(bytes.NewReader(frame))
		if err != nil || again.ID != e.ID || again.Method != e.Method {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
