package coord

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// maxFrame is the limit for the JSON of one frame, in bytes.
	maxFrame    = 16 << 20
	frameHeader = 4
)

// envelope is what a frame holds: a request (ID and Method), a notification
// (Method), or a reply (ID).
type envelope struct {
	ID     uint64          `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

// encodeFrame returns e as a whole frame.
func encodeFrame(e envelope) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, frameHeader))
	if err := json.NewEncoder(&buf).Encode(e); err != nil {
		return nil, fmt.Errorf("encode %q message: %w", e.Method, err)
	}
	frame := buf.Bytes()
	size := len(frame) - frameHeader
	if size > maxFrame {
		return nil, fmt.Errorf("%q message of %d bytes is over the limit of %d", e.Method, size, maxFrame)
	}
	binary.BigEndian.PutUint32(frame, uint32(size))
	return frame, nil
}

// readFrame reads one frame. Between frames the end of r is io.EOF, inside
// one io.ErrUnexpectedEOF.
func readFrame(r io.Reader) (envelope, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return envelope{}, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size == 0 || size > maxFrame {
		return envelope{}, fmt.Errorf("%w: frame of %d bytes, want 1 to %d", errProtocol, size, maxFrame)
	}
	// The buffer grows with what has come, not with what was announced.
	var payload bytes.Buffer
	if _, err := io.CopyN(&payload, r, int64(size)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return envelope{}, err
	}
	return parseEnvelope(payload.Bytes())
}

// parseEnvelope accepts exactly the three forms of an envelope.
func parseEnvelope(payload []byte) (envelope, error) {
	var e envelope
	if err := json.Unmarshal(payload, &e); err != nil {
		return envelope{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	switch {
	case e.ID == 0 && e.Method == "":
		return envelope{}, fmt.Errorf("%w: message with neither id nor method", errProtocol)
	case e.Method != "" && e.Error != nil:
		return envelope{}, fmt.Errorf("%w: %q message with an error", errProtocol, e.Method)
	}
	return e, nil
}
