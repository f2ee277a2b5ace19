package strictjson

import (
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string // want: part of the error, "" for none
	}{
		{"whole", `{"a": 1} ` + "\n", ""},
		{"unknown field", `{"b": 1}`, `"b"`},
		{"truncated", `{"a": `, "EOF"},
		{"empty", ``, "EOF"},
		{"two documents", `{"a": 1}{}`, "after the document"},
		{"garbage after it", `{"a": 1}]`, "after the document"},
		{"another type", `{"a": "x"}`, "string"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var dst struct {
				A int `json:"a"`
			}
			err := Decode(strings.NewReader(tc.in), &dst)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}
