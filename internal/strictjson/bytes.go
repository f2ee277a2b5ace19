package strictjson

import (
	"encoding/json"
	"unicode/utf8"
)

type rawBytes struct {
	Base64 []byte `json:"base64"`
}

// MarshalBytes writes a string of bytes, as the kernel keeps names: as a string
// where it is UTF-8 (RFC 8259), else as {"base64": ...}.
func MarshalBytes(s string) ([]byte, error) {
	if utf8.ValidString(s) {
		return json.Marshal(s)
	}
	return json.Marshal(rawBytes{[]byte(s)})
}

// UnmarshalBytes reads what MarshalBytes writes.
func UnmarshalBytes(b []byte) (s string, err error) {
	if len(b) > 0 && b[0] == '"' {
		err = json.Unmarshal(b, &s)
		return s, err
	}
	var raw rawBytes
	err = json.Unmarshal(b, &raw)
	return string(raw.Base64), err
}
