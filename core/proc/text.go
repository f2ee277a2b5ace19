package proc

import "github.com/hiatus-project/hiatus/internal/strictjson"

// text is a string of bytes, as the kernel keeps names, which it cuts within a
// character: see strictjson.MarshalBytes.
type text string

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) { return strictjson.MarshalBytes(string(t)) }

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	s, err := strictjson.UnmarshalBytes(b)
	if err == nil {
		*t = text(s)
	}
	return err
}
