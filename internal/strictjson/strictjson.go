// Package strictjson reads JSON that may be damaged or hostile, and keeps strings
// in it that are no UTF-8.
package strictjson

import (
	"encoding/json"
	"errors"
	"io"
)

// Decode reads exactly one JSON document into dst. A field that dst does not
// have and anything after the document are errors.
func Decode(r io.Reader, dst any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the document")
	}
	return nil
}
